# SPDX-License-Identifier: GPL-2.0-or-later
# The simulator: the real engine on simulated hosts, links, clocks and guests (docs/simulator.md).

sim_src := $(filter-out tests/sim/sim_main.c tests/sim/selftest_main.c,$(wildcard tests/sim/*.c))
sim_obj := $(sim_src:%.c=$(B)/%.o)

$(B)/tests/sim/sim $(B)/tests/sim/selftest: $(B)/tests/sim/%: $(B)/tests/sim/%_main.o $(sim_obj) $(lib_obj)
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(ALL_LIBS) -o $@

-include $(sim_obj:.o=.d) $(B)/tests/sim/sim_main.d $(B)/tests/sim/selftest_main.d

# A self test of the world, then 1,000 seeds, the planted bugs and the replay: one closing line for all.
check-sim: $(B)/tests/sim/selftest $(B)/tests/sim/sim
	$(Q)$(B)/tests/sim/selftest && $(B)/tests/sim/sim --check

.PHONY: check-sim
