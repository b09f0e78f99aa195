/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Boot: puts a kernel, its initrd, command line and tables into RAM, and says where the first processor
 * begins.
 *
 * Two kinds of kernel: an ELF file with a PVH note (entered in 32-bit protected mode), and a Linux bzImage
 * (64-bit boot protocol). Kernel files are hostile input. What lies below 1 MiB:
 *
 *     0x1000  GDT                    0x6000  PVH start info, modules, memory map
 *     0x7000  Linux zero page        0x9000  page tables, identity, 4 GiB
 *     0x20000 command line           0xe0000 ACPI
 */
#ifndef MACHINE_BOOT_H
#define MACHINE_BOOT_H

#include "guest/memory.h"
#include "machine/vcpu_state.h"

#define BOOT_GDT         0x1000u
#define BOOT_START_INFO  0x6000u
#define BOOT_ZERO_PAGE   0x7000u
#define BOOT_PAGE_TABLES 0x9000u
#define BOOT_CMDLINE     0x20000u
#define BOOT_KERNEL_MIN  0x100000u /* kernels lie above */

struct boot {
    GuestMemory *memory;
    const uint8_t *kernel;
    size_t kernel_size;
    const uint8_t *initrd; /* NULL: none */
    size_t initrd_size;
    const char *cmdline;
    uint64_t rsdp;
};

struct boot_entry {
    bool long_mode;
    uint64_t rip;
    uint64_t argument; /* rsi in long mode, else ebx */
};

struct boot_region {
    uint64_t base, size;
    bool ram;
};
#define BOOT_REGIONS_MAX 4

bool boot_load(const struct boot *b, struct boot_entry *ret, Error **errp);
/* s: as after power-on. */
void boot_apply(const struct boot_entry *e, struct vcpu_state *s);

/* For the loaders. */
int boot_regions(const GuestMemory *m, struct boot_region ret[BOOT_REGIONS_MAX]);
bool boot_write(const struct boot *b, uint64_t gpa, const void *data, size_t size, const char *what,
                Error **errp);
/* At the top of low memory, not above limit, not below kernel_end. */
bool boot_place_initrd(const struct boot *b, uint64_t kernel_end, uint64_t limit, uint64_t *ret_gpa,
                       Error **errp);
bool boot_write_cmdline(const struct boot *b, size_t limit, Error **errp);

bool boot_is_elf(const struct boot *b);
bool boot_pvh_load(const struct boot *b, struct boot_entry *ret, Error **errp);
bool boot_linux_load(const struct boot *b, struct boot_entry *ret, Error **errp);

#endif
