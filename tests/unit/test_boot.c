/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kernel files, good ones and hostile ones. */
#include "machine/boot.h"
#include "base/endian.h"

#include <elf.h>
#include <asm/bootparam.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MIB  (UINT64_C(1) << 20)
#define SIZE 8192u

static uint8_t kernel[SIZE];
static const uint8_t initrd[] = "the initrd";
static GuestMemory *memory;

static struct boot boot_of(size_t size)
{
    return (struct boot){.memory = memory,
                         .kernel = kernel,
                         .kernel_size = size,
                         .initrd = initrd,
                         .initrd_size = sizeof(initrd),
                         .cmdline = "console=ttyS0",
                         .rsdp = 0xe0000};
}

static bool loads(size_t size, struct boot_entry *entry)
{
    struct boot b = boot_of(size);
    Error *err = NULL;
    bool ok = boot_load(&b, entry, &err);

    assert_true(ok == !err);
    error_free(err);
    return ok;
}

static bool refused(size_t size)
{
    struct boot_entry entry;

    return !loads(size, &entry);
}

/* One segment at 2 MiB, and its note. */
static void make_elf(void)
{
    Elf64_Ehdr h = {.e_ident = ELFMAG, .e_phoff = 64, .e_phnum = 2, .e_phentsize = sizeof(Elf64_Phdr)};
    Elf64_Phdr p[2] = {
        {.p_type = PT_LOAD, .p_offset = 4096, .p_filesz = 16, .p_paddr = 2 * MIB, .p_memsz = 8192},
        {.p_type = PT_NOTE, .p_offset = 512, .p_filesz = 20, .p_align = 4},
    };

    memset(kernel, 0, sizeof(kernel));
    h.e_ident[EI_CLASS] = ELFCLASS64;
    h.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(kernel, &h, sizeof(h));
    memcpy(kernel + 64, p, sizeof(p));
    le32_put(kernel + 512, 4);
    le32_put(kernel + 516, 4);
    le32_put(kernel + 520, 18);
    memcpy(kernel + 524, "Xen", 4);
    le32_put(kernel + 528, 2 * MIB + 8);
    memcpy(kernel + 4096, "0123456789abcdef", 16);
}

static Elf64_Phdr *program_header(int i)
{
    return (Elf64_Phdr *)(kernel + 64) + i;
}

static void test_pvh(void **state)
{
    struct boot_entry entry;
    uint8_t *info, *module;

    (void)state;
    make_elf();
    memset(guest_memory_map(memory, 2 * MIB, 8192), 0xff, 8192);
    assert_true(loads(SIZE, &entry));
    assert_false(entry.long_mode);
    assert_int_equal(entry.rip, 2 * MIB + 8);
    assert_memory_equal(guest_memory_map(memory, 2 * MIB, 16), "0123456789abcdef", 16);
    assert_int_equal(*(uint8_t *)guest_memory_map(memory, 2 * MIB + 16, 1), 0); /* what is not in the file */
    info = guest_memory_map(memory, entry.argument, 56);
    assert_int_equal(le32_get(info), 0x336ec578);
    assert_string_equal(guest_memory_map(memory, le64_get(info + 24), 64), "console=ttyS0");
    assert_int_equal(le64_get(info + 32), 0xe0000);
    assert_int_equal(le32_get(info + 48), 3);
    assert_int_equal(le32_get(info + 12), 1);
    module = guest_memory_map(memory, le64_get(info + 16), 32);
    assert_memory_equal(guest_memory_map(memory, le64_get(module), sizeof(initrd)), initrd, sizeof(initrd));
}

static void test_hostile_elf(void **state)
{
    (void)state;
    for (size_t size = 0; size < 4096 + 16; size += size < 600 ? 1 : 64) {
        make_elf();
        assert_true(refused(size));
    }
    make_elf();
    program_header(0)->p_paddr = 4096; /* below what kernels may use */
    assert_true(refused(SIZE));
    make_elf();
    program_header(0)->p_paddr = UINT64_MAX - 100;
    assert_true(refused(SIZE));
    make_elf();
    program_header(0)->p_memsz = UINT64_MAX;
    assert_true(refused(SIZE));
    make_elf();
    program_header(0)->p_filesz = 8193;
    assert_true(refused(SIZE));
    make_elf();
    program_header(0)->p_offset = UINT64_MAX - 4;
    assert_true(refused(SIZE));
    make_elf();
    program_header(0)->p_memsz = 32 * MIB; /* reaches over the end, and the initrd */
    assert_true(refused(SIZE));
    make_elf();
    le32_put(kernel + 512, 0xfffffff0); /* the note's name */
    assert_true(refused(SIZE));
    make_elf();
    le32_put(kernel + 516, 0xfffffffe); /* its size */
    assert_true(refused(SIZE));
    make_elf();
    le32_put(kernel + 528, 64); /* an entry outside */
    assert_true(refused(SIZE));
    make_elf();
    ((Elf64_Ehdr *)kernel)->e_phentsize = 8;
    assert_true(refused(SIZE));
    make_elf();
    ((Elf64_Ehdr *)kernel)->e_phoff = UINT64_MAX - 8;
    assert_true(refused(SIZE));
}

static struct setup_header *header(void)
{
    return (struct setup_header *)(kernel + 0x1f1);
}

static void make_linux(void)
{
    memset(kernel, 0, sizeof(kernel));
    *header() = (struct setup_header){
        .setup_sects = 1,
        .boot_flag = 0xaa55,
        .jump = 0x6aeb,
        .header = 0x53726448,
        .version = 0x20f,
        .loadflags = LOADED_HIGH,
        .xloadflags = XLF_KERNEL_64,
        .initrd_addr_max = 0x7fffffff,
        .pref_address = 4 * MIB,
        .init_size = 2 * MIB,
        .cmdline_size = 100,
    };
    memcpy(kernel + 1024, "code", 4);
}

static void test_linux(void **state)
{
    struct boot_entry entry;
    struct boot_params *zp;

    (void)state;
    make_linux();
    assert_true(loads(SIZE, &entry));
    assert_true(entry.long_mode);
    assert_int_equal(entry.rip, 4 * MIB + 0x200);
    assert_memory_equal(guest_memory_map(memory, 4 * MIB, 4), "code", 4);
    zp = guest_memory_map(memory, entry.argument, sizeof(*zp));
    assert_int_equal(zp->hdr.header, 0x53726448);
    assert_int_equal(zp->hdr.type_of_loader, 0xff);
    assert_int_equal(zp->e820_entries, 3);
    assert_int_equal(zp->acpi_rsdp_addr, 0xe0000);
    assert_string_equal(guest_memory_map(memory, zp->hdr.cmd_line_ptr, 64), "console=ttyS0");
    assert_memory_equal(guest_memory_map(memory, zp->hdr.ramdisk_image, sizeof(initrd)), initrd,
                        sizeof(initrd));
}

static void test_hostile_linux(void **state)
{
    (void)state;
    for (size_t size = 0; size <= 1024 + 0x200; size++) {
        make_linux();
        assert_true(refused(size));
    }
    make_linux();
    header()->pref_address = 0;
    assert_true(refused(SIZE));
    make_linux();
    header()->pref_address = UINT64_MAX - 4096;
    assert_true(refused(SIZE));
    make_linux();
    header()->init_size = UINT32_MAX;
    assert_true(refused(SIZE));
    make_linux();
    header()->setup_sects = 255;
    assert_true(refused(SIZE));
    make_linux();
    header()->xloadflags = 0;
    assert_true(refused(SIZE));
    make_linux();
    header()->version = 0x20b;
    assert_true(refused(SIZE));
    make_linux();
    header()->cmdline_size = 5; /* ours is longer */
    assert_true(refused(SIZE));
    make_linux();
    header()->initrd_addr_max = 5 * (uint32_t)MIB; /* inside the kernel */
    assert_true(refused(SIZE));
    make_linux();
    header()->jump = 0xff00; /* the longest header that the file may claim */
    assert_false(refused(SIZE));
}

static int setup(void **state)
{
    (void)state;
    memory = guest_memory_new(16 * MIB, NULL);
    return !memory;
}

static int teardown(void **state)
{
    (void)state;
    guest_memory_free(memory);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pvh),
        cmocka_unit_test(test_hostile_elf),
        cmocka_unit_test(test_linux),
        cmocka_unit_test(test_hostile_linux),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
