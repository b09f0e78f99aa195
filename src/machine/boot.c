/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/boot.h"

#include <string.h>

#define CR0_PE   0x1u
#define CR0_ET   0x10u
#define CR0_NE   0x20u
#define CR0_PG   0x80000000u
#define CR4_PAE  0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define LOW_END  0xa0000u

/* Selectors of the Linux boot protocol; PVH leaves them open. */
#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18
#define SELECTOR_TASK 0x20

int boot_regions(const GuestMemory *m, struct boot_region ret[BOOT_REGIONS_MAX])
{
    int n = 0;

    ret[n++] = (struct boot_region){.base = 0, .size = LOW_END, .ram = true};
    ret[n++] = (struct boot_region){.base = LOW_END, .size = BOOT_KERNEL_MIN - LOW_END};
    for (int i = 0; i < m->block_count; i++) {
        uint64_t skip = i == 0 ? BOOT_KERNEL_MIN : 0;

        ret[n++] = (struct boot_region){
            .base = m->blocks[i].gpa + skip, .size = m->blocks[i].size - skip, .ram = true};
    }
    return n;
}

bool boot_write(const struct boot *b, uint64_t gpa, const void *data, size_t size, const char *what,
                Error **errp)
{
    if (!size || guest_memory_write(b->memory, gpa, data, size))
        return true;
    error_setg(errp, "%s (%zu bytes) does not fit into the guest's memory: use a larger --memory", what,
               size);
    return false;
}

bool boot_place_initrd(const struct boot *b, uint64_t kernel_end, uint64_t limit, uint64_t *ret_gpa,
                       Error **errp)
{
    uint64_t top = b->memory->blocks[0].size;

    *ret_gpa = 0;
    if (!b->initrd_size)
        return true;
    if (top > limit)
        top = limit;
    if (b->initrd_size > top || (top - b->initrd_size) < kernel_end) {
        error_setg(errp, "the initrd (%zu bytes) does not fit above the kernel: use a larger --memory",
                   b->initrd_size);
        return false;
    }
    *ret_gpa = (top - b->initrd_size) & ~(uint64_t)(GUEST_PAGE_SIZE - 1);
    if (*ret_gpa < kernel_end) {
        error_setg(errp, "the initrd (%zu bytes) does not fit above the kernel: use a larger --memory",
                   b->initrd_size);
        return false;
    }
    return boot_write(b, *ret_gpa, b->initrd, b->initrd_size, "the initrd", errp);
}

bool boot_write_cmdline(const struct boot *b, size_t limit, Error **errp)
{
    size_t size = strlen(b->cmdline) + 1;

    if (size > limit) {
        error_setg(errp, "--cmdline: %zu bytes; this kernel takes at most %zu", size - 1, limit - 1);
        return false;
    }
    return boot_write(b, BOOT_CMDLINE, b->cmdline, size, "the command line", errp);
}

bool boot_load(const struct boot *b, struct boot_entry *ret, Error **errp)
{
    return boot_is_elf(b) ? boot_pvh_load(b, ret, errp) : boot_linux_load(b, ret, errp);
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type)
{
    return (struct kvm_segment){
        .limit = 0xffffffff, .selector = selector, .type = type, .present = 1, .s = 1, .db = 1, .g = 1};
}

void boot_apply(const struct boot_entry *e, struct vcpu_state *s)
{
    struct kvm_segment data = flat_segment(SELECTOR_DATA, 3);

    s->regs = (struct kvm_regs){.rflags = 2, .rip = e->rip};
    s->sregs.ds = s->sregs.es = s->sregs.fs = s->sregs.gs = s->sregs.ss = data;
    s->sregs.cs = flat_segment(SELECTOR_CODE, 11);
    s->sregs.tr = (struct kvm_segment){.limit = 0x67, .selector = SELECTOR_TASK, .type = 11, .present = 1};
    s->sregs.ldt = (struct kvm_segment){.unusable = 1};
    s->sregs.cr0 = CR0_PE | CR0_ET;
    s->sregs.cr4 = 0;
    if (!e->long_mode) {
        s->regs.rbx = e->argument;
        return;
    }
    s->regs.rsi = e->argument;
    s->sregs.cs.l = 1;
    s->sregs.cs.db = 0;
    s->sregs.gdt.base = BOOT_GDT;
    s->sregs.gdt.limit = SELECTOR_TASK + 15;
    s->sregs.cr3 = BOOT_PAGE_TABLES;
    s->sregs.cr4 = CR4_PAE;
    s->sregs.efer = EFER_LME | EFER_LMA;
    s->sregs.cr0 |= CR0_NE | CR0_PG;
}
