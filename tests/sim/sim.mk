# SPDX-License-Identifier: GPL-2.0-or-later
# The simulator: the real engine on simulated hosts, links, clocks and guests (docs/simulator.md).

sim_src := $(filter-out tests/sim/sim_main.c tests/sim/selftest_main.c,$(wildcard tests/sim/*.c))
# and what the program decides about disks, which needs no machine
sim_obj := $(sim_src:%.c=$(B)/%.o) $(addprefix $(B)/src/,machine/disk_mark.o control/disk_judge.o control/disk_replay.o)

$(B)/tests/sim/sim $(B)/tests/sim/selftest: $(B)/tests/sim/%: $(B)/tests/sim/%_main.o $(sim_obj) $(lib_obj)
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(ALL_LIBS) -o $@

-include $(sim_obj:.o=.d) $(B)/tests/sim/sim_main.d $(B)/tests/sim/selftest_main.d

# A self test of the world, then the seeds, the planted bugs and the replay. The sanitizers cost several times as much: fewer seeds.
SIM_SEEDS ?= $(if $(findstring thread,$(SAN)),100,$(if $(SAN),300,1000))

check-sim check-sim-long: $(B)/tests/sim/selftest $(B)/tests/sim/sim
	$(Q)$(B)/tests/sim/selftest && $(B)/tests/sim/sim --check --seeds $(SIM_SEEDS)
check-sim-long: SIM_SEEDS := 10000

.PHONY: check-sim check-sim-long
