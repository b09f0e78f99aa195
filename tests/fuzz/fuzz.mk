# SPDX-License-Identifier: GPL-2.0-or-later
# Fuzzers of what comes from outside (libFuzzer, clang), each a fuzz_NAME.c:
#
#   make fuzz-NAME            FUZZ_TIME seconds (600), in build-fuzz; what it found before is where it goes on
#   make check-fuzz           all of them

FUZZ_TIME ?= 600
FUZZ_ARGS ?=
fuzz_san  := fuzzer-no-link,address,undefined
fuzz_bin  := $(patsubst %.c,$(B)/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz_name := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

# A destination on the simulator's fibers, for fuzz_incoming.c and tests/unit/test_hostile_*.c.
rig_obj := $(addprefix $(B)/tests/fuzz/,incoming_rig.o rig_machine.o played_channel.o stream_records.o) \
	$(addprefix $(B)/tests/sim/sim_,runtime.o fiber.o random.o trace.o)

$(B)/tests/fuzz/fuzz_incoming: $(rig_obj) $(B)/tests/fuzz/record_mutator.o
$(fuzz_bin): $(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(lib_obj) $(filter-out $(B)/src/cli/main.o,$(prog_obj)) $(guest_images)
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer $^ $(PROG_LIBS) -lcmocka -o $@

# libFuzzer takes the depth of a stack from its addresses: a fiber's say nothing.
$(B)/src/%.o $(B)/tests/%.o: ALL_CFLAGS += $(if $(findstring fuzzer,$(SAN)),-fno-sanitize-coverage=stack-depth)

$(fuzz_name:%=fuzz-%): fuzz-%:
	@scripts/install-packages check
	@$(MAKE) --no-print-directory CC=clang SAN=$(fuzz_san) B=build-fuzz run-fuzz-$*

# One input must end within seconds; the first undefined behaviour ends it all.
# Without -entropic=0 two thirds of the time go into the choice of the next input.
run-fuzz-%: $(B)/tests/fuzz/fuzz_%
	@mkdir -p $(B)/corpus/$*
	FUZZ_SEEDS=$(B)/corpus/$* UBSAN_OPTIONS=print_stacktrace=1 $< -max_total_time=$(FUZZ_TIME) -timeout=20 \
	-max_len=98304 -entropic=0 -print_final_stats=1 -artifact_prefix=$(B)/$*- $(FUZZ_ARGS) $(B)/corpus/$*

check-fuzz:
	@tests/fuzz/run $(fuzz_name)

.PHONY: check-fuzz $(fuzz_name:%=fuzz-%)
.SECONDARY: $(fuzz_bin:=.o)
-include $(rig_obj:.o=.d) $(fuzz_bin:=.d) $(B)/tests/fuzz/record_mutator.d
