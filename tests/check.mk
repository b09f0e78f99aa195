# SPDX-License-Identifier: GPL-2.0-or-later
# The tiers together. `make check` installs what is missing first, so it is its own make: pkg-config must see the new packages.

# In this order, quickest first. Each tier closes with "TIER: N passed, N failed, N skipped".
CHECK_TIERS ?= lint unit sim vm

check:
	@scripts/install-packages check
	@tests/check $(CHECK_TIERS)

# All of it again with the sanitizers; ThreadSanitizer for what runs without KVM.
check-sanitize:
	@scripts/install-packages check
	@$(MAKE) --no-print-directory SAN=address,undefined check-tiers TIERS="unit sim vm"
	@$(MAKE) --no-print-directory SAN=thread check-tiers TIERS="unit sim"

# Hours rather than minutes: many seeds, ten minutes of each fuzzer, many kills, every scenario of the test hosts.
check-long:
	@scripts/install-packages check host
	@tests/check lint unit sim-long fuzz vm kills host-long demo-linux

check-tiers:
	@SAN=$(SAN) CC=$(CC) tests/check $(TIERS)

.PHONY: check check-sanitize check-long check-tiers
