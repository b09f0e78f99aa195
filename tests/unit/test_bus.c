/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which device an access reaches, and which regions are refused. */
#include "machine/bus.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

struct seen {
    uint64_t offset, value;
    unsigned size, count;
};

static uint64_t seen_read(void *opaque, uint64_t offset, unsigned size)
{
    struct seen *s = opaque;

    s->count++;
    s->offset = offset;
    s->size = size;
    return 0x1122334455667788;
}

static void seen_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct seen *s = opaque;

    s->count++;
    *s = (struct seen){.offset = offset, .value = value, .size = size, .count = s->count};
}

static const struct io_ops seen_ops = {.read = seen_read, .write = seen_write};
static const struct io_ops deaf_ops = {.read = NULL};

static void refused(struct bus *b, enum io_space space, uint64_t base, uint64_t size)
{
    Error *err = NULL;

    assert_false(bus_map(b, space, base, size, &seen_ops, NULL, &err));
    assert_non_null(err);
    error_free(err);
}

static void test_dispatch(void **state)
{
    struct bus b = {0};
    struct seen low = {0}, high = {0};

    (void)state;
    assert_true(bus_map(&b, IO_PORT, 0x3f8, 8, &seen_ops, &high, NULL));
    assert_true(bus_map(&b, IO_PORT, 0x70, 2, &seen_ops, &low, NULL));
    bus_write(&b, IO_PORT, 0x3f9, 0x42, 1);
    assert_int_equal(high.offset, 1);
    assert_int_equal(high.value, 0x42);
    assert_int_equal(bus_read(&b, IO_PORT, 0x70, 2), 0x1122334455667788);
    assert_int_equal(low.size, 2);
    assert_int_equal(low.count, 1);
    assert_int_equal(bus_read(&b, IO_MEMORY, 0x70, 2), UINT64_MAX);
}

static void test_edges(void **state)
{
    struct bus b = {0};
    struct seen s = {0};

    (void)state;
    assert_true(bus_map(&b, IO_MEMORY, 0xc0000000, 0x1000, &seen_ops, &s, NULL));
    assert_int_equal(bus_read(&b, IO_MEMORY, 0xbfffffff, 1), UINT64_MAX);
    assert_int_equal(bus_read(&b, IO_MEMORY, 0xc0000ffd, 4), UINT64_MAX); /* begins inside, ends outside */
    assert_int_equal(bus_read(&b, IO_MEMORY, 0xc0001000, 1), UINT64_MAX);
    assert_int_equal(s.count, 0);
    bus_write(&b, IO_MEMORY, 0xc0000ffc, 7, 4);
    assert_int_equal(s.offset, 0xffc);
}

static void test_overlaps(void **state)
{
    struct bus b = {0};

    (void)state;
    assert_true(bus_map(&b, IO_MEMORY, 0x1000, 0x1000, &seen_ops, NULL, NULL));
    assert_true(bus_map(&b, IO_MEMORY, 0x4000, 0x1000, NULL, NULL, NULL));
    refused(&b, IO_MEMORY, 0x1000, 0x1000);
    refused(&b, IO_MEMORY, 0x1fff, 1);
    refused(&b, IO_MEMORY, 0, 0x1001);
    refused(&b, IO_MEMORY, 0x3000, 0x1001);
    refused(&b, IO_MEMORY, 0, UINT64_MAX);
    refused(&b, IO_MEMORY, 0x10000, 0);
    refused(&b, IO_MEMORY, UINT64_MAX, 2);
    refused(&b, IO_PORT, 0xffff, 2);
    refused(&b, IO_PORT, 0x10000, 1);
    assert_true(bus_map(&b, IO_MEMORY, 0x2000, 0x2000, &seen_ops, NULL, NULL));
    assert_true(bus_map(&b, IO_MEMORY, UINT64_MAX, 1, &seen_ops, NULL, NULL));
    assert_int_equal(bus_read(&b, IO_MEMORY, 0x4000, 4), UINT64_MAX); /* taken, served by nobody */
}

static void test_unmap(void **state)
{
    struct bus b = {0};
    struct seen s = {0};

    (void)state;
    for (unsigned i = 0; i < BUS_REGIONS_MAX; i++)
        assert_true(bus_map(&b, IO_PORT, 16 * i, 16, i % 2 ? &seen_ops : &deaf_ops, &s, NULL));
    refused(&b, IO_PORT, 16 * BUS_REGIONS_MAX, 1);
    bus_unmap(&b, IO_PORT, 17); /* no region begins there */
    assert_int_equal(b.spaces[IO_PORT].count, BUS_REGIONS_MAX);
    bus_unmap(&b, IO_PORT, 16);
    assert_int_equal(bus_read(&b, IO_PORT, 16, 1), UINT64_MAX);
    assert_int_equal(bus_read(&b, IO_PORT, 32, 1), UINT64_MAX);
    bus_write(&b, IO_PORT, 32, 1, 1);
    assert_int_equal(s.count, 0);
    assert_int_equal(bus_read(&b, IO_PORT, 48, 1), 0x1122334455667788);
    assert_true(bus_map(&b, IO_PORT, 16, 1, &seen_ops, &s, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dispatch),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_overlaps),
        cmocka_unit_test(test_unmap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
