/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ELF kernels with a PVH note: the loader, and the start info of the x86/HVM direct boot ABI. */
#include "machine/boot.h"
#include "base/endian.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

#define NOTE_PHYS32_ENTRY 18
#define SEGMENTS_MAX      64
#define START_MAGIC       0x336ec578u
#define MODULE_OFFSET     0x80u
#define MAP_OFFSET        0x100u
#define E820_RAM          1
#define E820_RESERVED     2

/* A program header of either class. */
struct segment {
    uint32_t type;
    uint64_t offset, file_size, address, size, align;
};

struct elf {
    const struct boot *boot;
    bool wide; /* ELF64 */
    uint64_t headers;
    unsigned count, stride;
};

bool boot_is_elf(const struct boot *b)
{
    return b->kernel_size >= SELFMAG && !memcmp(b->kernel, ELFMAG, SELFMAG);
}

static bool inside(const struct boot *b, uint64_t offset, uint64_t size)
{
    return offset <= b->kernel_size && size <= b->kernel_size - offset;
}

static bool open_elf(struct elf *e, const struct boot *b, Error **errp)
{
    Elf64_Ehdr h64;
    Elf32_Ehdr h32;
    size_t least;

    *e = (struct elf){.boot = b};
    if (b->kernel_size >= sizeof(h64) && b->kernel[EI_CLASS] == ELFCLASS64) {
        memcpy(&h64, b->kernel, sizeof(h64));
        *e = (struct elf){
            .boot = b, .wide = true, .headers = h64.e_phoff, .count = h64.e_phnum, .stride = h64.e_phentsize};
        least = sizeof(Elf64_Phdr);
    } else if (b->kernel_size >= sizeof(h32) && b->kernel[EI_CLASS] == ELFCLASS32) {
        memcpy(&h32, b->kernel, sizeof(h32));
        *e = (struct elf){.boot = b, .headers = h32.e_phoff, .count = h32.e_phnum, .stride = h32.e_phentsize};
        least = sizeof(Elf32_Phdr);
    } else {
        error_setg(errp, "the kernel is a broken ELF file");
        return false;
    }
    if (b->kernel[EI_DATA] == ELFDATA2LSB && e->count <= SEGMENTS_MAX && e->stride >= least &&
        inside(b, e->headers, (uint64_t)e->count * e->stride))
        return true;
    error_setg(errp, "the kernel is an ELF file with bad program headers");
    return false;
}

/* Copies: nothing in the file need be aligned. */
static struct segment segment_at(const struct elf *e, unsigned i)
{
    const uint8_t *p = e->boot->kernel + e->headers + (uint64_t)i * e->stride;
    Elf64_Phdr h64;
    Elf32_Phdr h32;

    if (e->wide) {
        memcpy(&h64, p, sizeof(h64));
        return (struct segment){h64.p_type,  h64.p_offset, h64.p_filesz,
                                h64.p_paddr, h64.p_memsz,  h64.p_align};
    }
    memcpy(&h32, p, sizeof(h32));
    return (struct segment){h32.p_type, h32.p_offset, h32.p_filesz, h32.p_paddr, h32.p_memsz, h32.p_align};
}

/* Looks through one PT_NOTE segment. */
static bool entry_in_notes(const struct boot *b, const struct segment *s, uint64_t *ret)
{
    uint64_t align = s->align == 8 ? 8 : 4, at = 0;

    if (!inside(b, s->offset, s->file_size))
        return false;
    while (s->file_size - at >= sizeof(Elf32_Nhdr)) {
        const uint8_t *p = b->kernel + s->offset + at;
        uint64_t name_size = le32_get(p), size = le32_get(p + 4);
        uint64_t name = sizeof(Elf32_Nhdr), data = (name + name_size + align - 1) & ~(align - 1);

        if (data > s->file_size - at || size > s->file_size - at - data)
            return false;
        if (le32_get(p + 8) == NOTE_PHYS32_ENTRY && name_size == 4 && !memcmp(p + name, "Xen", 4) &&
            size >= 4) {
            *ret = size >= 8 ? le64_get(p + data) : le32_get(p + data);
            return *ret <= UINT32_MAX;
        }
        data = (data + size + align - 1) & ~(align - 1);
        if (data > s->file_size - at)
            return false;
        at += data;
    }
    return false;
}

static bool find_entry(const struct elf *e, uint64_t *ret, Error **errp)
{
    for (unsigned i = 0; i < e->count; i++) {
        struct segment s = segment_at(e, i);

        if (s.type == PT_NOTE && entry_in_notes(e->boot, &s, ret))
            return true;
    }
    error_setg(errp, "the kernel is an ELF file without a PVH entry (note Xen, type 18): "
                     "give a bzImage, or a vmlinux built with CONFIG_PVH");
    return false;
}

static bool load_segment(const struct boot *b, const struct segment *s, Error **errp)
{
    uint8_t *to = guest_memory_map(b->memory, s->address, s->size);

    if (s->file_size > s->size || !inside(b, s->offset, s->file_size)) {
        error_setg(errp, "the kernel is an ELF file with a bad segment at 0x%" PRIx64, s->address);
        return false;
    }
    if (s->address < BOOT_KERNEL_MIN || !to) {
        error_setg(errp,
                   "the kernel's segment at 0x%" PRIx64 " (%" PRIu64
                   " bytes) does not fit into the guest's memory",
                   s->address, s->size);
        return false;
    }
    memcpy(to, b->kernel + s->offset, s->file_size);
    memset(to + s->file_size, 0, s->size - s->file_size);
    guest_memory_mark_dirty(b->memory, s->address, s->size);
    return true;
}

static bool load_segments(const struct elf *e, uint64_t entry, uint64_t *ret_end, Error **errp)
{
    bool covered = false;

    *ret_end = BOOT_KERNEL_MIN;
    for (unsigned i = 0; i < e->count; i++) {
        struct segment s = segment_at(e, i);

        if (s.type != PT_LOAD || !s.size)
            continue;
        if (!load_segment(e->boot, &s, errp))
            return false;
        if (s.address + s.size > *ret_end)
            *ret_end = s.address + s.size;
        covered |= entry >= s.address && entry - s.address < s.size;
    }
    if (!covered)
        error_setg(errp, "the kernel's PVH entry 0x%" PRIx64 " lies in none of its segments", entry);
    return covered;
}

/* Start info, one module, memory map: offsets of version 1. */
static bool write_start_info(const struct boot *b, uint64_t initrd, Error **errp)
{
    uint8_t page[0x200] = {0}, *map = page + MAP_OFFSET;
    struct boot_region regions[BOOT_REGIONS_MAX];
    int n = boot_regions(b->memory, regions);

    le32_put(page, START_MAGIC);
    le32_put(page + 4, 1);
    le32_put(page + 12, b->initrd_size ? 1 : 0);
    le64_put(page + 16, b->initrd_size ? BOOT_START_INFO + MODULE_OFFSET : 0);
    le64_put(page + 24, BOOT_CMDLINE);
    le64_put(page + 32, b->rsdp);
    le64_put(page + 40, BOOT_START_INFO + MAP_OFFSET);
    le32_put(page + 48, (uint32_t)n);
    le64_put(page + MODULE_OFFSET, initrd);
    le64_put(page + MODULE_OFFSET + 8, b->initrd_size);
    for (int i = 0; i < n; i++, map += 24) {
        le64_put(map, regions[i].base);
        le64_put(map + 8, regions[i].size);
        le32_put(map + 16, regions[i].ram ? E820_RAM : E820_RESERVED);
    }
    return boot_write(b, BOOT_START_INFO, page, sizeof(page), "the start info", errp);
}

bool boot_pvh_load(const struct boot *b, struct boot_entry *ret, Error **errp)
{
    uint64_t entry, end, initrd;
    struct elf e;

    if (!open_elf(&e, b, errp) || !find_entry(&e, &entry, errp) || !load_segments(&e, entry, &end, errp) ||
        !boot_place_initrd(b, end, UINT32_MAX, &initrd, errp) ||
        !boot_write_cmdline(b, GUEST_PAGE_SIZE, errp) || !write_start_info(b, initrd, errp))
        return false;
    *ret = (struct boot_entry){.rip = entry, .argument = BOOT_START_INFO};
    return true;
}
