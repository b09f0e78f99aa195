/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tables as an operating system would find them: from the RSDP on, each with its checksum. */
#include "machine/acpi.h"
#include "base/endian.h"
#include "device/devices.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t s = 0;

    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}

/* The table at a guest physical address, checked. */
static const uint8_t *table(const uint8_t *buf, size_t used, uint64_t address, const char *signature)
{
    const uint8_t *t = buf + (address - ACPI_BASE);

    assert_in_range(address, ACPI_BASE, ACPI_BASE + used - 36);
    assert_memory_equal(t, signature, 4);
    assert_in_range(le32_get(t + 4), 36, used - (address - ACPI_BASE));
    assert_int_equal(sum(t, le32_get(t + 4)), 0);
    return t;
}

static void count_madt(const uint8_t *t, unsigned cpus)
{
    unsigned seen = 0, ioapics = 0, overrides = 0;

    for (uint32_t at = 44; at < le32_get(t + 4); at += t[at + 1]) {
        assert_in_range(t[at + 1], 6, 12);
        switch (t[at]) {
        case 0:
            assert_int_equal(t[at + 3], seen);
            assert_int_equal(le32_get(t + at + 4), 1);
            seen++;
            break;
        case 1:
            ioapics++;
            break;
        case 2:
            assert_int_equal(t[at + 3], PM_SCI_GSI);
            assert_int_equal(le32_get(t + at + 4), PM_SCI_GSI);
            overrides++;
            break;
        default:
            break;
        }
    }
    assert_int_equal(seen, cpus);
    assert_int_equal(ioapics, 1);
    assert_int_equal(overrides, 1);
}

static void check_tables(unsigned cpus)
{
    uint8_t *buf = calloc(1, ACPI_SIZE);
    size_t used = acpi_build(buf, cpus);
    const uint8_t *xsdt, *fadt;

    assert_in_range(used, 500, ACPI_SIZE);
    assert_memory_equal(buf, "RSD PTR ", 8);
    assert_int_equal(sum(buf, 20), 0);
    assert_int_equal(sum(buf, 36), 0);
    xsdt = table(buf, used, le64_get(buf + 24), "XSDT");
    fadt = table(buf, used, le64_get(xsdt + 36), "FACP");
    count_madt(table(buf, used, le64_get(xsdt + 44), "APIC"), cpus);
    table(buf, used, le64_get(fadt + 140), "DSDT");
    assert_int_equal(le32_get(fadt + 40), le64_get(fadt + 140));
    assert_int_equal(le32_get(fadt + 56), PM_PM1A_EVENT);
    assert_int_equal(le64_get(fadt + 148 + 4), PM_PM1A_EVENT);
    assert_int_equal(le64_get(fadt + 116 + 4), 0xcf9);
    free(buf);
}

static void test_tables(void **state)
{
    (void)state;
    check_tables(1);
    check_tables(2);
    check_tables(64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tables)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
