# SPDX-License-Identifier: GPL-2.0-or-later
# Unit tests: every tests/unit/test_NAME.c is one program, linked with all of the project but main().

unit_src  := $(wildcard tests/unit/test_*.c)
unit_bin  := $(unit_src:%.c=$(B)/%)
# What several tests use and is too long for a header.
test_lib  := $(patsubst %.c,$(B)/%.o,$(wildcard tests/lib/*.c))
test_objs := $(lib_obj) $(filter-out $(B)/src/cli/main.o,$(prog_obj)) $(guest_images)

$(unit_bin): $(B)/tests/unit/%: $(B)/tests/unit/%.o $(test_lib) $(test_objs)
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(PROG_LIBS) -lcmocka -o $@

# It counts allocations.
$(B)/tests/unit/test_engine_pause: ALL_LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
# Power cuts replay from a seed: on the simulator's fibers.
$(B)/tests/unit/test_journal_crash: $(addprefix $(B)/tests/sim/sim_,runtime.o fiber.o random.o trace.o)

# A recorded migration and whatever is made of it: the fuzzers' rig (tests/fuzz), on the same fibers.
$(addprefix $(B)/tests/unit/test_hostile_,migration sections destination): $(rig_obj)

check-unit: $(unit_bin)
	$(Q)tests/run-programs unit $(unit_bin) $(example_bin)

.PHONY: check-unit
.SECONDARY: $(unit_bin:=.o)
-include $(unit_bin:=.d) $(test_lib:.o=.d)
