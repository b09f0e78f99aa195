/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bitmap.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/fault.h"
#include "base/histogram.h"
#include "base/log.h"
#include "base/random.h"
#include "base/uuid.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void test_endian(void **state)
{
    uint8_t b[12] = {0};

    (void)state;
    le16_put(b + 1, 0x0102);
    assert_int_equal(b[1], 2);
    assert_int_equal(le16_get(b + 1), 0x0102);
    le32_put(b + 3, 0x01020304);
    assert_int_equal(b[3], 4);
    assert_int_equal(le32_get(b + 3), 0x01020304);
    le64_put(b + 3, UINT64_C(0x0102030405060708));
    assert_int_equal(b[3], 8);
    assert_true(le64_get(b + 3) == UINT64_C(0x0102030405060708));
}

static void test_bitmap(void **state)
{
    uint64_t map[4] = {0}, other[4] = {0};

    (void)state;
    assert_int_equal(bitmap_words(0), 0);
    assert_int_equal(bitmap_words(64), 1);
    assert_int_equal(bitmap_words(65), 2);
    assert_int_equal(bitmap_find_next(map, 200, 0), 200);
    bitmap_set(map, 0);
    bitmap_set(map, 63);
    bitmap_set(map, 199);
    assert_int_equal(bitmap_find_next(map, 200, 0), 0);
    assert_int_equal(bitmap_find_next(map, 200, 1), 63);
    assert_int_equal(bitmap_find_next(map, 200, 64), 199);
    assert_int_equal(bitmap_find_next(map, 199, 64), 199); /* none below 199 */
    assert_int_equal(bitmap_find_next(map, 200, 200), 200);
    bitmap_clear(map, 63);
    assert_false(bitmap_test(map, 63));
    assert_false(bitmap_set_atomic(other, 100));
    assert_true(bitmap_set_atomic(other, 100));
    assert_true(bitmap_test_atomic(other, 100));
    bitmap_or(map, other, 200);
    assert_int_equal(bitmap_popcount(map, 200), 3);
    assert_true(bitmap_clear_atomic(other, 100));
    assert_false(bitmap_clear_atomic(other, 100));
    bitmap_set_range(other, 3, 150);
    assert_int_equal(bitmap_popcount(other, 200), 150);
    assert_false(bitmap_test(other, 2));
    assert_true(bitmap_test(other, 152));
    assert_false(bitmap_test(other, 153));
    assert_true(bitmap_take_word_atomic(&other[1]) == UINT64_MAX);
    assert_true(bitmap_take_word_atomic(&other[1]) == 0);
}

static void test_crc32c_known(void **state)
{
    uint8_t zeros[32] = {0}, ones[32];

    (void)state;
    memset(ones, 0xff, sizeof(ones));
    assert_int_equal(crc32c(0, "", 0), 0);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c(0, zeros, 32), 0x8a9136aau); /* RFC 3720 B.4 */
    assert_int_equal(crc32c(0, ones, 32), 0x62a8ab43u);
}

/* Every path (three long lanes, three short ones, words, bytes) against the portable one, at odd addresses,
 * whole and in pieces. */
static void test_crc32c_paths(void **state)
{
    static const size_t sizes[] = {1, 7, 8, 383, 384, 385, 3071, 3072, 3073, 3500, 4096, 10000};
    uint8_t *buf = malloc(10016);

    (void)state;
    random_bytes(buf, 10016);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t at = 0; at < 9; at += 4) {
            uint32_t whole = crc32c(0, buf + at, sizes[i]);
            size_t cut = sizes[i] / 3;

            assert_int_equal(whole, crc32c_portable(0, buf + at, sizes[i]));
            assert_int_equal(whole, crc32c(crc32c(0, buf + at, cut), buf + at + cut, sizes[i] - cut));
        }
    }
    free(buf);
}

static int heard[2];
static char last_text[2000];

static void sink(enum log_level level, const char *text)
{
    heard[level]++;
    strncpy(last_text, text, sizeof(last_text) - 1);
}

static void test_log(void **state)
{
    char long_text[3000];

    (void)state;
    log_info("nobody hears %d", 1);
    log_set_sink(sink);
    log_info("one %d", 1);
    assert_string_equal(last_text, "one 1");
    memset(long_text, 'x', sizeof(long_text));
    long_text[sizeof(long_text) - 1] = 0;
    log_warn("%s", long_text);
    assert_int_equal(strlen(last_text), 1023);
    log_set_sink(NULL);
    log_warn("gone");
    assert_int_equal(heard[LOG_LEVEL_INFO], 1);
    assert_int_equal(heard[LOG_LEVEL_WARN], 1);
}

static void test_fault(void **state)
{
    (void)state;
    assert_false(fault_point("a"));
    fault_arm("a", 2);
    fault_arm("b", 0);
    assert_false(fault_fired("a"));
    assert_false(fault_point("a"));
    assert_true(fault_point("a"));
    assert_false(fault_point("a"));
    assert_true(fault_fired("a"));
    assert_false(fault_fired("b"));
    assert_true(fault_point("b"));
    assert_true(fault_point("b"));
    assert_false(fault_point("c"));
    fault_arm("a", 1);
    assert_false(fault_fired("a"));
    assert_true(fault_point("a"));
    fault_disarm_all();
    assert_false(fault_point("b"));
}

static void all_zero(void *buf, size_t n)
{
    memset(buf, 0, n);
}

static void test_uuid(void **state)
{
    char a[UUID_TEXT_SIZE], b[UUID_TEXT_SIZE];

    (void)state;
    uuid_random(a);
    uuid_random(b);
    assert_true(uuid_valid(a));
    assert_string_not_equal(a, b);
    assert_false(uuid_valid(""));
    assert_false(uuid_valid("00000000-0000-4000-8000-00000000000"));
    assert_false(uuid_valid("00000000-0000-4000-8000-0000000000000"));
    assert_false(uuid_valid("00000000-0000-4000-8000-00000000000G"));
    assert_false(uuid_valid("00000000x0000-4000-8000-000000000000"));
    random_set_source(all_zero);
    uuid_random(a);
    random_set_source(NULL);
    assert_string_equal(a, "00000000-0000-4000-8000-000000000000");
}

static void test_histogram(void **state)
{
    struct histogram h = {0};
    struct histogram_summary s;

    (void)state;
    histogram_summarize(&h, &s);
    assert_int_equal(s.p50, 0);
    histogram_add(&h, 7);
    histogram_summarize(&h, &s);
    assert_int_equal(s.p50, 7);
    assert_int_equal(s.p99, 7);
    for (uint64_t i = 0; i < 1024; i++) /* the 7 has fallen out */
        histogram_add(&h, 1024 - i);
    histogram_summarize(&h, &s);
    assert_int_equal(s.p50, 512);
    assert_int_equal(s.p99, 1014);
    assert_int_equal(s.max, 1024);
    assert_int_equal(s.mean, 512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endian),       cmocka_unit_test(test_bitmap),
        cmocka_unit_test(test_crc32c_known), cmocka_unit_test(test_crc32c_paths),
        cmocka_unit_test(test_log),          cmocka_unit_test(test_fault),
        cmocka_unit_test(test_uuid),         cmocka_unit_test(test_histogram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
