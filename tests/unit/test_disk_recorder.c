/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tools for disks that fail: the fault filter, and what the recorder says a power cut can leave.
 */
#include "../lib/disk_recorder.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "base/fault.h"
#include "block/fault_filter.h"

#define SIZE (64u * 512)

/* --- fault filter --- */

static bool write_at(Block *b, uint64_t offset, size_t n, char c)
{
    char buf[8192];
    Error *err = NULL;

    memset(buf, c, n);
    if (block_write(b, offset, buf, n, &err))
        return true;
    errno = error_get_errno(err);
    error_free(err);
    return false;
}

static void test_fail_the_nth(void **state)
{
    struct memory_block *m = memory_block_new("root", SIZE);
    Block *b = fault_filter_new(&m->block, NULL);

    (void)state;
    fault_filter_fail(b, BLOCK_WRITE, 2, EIO);
    assert_true(write_at(b, 0, 512, 'a'));
    assert_false(write_at(b, 512, 512, 'b'));
    assert_int_equal(errno, EIO);
    assert_int_equal(fault_filter_fired(b), 1);
    assert_int_equal(m->bytes[512], 0);
    assert_true(write_at(b, 512, 512, 'b')); /* once */
    fault_filter_fail(b, BLOCK_FLUSH, 0, ENOSPC);
    assert_int_equal(fault_filter_fired(b), 0);
    assert_false(block_flush(b, NULL));
    assert_false(block_flush(b, NULL));
    assert_true(write_at(b, 512, 512, 'c'));
    fault_filter_clear(b);
    assert_true(block_flush(b, NULL));
    assert_int_equal(fault_filter_count(b, BLOCK_WRITE), 4);
    assert_int_equal(fault_filter_count(b, BLOCK_FLUSH), 3);
    assert_int_equal(m->seen[BLOCK_FLUSH], 1);
    block_close(b);
}

static void test_limit_and_half(void **state)
{
    struct memory_block *m = memory_block_new("root", SIZE);
    Block *b = fault_filter_new(&m->block, NULL);

    (void)state;
    fault_filter_limit(b, 4096);
    assert_true(write_at(b, 0, 2048, 'a'));
    assert_true(block_zero(b, 8192, 1024, false, NULL));
    assert_false(write_at(b, 4096, 2048, 'b'));
    assert_int_equal(errno, ENOSPC);
    assert_true(write_at(b, 4096, 1024, 'b')); /* what fits still goes */
    assert_false(block_zero(b, 0, 1, true, NULL));
    assert_int_equal(m->bytes[0], 'a');
    fault_filter_fail_half(b, true);
    assert_false(write_at(b, 8192, 2048, 'c'));
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(m->bytes[8192 + 1023], 'c');
    assert_int_equal(m->bytes[8192 + 1024], 0);
    block_close(b);
}

static void test_fault_points(void **state)
{
    struct memory_block *m = memory_block_new("root", SIZE);
    Block *b = fault_filter_new(&m->block, NULL);

    (void)state;
    fault_arm("block.write", 2);
    assert_true(write_at(b, 0, 512, 'a'));
    assert_false(write_at(b, 0, 512, 'b'));
    assert_true(fault_fired("block.write"));
    assert_true(write_at(b, 0, 512, 'b'));
    fault_disarm_all();
    block_close(b);
}

/* --- recorder --- */

static uint8_t sector_after(DiskRecorder *rec, unsigned disk, size_t moment, uint64_t seed, unsigned sector)
{
    struct memory_block *m = disk_recorder_cut(rec, disk, moment, seed);
    uint8_t v = m->bytes[512 * sector];

    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(m->bytes[512 * sector + i], v);
    block_close(&m->block);
    return v;
}

/* write a, flush, write b: a is there from the flush's end on, b never for sure. */
static void test_flush(void **state)
{
    DiskRecorder *rec = disk_recorder_new();
    Block *b = disk_recorder_add(rec, &memory_block_new("root", SIZE)->block);

    (void)state;
    assert_true(write_at(b, 0, 512, 'a'));
    assert_true(block_flush(b, NULL));
    disk_recorder_mark(rec, 7);
    assert_true(write_at(b, 0, 512, 'b'));
    block_close(b);
    assert_int_equal(disk_recorder_moments(rec), 7);
    for (size_t moment = 0; moment <= 7; moment++) {
        /* With nothing but what is durable, and with everything that came. */
        assert_int_equal(sector_after(rec, 0, moment, 0, 0), moment < 4 ? 0 : 'a');
        assert_int_equal(sector_after(rec, 0, moment, 1, 0), moment < 1 ? 0 : moment < 6 ? 'a' : 'b');
        assert_int_equal(disk_recorder_promised(rec, moment), moment < 5 ? 0 : 7);
    }
    assert_string_equal(disk_recorder_describe(rec, 2),
                        "moment 2 of 7, after: root: write of 512 bytes at 0 completed");
    assert_string_equal(disk_recorder_describe(rec, 3),
                        "moment 3 of 7, after: root: flush of 0 bytes at 0 submitted");
    assert_string_equal(disk_recorder_describe(rec, 5), "moment 5 of 7, after: a mark");
    disk_recorder_free(rec);
}

static void ignore(struct block_request *r)
{
    (void)r;
}

/* A write that had not completed when the flush was submitted is not covered by it; nor is one after a flush that
 * failed; nor by another disk's. */
static void test_not_covered(void **state)
{
    DiskRecorder *rec = disk_recorder_new();
    struct memory_block *m = memory_block_new("root", SIZE);
    Block *b = disk_recorder_add(rec, &m->block),
          *other = disk_recorder_add(rec, &memory_block_new("log", SIZE)->block);
    char data[512];
    struct block_request w = {.op = BLOCK_WRITE, .size = 512, .data = data, .done = ignore};
    struct block_request f = {.op = BLOCK_FLUSH, .done = ignore};

    (void)state;
    memset(data, 'a', sizeof(data));
    m->held = true;
    block_submit(b, &w);
    block_submit(b, &f);
    memory_block_finish(m, 0, 0);
    memory_block_finish(m, 0, 0);
    assert_int_equal(sector_after(rec, 0, disk_recorder_moments(rec), 0, 0), 0);
    block_submit(b, &f);
    memory_block_finish(m, 0, EIO);
    assert_true(block_flush(other, NULL));
    assert_int_equal(sector_after(rec, 0, disk_recorder_moments(rec), 0, 0), 0);
    assert_int_equal(sector_after(rec, 0, disk_recorder_moments(rec), 1, 0), 'a');
    block_submit(b, &f);
    memory_block_finish(m, 0, 0);
    assert_int_equal(sector_after(rec, 0, disk_recorder_moments(rec), 0, 0), 'a');
    block_close(b);
    block_close(other);
    disk_recorder_free(rec);
}

/* Over many seeds each thing that can happen does: nothing, all, the later without the earlier, a torn one, half a
 * sector. */
static void test_luck(void **state)
{
    DiskRecorder *rec = disk_recorder_new();
    struct memory_block *base = memory_block_new("root", SIZE);
    Block *b;
    unsigned torn = 0, only_second = 0, only_first = 0, overtaken = 0, halved = 0;

    (void)state;
    memset(base->bytes, 'o', SIZE);
    b = disk_recorder_add(rec, &base->block);
    assert_true(write_at(b, 0, 2048, '1'));
    assert_true(write_at(b, 4096, 512, '2'));
    assert_true(write_at(b, 8192, 512, 'x'));
    assert_true(write_at(b, 8192, 512, 'y'));
    assert_true(block_zero(b, 16384, 100, true, NULL));
    block_close(b);
    for (uint64_t seed = 2; seed < 300; seed++) {
        struct memory_block *m = disk_recorder_cut(rec, 0, disk_recorder_moments(rec), seed);
        bool first = m->bytes[0] == '1' && m->bytes[2047] == '1', second = m->bytes[4096] == '2';

        torn += m->bytes[0] != m->bytes[2047];
        only_first += first && !second;
        only_second += second && m->bytes[0] == 'o' && m->bytes[2047] == 'o';
        overtaken += m->bytes[8192] == 'x';
        halved += m->bytes[512] != m->bytes[1023];
        assert_true(m->bytes[512] == '1' || m->bytes[1023] == 'o'); /* its first octets, if not all */
        assert_true(m->bytes[16384] == 0 || m->bytes[16384] == 'o');
        assert_int_equal(m->bytes[16384 + 100], 'o');
        block_close(&m->block);
    }
    assert_true(torn && only_first && only_second && overtaken && halved);
    disk_recorder_free(rec);
}

/* The same cut twice is the same image. */
static void test_repeatable(void **state)
{
    DiskRecorder *rec = disk_recorder_new();
    Block *b = disk_recorder_add(rec, &memory_block_new("root", SIZE)->block);

    (void)state;
    for (unsigned i = 0; i < 40; i++)
        assert_true(write_at(b, 512 * i, 1024, 'a' + i % 26));
    block_close(b);
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct memory_block *one = disk_recorder_cut(rec, 0, 41, seed),
                            *two = disk_recorder_cut(rec, 0, 41, seed);

        assert_memory_equal(one->bytes, two->bytes, SIZE);
        block_close(&one->block);
        block_close(&two->block);
    }
    disk_recorder_free(rec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail_the_nth), cmocka_unit_test(test_limit_and_half),
        cmocka_unit_test(test_fault_points), cmocka_unit_test(test_flush),
        cmocka_unit_test(test_not_covered),  cmocka_unit_test(test_luck),
        cmocka_unit_test(test_repeatable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
