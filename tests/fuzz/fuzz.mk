# SPDX-License-Identifier: GPL-2.0-or-later
# Fuzzers of what comes from outside (libFuzzer, clang). Each is fuzz_NAME.c; `make fuzz-NAME` runs it.

# A destination on the simulator's fibers, for fuzz_incoming.c and tests/unit/test_hostile_migration.c.
rig_obj := $(addprefix $(B)/tests/fuzz/,incoming_rig.o rig_machine.o played_channel.o stream_records.o) \
	$(addprefix $(B)/tests/sim/sim_,runtime.o fiber.o random.o trace.o)

-include $(rig_obj:.o=.d)
