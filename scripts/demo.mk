# SPDX-License-Identifier: GPL-2.0-or-later
# make demo: installs what is missing, builds (a make of its own: pkg-config must see the new packages), runs.
# make demo DEMO="--guest count": its options.

demo:
	@scripts/install-packages demo
	@$(MAKE) --no-print-directory -s -j$(shell nproc) demo-programs
	@scripts/demo --build $(B) $(DEMO)

demo-programs: all $(B)/tests/vm/count_client $(linux_count)

.PHONY: demo demo-programs
