# SPDX-License-Identifier: GPL-2.0-or-later
#
# The small guests: $(B)/guests/NAME.elf (PVH), $(B)/guests/NAME.bin (64 KiB firmware image holding the same), and the object that puts
# the ELFs into the program: guest_image_NAME_start and _end.

guest_names  := count dirty disk irq log walk
guest_lib    := $(patsubst guests/lib/%,%,$(filter-out guests/lib/bios.S,$(wildcard guests/lib/*.[cS])))
guest_lib_o  := $(addprefix $(B)/guests/lib/,$(addsuffix .o,$(basename $(guest_lib))))
guest_elf    := $(guest_names:%=$(B)/guests/%.elf)
guest_bin    := $(guest_names:%=$(B)/guests/%.bin)
guest_images := $(B)/guests/images.o

GUEST_CFLAGS := -std=gnu11 -O2 -g -ffreestanding -fno-pic -fno-pie -mcmodel=small -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fno-asynchronous-unwind-tables -fno-strict-aliasing -fcf-protection=none -Iguests $(WARN)

$(B)/perdure: $(guest_images)

guests: $(guest_elf) $(guest_bin)

$(B)/guests/%.o: guests/%.c guests/guests.mk
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c $< -o $@

$(B)/guests/%.o: guests/%.S guests/guests.mk
	@mkdir -p $(@D)
	@echo "  AS    $<"
	$(Q)$(CC) $(GUEST_CFLAGS) -c $< -o $@

$(guest_elf): $(B)/guests/%.elf: $(B)/guests/%.o $(guest_lib_o) guests/lib/guest.ld
	@echo "  LD    $@"
	$(Q)ld -nostdlib -static --build-id=none --no-warn-rwx-segments -z max-page-size=4096 -T guests/lib/guest.ld \
	$(filter %.o,$^) -o $@.debug
	$(Q)objcopy --strip-debug $@.debug $@

# What counts is the same in Linux (guests/linux).
$(B)/guests/count.elf $(B)/guests/log.elf: $(B)/guests/requests.o $(B)/guests/request_server.o

$(guest_bin): $(B)/guests/%.bin: $(B)/guests/%.elf guests/lib/bios.S
	@echo "  BIOS  $@"
	$(Q)objcopy -O binary -j .status -j .pages -j .text -j .note -j .rodata -j .data $< $@.payload
	$(Q)$(CC) -c -DPAYLOAD='"$@.payload"' -DENTRY=0x$$(nm $< | sed -n 's/ T pvh_start$$//p') guests/lib/bios.S -o $@.o
	$(Q)ld -m elf_x86_64 -Ttext 0 --oformat binary -e 0 $@.o -o $@

$(guest_images): guests/images.S $(guest_elf)
	@echo "  AS    $<"
	$(Q)$(CC) -c -I$(B)/guests $< -o $@

# Process 1 of a Linux guest; no sanitizer: it runs where no library is.
linux_count := $(B)/guests/linux/count

$(linux_count): guests/linux/count.c guests/requests.c guests/requests.h guests/guest_abi.h guests/guests.mk
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 $(WARN) -Iguests -static $(filter %.c,$^) -o $@

.PHONY: guests
-include $(guest_names:%=$(B)/guests/%.d) $(B)/guests/requests.d $(B)/guests/request_server.d $(guest_lib_o:.o=.d)
