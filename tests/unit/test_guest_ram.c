/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bitmap.h"
#include "guest/memory.h"
#include "guest/page_codec.h"
#include "guest/page_scan.h"
#include "guest/staging.h"
#include "stream/vmstream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static void test_addresses(void **state)
{
    GuestMemory *m = guest_memory_new(4 * GIB, NULL);

    (void)state;
    assert_non_null(m);
    assert_int_equal(m->block_count, 2);
    assert_ptr_equal(guest_memory_map(m, 0, 1), m->blocks[0].host);
    assert_non_null(guest_memory_map(m, 3 * GIB - 1, 1));
    assert_null(guest_memory_map(m, 3 * GIB - 1, 2));
    assert_null(guest_memory_map(m, 3 * GIB, 1));
    assert_ptr_equal(guest_memory_map(m, 4 * GIB, 1), m->blocks[1].host);
    assert_non_null(guest_memory_map(m, 5 * GIB - 1, 1));
    assert_null(guest_memory_map(m, 5 * GIB, 1));
    assert_null(guest_memory_map(m, 4 * GIB, GIB + 1));
    assert_null(guest_memory_map(m, 0, 0));
    assert_null(guest_memory_map(m, UINT64_MAX, 2));
    assert_null(guest_memory_map(m, 1, UINT64_MAX));
    /* Page numbers run on across the hole. */
    assert_int_equal(guest_memory_page_gpa(m, 3 * GIB / 4096), 4 * GIB);
    assert_ptr_equal(guest_memory_page_host(m, 3 * GIB / 4096), m->blocks[1].host);
    guest_memory_free(m);
    assert_null(guest_memory_new(4097, NULL));
    assert_null(guest_memory_new(0, NULL));
}

static void test_dirty_and_populated(void **state)
{
    GuestMemory *m = guest_memory_new(4 * GIB, NULL);
    uint64_t *map = calloc(1, bitmap_bytes(m->page_count));

    (void)state;
    assert_true(guest_memory_write(m, 8191, "ab", 2));
    assert_true(guest_memory_write(m, 4 * GIB, "c", 1));
    assert_false(guest_memory_write(m, 3 * GIB - 1, "ab", 2));
    guest_memory_mark_dirty(m, UINT64_MAX - 1, 5); /* outside: nothing */
    guest_memory_take_dirty(m, map);
    assert_int_equal(bitmap_popcount(map, m->page_count), 3);
    assert_true(bitmap_test(map, 1) && bitmap_test(map, 2) && bitmap_test(map, 3 * GIB / 4096));
    memset(map, 0, bitmap_bytes(m->page_count));
    guest_memory_take_dirty(m, map);
    assert_int_equal(bitmap_popcount(map, m->page_count), 0);
    guest_memory_populated(m, map);
    assert_int_equal(bitmap_popcount(map, m->page_count), 3);
    assert_true(guest_memory_clear(m, NULL));
    assert_int_equal(*(char *)guest_memory_map(m, 8191, 1), 0);
    free(map);
    guest_memory_free(m);
}

static void test_hash(void **state)
{
    GuestMemory *a = guest_memory_new(8 * MIB, NULL), *b = guest_memory_new(8 * MIB, NULL);
    uint64_t empty = guest_memory_hash(a);

    (void)state;
    /* Zeroes that were written are no different from a hole. */
    memset(guest_memory_map(b, 0, 65536), 0, 65536);
    assert_true(guest_memory_hash(b) == empty);
    for (int i = 0; i < 100; i++) {
        guest_memory_write(a, i * 70001, &i, sizeof(i));
        guest_memory_write(b, i * 70001, &i, sizeof(i));
    }
    assert_true(guest_memory_hash(a) == guest_memory_hash(b));
    assert_true(guest_memory_hash(a) != empty);
    *(uint8_t *)guest_memory_map(b, 5 * MIB + 77, 1) ^= 1;
    assert_true(guest_memory_hash(a) != guest_memory_hash(b));
    /* The same pages at each other's place. */
    *(uint8_t *)guest_memory_map(b, 5 * MIB + 77, 1) ^= 1;
    uint8_t *x = guest_memory_map(b, 0, 4096), *y = guest_memory_page_host(b, 5 * 70001 / 4096), t[4096];
    memcpy(t, x, 4096);
    memcpy(x, y, 4096);
    memcpy(y, t, 4096);
    assert_true(guest_memory_hash(a) != guest_memory_hash(b));
    guest_memory_free(a);
    guest_memory_free(b);
}

static void test_loops(void **state)
{
    static uint8_t a[4096] __attribute__((aligned(4096))), b[4096] __attribute__((aligned(4096)));

    (void)state;
    assert_true(page_is_zero(a));
    for (int i = 0; i < 4096; i += 61) {
        a[i] = 1;
        assert_false(page_is_zero(a));
        assert_true(page_diff(a, b) == UINT64_C(1) << i / 64);
        a[i] = 0;
    }
    for (int i = 0; i < 4096; i++)
        a[i] = rand();
    memcpy(b, a, 4096);
    assert_true(page_diff(a, b) == 0);
}

/* Pages that were touched before, and such that were not; again, and after a clear. */
static void test_place(void **state)
{
    static uint8_t data[GUEST_MEMORY_RUN][GUEST_PAGE_SIZE];
    GuestMemory *m = guest_memory_new(4 * MIB, NULL);
    const void *pages[GUEST_MEMORY_RUN];
    uint64_t exists[1024 / 64] = {0};

    (void)state;
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < GUEST_MEMORY_RUN; i++) {
            memset(data[i], (int)i + 1 + round, GUEST_PAGE_SIZE);
            pages[i] = data[i];
        }
        guest_memory_page_host(m, 705)[9] = 1;
        guest_memory_place(m, 700, pages, GUEST_MEMORY_RUN);
        guest_memory_place(m, 1023, pages + 3, 1);
        for (unsigned i = 0; i < GUEST_MEMORY_RUN; i++)
            assert_memory_equal(guest_memory_page_host(m, 700 + i), data[i], GUEST_PAGE_SIZE);
        assert_memory_equal(guest_memory_page_host(m, 1023), data[3], GUEST_PAGE_SIZE);
        if (round == 1)
            assert_true(guest_memory_clear(m, NULL));
    }
    guest_memory_populated(m, exists);
    assert_int_equal(bitmap_popcount(exists, 1024), GUEST_MEMORY_RUN + 1); /* and nothing around them */
    guest_memory_take_dirty(m, exists);
    assert_int_equal(bitmap_popcount(exists, 1024), GUEST_MEMORY_RUN + 1);
    guest_memory_free(m);
}

/* One page several times in a record, over the borders of frames: the last one counts. */
static void test_same_page_again(void **state)
{
    VMStream *f = perdure_stream_open_memory(1 << 20), *in;
    GuestMemory *m = guest_memory_new(4 * MIB, NULL);
    PageEncoder *e = page_encoder_new(1024, true, true, NULL);
    uint8_t page[GUEST_PAGE_SIZE];
    uint16_t type;
    uint64_t id;

    (void)state;
    perdure_stream_begin(f, 1, 0);
    for (int i = 0; i < 300; i++) {
        memset(page, i, sizeof(page));
        page_encode(e, f, 7 + (uint64_t)i % 3, page); /* in full */
        page[i] ^= 0x80;
        page_encode(e, f, 7 + (uint64_t)i % 3, page); /* as a delta of that */
    }
    perdure_stream_end(f);
    in = vmstream_reopen_memory(f);
    assert_true(perdure_stream_next(in, &type, &id));
    assert_int_equal(page_decode_all(in, m), 600);
    assert_memory_equal(guest_memory_page_host(m, 9), page, sizeof(page));
    perdure_stream_close(in);
    perdure_stream_close(f);
    page_encoder_free(e);
    guest_memory_free(m);
}

static void test_staging(void **state)
{
    Staging *s = staging_new(2, NULL);
    static uint8_t page[4096] __attribute__((aligned(4096)));

    (void)state;
    page[5] = 9;
    assert_true(staging_add(s, 77, page));
    assert_true(staging_add(s, 78, page));
    assert_true(staging_full(s));
    assert_false(staging_add(s, 79, page));
    assert_int_equal(staging_page(s, 1), 78);
    assert_memory_equal(staging_data(s, 1), page, 4096);
    staging_reset(s);
    assert_int_equal(staging_count(s), 0);
    staging_free(s);
    s = staging_new_quick(4096, NULL); /* in use while it is touched */
    for (uint64_t i = 0; i < 4096; i++)
        assert_true(staging_add(s, i, page));
    for (size_t i = 0; i < 4096; i++)
        assert_memory_equal(staging_data(s, i), page, 4096);
    staging_free(s);
    assert_int_equal(staging_default_pages(256 * MIB), 64 * MIB / 4096);
    assert_int_equal(staging_default_pages(GIB), 128 * MIB / 4096);
    assert_int_equal(staging_default_pages(16 * MIB), 16 * MIB / 4096);
}

static void fill(GuestMemory *m, int seed)
{
    for (uint64_t i = 0; i < m->size; i++)
        guest_memory_page_host(m, 0)[i] = (uint8_t)((i * 31 + (uint64_t)seed) >> 5);
}

/* Random changes of every size, sent epoch by epoch: the other side's RAM is always the same. blank: it begins as zero. */
static void codec_follows(bool delta, bool packing, bool blank)
{
    GuestMemory *from = guest_memory_new(MIB, NULL), *to = guest_memory_new(MIB, NULL);
    PageEncoder *e = page_encoder_new(from->page_count, delta, blank, NULL);
    VMStream *f = perdure_stream_open_memory(0);
    uint64_t kinds[PAGE_KINDS] = {0}, id;
    uint16_t type;

    if (!blank) {
        fill(from, 7);
        fill(to, 7);
    }
    page_encoder_set_packing(e, packing);
    for (int epoch = 0; epoch < 200; epoch++) {
        uint64_t page = rand() % from->page_count;
        uint8_t *p = guest_memory_page_host(from, page);
        size_t size;

        switch (rand() % 4) {
        case 0:
            memset(p, 0, 4096);
            break;
        case 1:
            memset(p, rand(), 4096);
            break;
        case 2:
            p[rand() % 4096]++;
            break;
        case 3:
            for (int i = 0; i < 4096; i++)
                p[i] = (uint8_t)(rand() >> 7);
        }
        perdure_stream_rewind(f);
        perdure_stream_begin(f, 1, epoch);
        kinds[page_encode(e, f, page, p)]++;
        perdure_stream_end(f);
        const void *data = perdure_stream_memory(f, &size);
        for (int pass = 0; pass < 2; pass++) {
            VMStream *in = perdure_stream_open_buffer(data, size);
            assert_true(perdure_stream_next(in, &type, &id));
            assert_int_equal(pass ? page_decode_all(in, to) : page_check_all(in, to->page_count), 1);
            perdure_stream_done(in);
            assert_int_equal(perdure_stream_error(in, NULL), 0);
            perdure_stream_close(in);
        }
        assert_true(guest_memory_hash(from) == guest_memory_hash(to));
    }
    assert_true(kinds[PAGE_ZERO] && kinds[PAGE_FULL] && !kinds[PAGE_DELTA] == !delta);
    assert_int_equal(!kinds[PAGE_PACKED], !packing);
    perdure_stream_close(f);
    page_encoder_free(e);
    guest_memory_free(from);
    guest_memory_free(to);
}

static void test_codec(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++)
        codec_follows(i & 1, i & 2, i & 4);
}

/* Pages that do not pack are tried less and less often; one that does ends that. */
static void test_packing_gives_up(void **state)
{
    PageEncoder *e = page_encoder_new(1024, false, true, NULL);
    VMStream *f = perdure_stream_open_memory(0);
    uint8_t noise[4096], text[4096];
    int packed = 0;

    (void)state;
    memset(text, 'a', sizeof(text));
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)(rand() >> 7);
    page_encoder_set_packing(e, true);
    perdure_stream_begin(f, 1, 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(page_encode(e, f, 1, noise), PAGE_FULL);
    for (int i = 0; i < 1000; i++)
        packed += page_encode(e, f, 1, text) == PAGE_PACKED;
    assert_in_range(packed, 700, 999); /* the first ones were not tried, all behind them were */
    page_encoder_set_packing(e, false);
    assert_int_equal(page_encode(e, f, 1, text), PAGE_FULL);
    perdure_stream_end(f);
    perdure_stream_close(f);
    page_encoder_free(e);
}

static void refuse(uint64_t head, const uint64_t *mask, size_t body)
{
    VMStream *f = perdure_stream_open_memory(0), *in;
    GuestMemory *m = guest_memory_new(MIB, NULL);
    static uint8_t bytes[8192];
    uint16_t type;
    uint64_t id;
    size_t size;

    perdure_stream_begin(f, 1, 1);
    perdure_stream_put_u64(f, head);
    if (mask)
        perdure_stream_put_u64(f, *mask);
    perdure_stream_put_buffer(f, bytes, body);
    perdure_stream_end(f);
    const void *data = perdure_stream_memory(f, &size);
    in = perdure_stream_open_buffer(data, size);
    assert_true(perdure_stream_next(in, &type, &id));
    assert_int_equal(page_decode_all(in, m), -1);
    assert_true(perdure_stream_error(in, NULL) < 0);
    perdure_stream_close(in);
    perdure_stream_close(f);
    guest_memory_free(m);
}

static void test_hostile_pages(void **state)
{
    const uint64_t none = 0, two = 3, size = 100, huge = 4096;

    (void)state;
    refuse(MIB / 4096 << 2 | PAGE_ZERO, NULL, 0); /* one past the last page */
    refuse(UINT64_MAX & ~UINT64_C(3), NULL, 0);
    refuse(0 << 2 | PAGE_PACKED, NULL, 0);     /* without a size */
    refuse(0 << 2 | PAGE_PACKED, NULL, 2);     /* of nothing */
    refuse(0 << 2 | PAGE_PACKED, &size, 0);    /* of less than there is */
    refuse(0 << 2 | PAGE_PACKED, &size, 100);  /* of what is no page */
    refuse(0 << 2 | PAGE_PACKED, &huge, 5000); /* of more than a page packs to */
    refuse(0 << 2 | PAGE_DELTA, &none, 0);     /* empty */
    refuse(0 << 2 | PAGE_DELTA, &two, 127);    /* a byte short */
    refuse(0 << 2 | PAGE_FULL, NULL, 4095);
    refuse(0 << 2 | PAGE_ZERO, NULL, 3); /* half a head behind it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),     cmocka_unit_test(test_dirty_and_populated),
        cmocka_unit_test(test_hash),          cmocka_unit_test(test_loops),
        cmocka_unit_test(test_place),         cmocka_unit_test(test_same_page_again),
        cmocka_unit_test(test_staging),       cmocka_unit_test(test_codec),
        cmocka_unit_test(test_hostile_pages), cmocka_unit_test(test_packing_gives_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
