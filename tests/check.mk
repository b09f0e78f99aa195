# SPDX-License-Identifier: GPL-2.0-or-later
# The tiers together. `make check` installs what is missing first, so it is its own make: pkg-config must see the new packages.

# In this order, quickest first. Each tier closes with "TIER: N passed, N failed, N skipped".
CHECK_TIERS ?= lint unit sim vm

check:
	@scripts/install-packages check
	@tests/check $(CHECK_TIERS)

.PHONY: check
