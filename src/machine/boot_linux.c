/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Linux bzImage: the 64-bit boot protocol (Documentation/arch/x86/boot.rst). */
#include "machine/boot.h"
#include "base/endian.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_OFFSET  0x1f1u
#define VERSION_NEEDED 0x20cu /* 64-bit entry */
#define BOOT_FLAG      0xaa55
#define HEADER_MAGIC   0x53726448u /* HdrS */
#define SECTOR         512u
#define ENTRY_64       0x200u
#define LOADER_UNKNOWN 0xff
#define CMDLINE_OLD    256u
#define GIB            (UINT64_C(1) << 30)
#define HUGE_PAGE      (UINT64_C(1) << 21)
#define E820_RAM       1
#define E820_RESERVED  2

struct image {
    struct setup_header header;
    const uint8_t *code;
    size_t code_size;
    uint64_t address, end;
};

static bool refuse(Error **errp, const char *why)
{
    error_setg(errp, "the kernel is no bootable file: %s (a bzImage or a PVH ELF file is needed)", why);
    return false;
}

static bool parse_header(const struct boot *b, struct image *im, Error **errp)
{
    struct setup_header *h = &im->header;
    size_t setup;

    if (b->kernel_size < HEADER_OFFSET + sizeof(*h))
        return refuse(errp, "it is too short");
    memcpy(h, b->kernel + HEADER_OFFSET, sizeof(*h));
    if (h->boot_flag != BOOT_FLAG || h->header != HEADER_MAGIC)
        return refuse(errp, "it has no Linux setup header");
    if (h->version < VERSION_NEEDED || !(h->xloadflags & XLF_KERNEL_64))
        return refuse(errp, "it is no 64-bit Linux kernel");
    if (!(h->loadflags & LOADED_HIGH))
        return refuse(errp, "it is a zImage");
    setup = ((h->setup_sects ? h->setup_sects : 4u) + 1) * SECTOR;
    if (setup >= b->kernel_size || b->kernel_size - setup <= ENTRY_64)
        return refuse(errp, "it is cut off");
    im->code = b->kernel + setup;
    im->code_size = b->kernel_size - setup;
    return true;
}

/* At the address that the kernel prefers: it then has nothing to move. */
static bool place_code(const struct boot *b, struct image *im, Error **errp)
{
    uint64_t size = im->header.init_size;

    if (size < im->code_size)
        size = im->code_size;
    im->address = im->header.pref_address;
    if (im->address < BOOT_KERNEL_MIN || !guest_memory_map(b->memory, im->address, size)) {
        error_setg(errp, "the kernel wants %" PRIu64 " bytes at 0x%" PRIx64 ": use a larger --memory", size,
                   im->address);
        return false;
    }
    im->end = im->address + size;
    return boot_write(b, im->address, im->code, im->code_size, "the kernel", errp);
}

static void fill_memory_map(struct boot_params *zp, const GuestMemory *m)
{
    struct boot_region regions[BOOT_REGIONS_MAX];
    int n = boot_regions(m, regions);

    zp->e820_entries = (uint8_t)n;
    for (int i = 0; i < n; i++) {
        zp->e820_table[i].addr = regions[i].base;
        zp->e820_table[i].size = regions[i].size;
        zp->e820_table[i].type = regions[i].ram ? E820_RAM : E820_RESERVED;
    }
}

static bool write_zero_page(const struct boot *b, const struct image *im, uint64_t initrd, Error **errp)
{
    struct boot_params *zp = calloc(1, sizeof(*zp));
    size_t size = 0x202u + b->kernel[0x201] - HEADER_OFFSET;
    bool ok;

    if (!zp) {
        error_setg_errno(errp, ENOMEM, "zero page");
        return false;
    }
    if (size > sizeof(zp->hdr))
        size = sizeof(zp->hdr);
    memcpy(&zp->hdr, &im->header, size);
    zp->hdr.type_of_loader = LOADER_UNKNOWN;
    zp->hdr.cmd_line_ptr = BOOT_CMDLINE;
    zp->hdr.ramdisk_image = (uint32_t)initrd;
    zp->hdr.ramdisk_size = (uint32_t)b->initrd_size;
    zp->acpi_rsdp_addr = b->rsdp;
    fill_memory_map(zp, b->memory);
    ok = boot_write(b, BOOT_ZERO_PAGE, zp, sizeof(*zp), "the zero page", errp);
    free(zp);
    return ok;
}

/* Identity, in 2 MiB pages: one PML4, one PDPT, four directories. */
static bool write_page_tables(const struct boot *b, Error **errp)
{
    uint64_t(*table)[512] = calloc(6, sizeof(*table));
    bool ok;

    if (!table) {
        error_setg_errno(errp, ENOMEM, "page tables");
        return false;
    }
    table[0][0] = (BOOT_PAGE_TABLES + GUEST_PAGE_SIZE) | 3;
    for (unsigned gib = 0; gib < 4; gib++) {
        table[1][gib] = (BOOT_PAGE_TABLES + (2 + gib) * GUEST_PAGE_SIZE) | 3;
        for (unsigned i = 0; i < 512; i++)
            table[2 + gib][i] = (gib * GIB + i * HUGE_PAGE) | 0x83;
    }
    ok = boot_write(b, BOOT_PAGE_TABLES, table, 6 * sizeof(*table), "page tables", errp);
    free(table);
    return ok;
}

static bool write_gdt(const struct boot *b, Error **errp)
{
    static const uint64_t gdt[] = {
        0, 0, 0x00af9b000000ffff /* code */, 0x00cf93000000ffff /* data */, 0x00008b0000000067 /* task */, 0};

    return boot_write(b, BOOT_GDT, gdt, sizeof(gdt), "the GDT", errp);
}

bool boot_linux_load(const struct boot *b, struct boot_entry *ret, Error **errp)
{
    struct image im;
    uint64_t initrd;

    if (!parse_header(b, &im, errp) || !place_code(b, &im, errp) ||
        !boot_place_initrd(b, im.end, im.header.initrd_addr_max, &initrd, errp) ||
        !boot_write_cmdline(b, im.header.cmdline_size ? im.header.cmdline_size + 1ull : CMDLINE_OLD, errp) ||
        !write_zero_page(b, &im, initrd, errp) || !write_page_tables(b, errp) || !write_gdt(b, errp))
        return false;
    *ret = (struct boot_entry){.long_mode = true, .rip = im.address + ENTRY_64, .argument = BOOT_ZERO_PAGE};
    return true;
}
