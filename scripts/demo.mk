# SPDX-License-Identifier: GPL-2.0-or-later
# make demo: installs what is missing, builds (a make of its own: pkg-config must see the new packages), runs.

demo:
	@scripts/install-packages demo
	@$(MAKE) --no-print-directory -s -j$(shell nproc) demo-programs
	@scripts/demo --build $(B)

demo-programs: all $(B)/tests/vm/count_client

.PHONY: demo demo-programs
