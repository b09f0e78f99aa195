# SPDX-License-Identifier: GPL-2.0-or-later
# make bench-NAME: each closes with one line for scripts (docs/benchmarks.md keeps command, machine and output).

$(B)/bench/copy_floor: bench/copy_floor.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) -O2 $(WARN) -D_GNU_SOURCE $< -o $@

bench-epoch: all $(B)/bench/copy_floor $(B)/tests/vm/count_client
	@bench/epoch.py --build $(B)

$(B)/bench/tsckhz: tests/host/tsckhz.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) -O2 $(WARN) -D_GNU_SOURCE $< -o $@

bench-disk: all guests $(B)/bench/tsckhz
	@scripts/install-packages check
	@bench/disk.py --build $(B)

bench-migrate: all guests $(B)/tests/vm/count_client
	@scripts/install-packages check
	@bench/migrate.py --build $(B)

.PHONY: bench-epoch bench-disk bench-migrate
