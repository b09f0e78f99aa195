# SPDX-License-Identifier: GPL-2.0-or-later
# Tests with real guests: every tests/vm/test_NAME.c is one program, linked with all of the project but main(), with the small guests and
# with vm.c. They need /dev/kvm; where there is none they run inside a test host.

vm_src := $(wildcard tests/vm/test_*.c)
vm_bin := $(vm_src:%.c=$(B)/%)
vm_lib := $(B)/tests/vm/vm.o $(B)/tests/vm/ends_image.o

$(B)/tests/vm/ends.elf: tests/vm/ends.S
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) -m32 -c $< -o $(@:.elf=.o)
	$(Q)ld -m elf_i386 -nostdlib -static --build-id=none -Ttext-segment=0x200000 -e start $(@:.elf=.o) -o $@

$(B)/tests/vm/ends_image.o: $(B)/tests/vm/ends.elf
	$(Q)printf '.section .rodata\n.globl ends_start, ends_end\nends_start: .incbin "%s"\nends_end:\n%s\n' $< \
	'.section .note.GNU-stack,"",@progbits' | $(CC) -c -x assembler - -o $@

$(B)/tests/vm/vm.o $(vm_bin:=.o): ALL_CFLAGS += -Iguests

$(vm_bin): $(B)/tests/vm/%: $(B)/tests/vm/%.o $(vm_lib) $(test_objs)
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(PROG_LIBS) -lcmocka -o $@

# It counts allocations.
$(B)/tests/vm/test_machine_save: ALL_LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
# A host that lacks something.
$(B)/tests/vm/test_dirty_log: ALL_LDFLAGS += -Wl,--wrap=ioctl

# Loaded before the C library, and without the sanitizers: they are the program's.
failing_io := $(B)/tests/vm/failing_io.so
$(failing_io): tests/vm/failing_io.c
	@echo "  LD    $@"
	$(Q)$(CC) -O2 -Wall -Wextra -Werror -fPIC -shared $< -o $@

check-vm: all $(vm_bin) $(count_client) $(linux_count) $(failing_io)
	$(Q)tests/vm/run $(B) $(vm_bin)

check-kills: all $(count_client)
	$(Q)tests/vm/test_kills.py --build $(B) --kills 50

.PHONY: check-vm check-kills
.SECONDARY: $(vm_bin:=.o)
-include $(vm_bin:=.d) $(B)/tests/vm/vm.d
