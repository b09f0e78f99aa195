/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ring engine on hand-built rings: order, event index, requests in flight, and every way in which a ring
 * can lie.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtqueue.h"

#define RAM    (1u << 20)
#define SIZE   8u
#define DESC   0x1000u
#define AVAIL  0x2000u
#define USED   0x3000u
#define BUFFER 0x10000u

struct ring {
    GuestMemory *memory;
    struct virtqueue q;
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
    struct vq_chain chain;
};

static int setup(void **state)
{
    struct ring *r = calloc(1, sizeof(*r));

    r->memory = guest_memory_new(RAM, NULL);
    assert_non_null(r->memory);
    r->q.memory = r->memory;
    virtqueue_reset(&r->q);
    r->q.size = SIZE;
    r->q.desc_gpa = DESC;
    r->q.avail_gpa = AVAIL;
    r->q.used_gpa = USED;
    r->q.indirect = true;
    r->q.enabled = true;
    assert_true(virtqueue_map(&r->q));
    r->desc = guest_memory_map(r->memory, DESC, SIZE * 16);
    r->avail = guest_memory_map(r->memory, AVAIL, 0x1000);
    r->used = guest_memory_map(r->memory, USED, 0x1000);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct ring *r = *state;

    guest_memory_free(r->memory);
    free(r);
    return 0;
}

static void set_desc(struct ring *r, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    r->desc[i] = (struct vring_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

static void offer(struct ring *r, uint16_t head)
{
    r->avail->ring[r->avail->idx++ % SIZE] = head;
}

static bool is_dirty(struct ring *r, uint64_t gpa)
{
    uint64_t page = gpa >> GUEST_PAGE_SHIFT;

    return r->memory->dirty[page / 64] >> (page % 64) & 1;
}

static void test_chain(void **state)
{
    struct ring *r = *state;
    char buf[16] = "";

    memcpy(guest_memory_map(r->memory, BUFFER, 8), "abcdefgh", 8);
    set_desc(r, 3, BUFFER, 3, VRING_DESC_F_NEXT, 5);
    set_desc(r, 5, BUFFER + 3, 5, VRING_DESC_F_NEXT, 1);
    set_desc(r, 1, BUFFER + 0xffe, 4, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 2);
    set_desc(r, 2, BUFFER + 0x5000, 100, VRING_DESC_F_WRITE, 77);
    assert_false(virtqueue_pop(&r->q, &r->chain));
    offer(r, 3);
    assert_true(virtqueue_pop(&r->q, &r->chain));
    assert_int_equal(r->chain.head, 3);
    assert_int_equal(r->chain.out_bytes, 8);
    assert_int_equal(r->chain.in_bytes, 104);
    assert_int_equal(vq_chain_read(&r->chain, 2, buf, 4), 4);
    assert_string_equal(buf, "cdef");
    assert_int_equal(vq_chain_read(&r->chain, 6, buf, 16), 2);
    assert_int_equal(vq_chain_read(&r->chain, 8, buf, 16), 0);

    assert_false(is_dirty(r, BUFFER) || is_dirty(r, USED));
    assert_int_equal(vq_chain_write(&r->q, &r->chain, 1, "12345", 5), 5);
    assert_memory_equal(guest_memory_map(r->memory, BUFFER + 0xfff, 3), "123", 3);
    assert_memory_equal(guest_memory_map(r->memory, BUFFER + 0x5000, 2), "45", 2);
    assert_true(is_dirty(r, BUFFER) && is_dirty(r, BUFFER + 0x1000) && is_dirty(r, BUFFER + 0x5000));
    assert_int_equal(vq_chain_write(&r->q, &r->chain, 103, "xyz", 3), 1);

    virtqueue_push(&r->q, 3, 6);
    assert_int_equal(r->used->idx, 1);
    assert_int_equal(r->used->ring[0].id, 3);
    assert_int_equal(r->used->ring[0].len, 6);
    assert_true(is_dirty(r, USED));
    assert_int_equal(r->q.inflight_count, 0);
    assert_false(virtqueue_pop(&r->q, &r->chain));
    assert_false(r->q.broken);
}

static void test_indirect(void **state)
{
    struct ring *r = *state;
    /* An odd address: nothing says that the table is aligned. */
    struct vring_desc table[3] = {
        {.addr = BUFFER, .len = 10, .flags = VRING_DESC_F_NEXT, .next = 2},
        {.addr = 0, .len = 0, .flags = 0, .next = 0},
        {.addr = BUFFER + 100, .len = 20, .flags = VRING_DESC_F_WRITE, .next = 0},
    };

    guest_memory_write(r->memory, 0x8003, table, sizeof(table));
    set_desc(r, 0, 0x8003, sizeof(table), VRING_DESC_F_INDIRECT, 0);
    offer(r, 0);
    assert_true(virtqueue_pop(&r->q, &r->chain));
    assert_int_equal(r->chain.out_bytes, 10);
    assert_int_equal(r->chain.in_bytes, 20);
    /* A direct one in front of the table. */
    set_desc(r, 1, BUFFER, 5, VRING_DESC_F_NEXT, 0);
    offer(r, 1);
    assert_true(virtqueue_pop(&r->q, &r->chain));
    assert_int_equal(r->chain.out_bytes, 15);
}

/* Each of these breaks the queue, and nothing else. */
static void test_hostile(void **state)
{
    struct ring *r = *state;
    static const struct {
        const char *what;
        struct vring_desc d[3], table[2];
        uint16_t head, idx;
    } cases[] = {
        {"an index far ahead", .d = {{BUFFER, 1, 0, 0}}, .idx = SIZE + 1},
        {"a head outside the table", .d = {{BUFFER, 1, 0, 0}}, .head = SIZE, .idx = 1},
        {"no bytes", .d = {{BUFFER, 0, 0, 0}}, .idx = 1},
        {"beyond RAM", .d = {{RAM, 1, 0, 0}}, .idx = 1},
        {"partly beyond RAM", .d = {{RAM - 1, 2, 0, 0}}, .idx = 1},
        {"an address that wraps", .d = {{UINT64_MAX - 3, 8, 0, 0}}, .idx = 1},
        {"a huge length", .d = {{BUFFER, UINT32_MAX, 0, 0}}, .idx = 1},
        {"a next outside the table", .d = {{BUFFER, 1, VRING_DESC_F_NEXT, SIZE}}, .idx = 1},
        {"a loop of one", .d = {{BUFFER, 1, VRING_DESC_F_NEXT, 0}}, .idx = 1},
        {"a loop of two", .d = {{BUFFER, 1, VRING_DESC_F_NEXT, 1}, {BUFFER, 1, VRING_DESC_F_NEXT, 0}},
         .idx = 1},
        {"to read after to write",
         .d = {{BUFFER, 1, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1}, {BUFFER, 1, 0, 0}}, .idx = 1},
        {"indirect and next", .d = {{0x8000, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1}}, .idx = 1},
        {"a table of no bytes", .d = {{0x8000, 0, VRING_DESC_F_INDIRECT, 0}}, .idx = 1},
        {"a table of a half descriptor", .d = {{0x8000, 24, VRING_DESC_F_INDIRECT, 0}}, .idx = 1},
        {"a huge table", .d = {{0x8000, 16 * 257, VRING_DESC_F_INDIRECT, 0}}, .idx = 1},
        {"a table outside RAM", .d = {{RAM - 16, 32, VRING_DESC_F_INDIRECT, 0}}, .idx = 1},
        {"a table in a table", .d = {{0x8000, 32, VRING_DESC_F_INDIRECT, 0}},
         .table = {{0x8000, 32, VRING_DESC_F_INDIRECT, 0}}, .idx = 1},
        {"a loop in a table", .d = {{0x8000, 32, VRING_DESC_F_INDIRECT, 0}},
         .table = {{BUFFER, 1, VRING_DESC_F_NEXT, 1}, {BUFFER, 1, VRING_DESC_F_NEXT, 0}}, .idx = 1},
        {"a next outside the indirect table", .d = {{0x8000, 32, VRING_DESC_F_INDIRECT, 0}},
         .table = {{BUFFER, 1, VRING_DESC_F_NEXT, 2}}, .idx = 1},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint16_t before = r->q.last_avail;

        r->q.broken = false;
        memcpy(r->desc, cases[i].d, sizeof(cases[i].d));
        guest_memory_write(r->memory, 0x8000, cases[i].table, sizeof(cases[i].table));
        r->avail->ring[before % SIZE] = cases[i].head;
        r->avail->idx = before + cases[i].idx;
        if (virtqueue_pop(&r->q, &r->chain) || !r->q.broken)
            fail_msg("not noticed: %s", cases[i].what);
        assert_int_equal(r->q.last_avail, before);
        assert_int_equal(r->q.inflight_count, 0);
        assert_false(virtqueue_pop(&r->q, &r->chain));
    }
    /* Not negotiated: a table breaks it too. */
    r->q.broken = r->q.indirect = false;
    set_desc(r, 0, 0x8000, 16, VRING_DESC_F_INDIRECT, 0);
    r->avail->idx = r->q.last_avail + 1;
    r->avail->ring[r->q.last_avail % SIZE] = 0;
    assert_false(virtqueue_pop(&r->q, &r->chain));
    assert_true(r->q.broken);
}

/* A guest that offers a head again and again without getting it back cannot have more in flight than the ring
 * holds. */
static void test_too_many(void **state)
{
    struct ring *r = *state;

    set_desc(r, 0, BUFFER, 1, 0, 0);
    for (unsigned i = 0; i < SIZE; i++) {
        offer(r, 0);
        assert_true(virtqueue_pop(&r->q, &r->chain));
    }
    offer(r, 0);
    assert_false(virtqueue_pop(&r->q, &r->chain));
    assert_true(r->q.broken);
}

static void test_rings_outside(void **state)
{
    struct ring *r = *state;
    static const struct {
        uint64_t desc, avail, used;
    } bad[] = {{RAM, AVAIL, USED},      {RAM - 16, AVAIL, USED},        {DESC + 8, AVAIL, USED},
               {DESC, AVAIL + 1, USED}, {DESC, AVAIL, USED + 2},        {DESC, RAM - 4, USED},
               {DESC, AVAIL, RAM - 8},  {UINT64_MAX - 15, AVAIL, USED}, {DESC, UINT64_MAX - 1, USED}};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        r->q.desc_gpa = bad[i].desc;
        r->q.avail_gpa = bad[i].avail;
        r->q.used_gpa = bad[i].used;
        assert_false(virtqueue_map(&r->q));
    }
}

/* Some hundred thousand entries: every index wraps more than once, and the event index with it. */
static void test_wrap_and_events(void **state)
{
    struct ring *r = *state;
    uint16_t *used_event = &r->avail->ring[SIZE],
             *avail_event = guest_memory_map(r->memory, USED + 4 + 8 * SIZE, 2);
    unsigned wanted = 0, told = 0;

    r->q.event_idx = true;
    srand(4);
    for (unsigned i = 0; i < 200000; i++) {
        unsigned n = 1 + rand() % SIZE, distance = rand() % SIZE;
        uint16_t start = r->used->idx;

        *used_event = start + distance;
        for (unsigned k = 0; k < n; k++) {
            set_desc(r, k, BUFFER, 1 + k, VRING_DESC_F_WRITE, 0);
            offer(r, k);
        }
        for (unsigned k = 0; k < n; k++) {
            assert_true(virtqueue_pop(&r->q, &r->chain));
            assert_int_equal(r->chain.head, k);
            virtqueue_push(&r->q, k, k);
        }
        assert_false(virtqueue_pop(&r->q, &r->chain));
        assert_int_equal((uint16_t)(r->used->idx - start), n);
        wanted += distance < n;
        told += virtqueue_should_notify(&r->q);
        assert_int_equal(told, wanted);
        assert_false(virtqueue_should_notify(&r->q));
        assert_false(virtqueue_enable_kicks(&r->q, 0));
        assert_int_equal(*avail_event, r->avail->idx);
    }
    /* An entry that came before we asked is noticed; one more than those is asked for. */
    offer(r, 0);
    assert_true(virtqueue_enable_kicks(&r->q, 0));
    assert_false(virtqueue_enable_kicks(&r->q, 1));
    assert_int_equal(*avail_event, r->avail->idx);
}

static void test_no_interrupt_flag(void **state)
{
    struct ring *r = *state;

    set_desc(r, 0, BUFFER, 1, 0, 0);
    for (unsigned i = 0; i < 2; i++) {
        offer(r, 0);
        assert_true(virtqueue_pop(&r->q, &r->chain));
        virtqueue_push(&r->q, 0, 0);
        assert_int_equal(virtqueue_should_notify(&r->q), i == 0);
        r->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
    }
}

static void test_inflight(void **state)
{
    struct ring *r = *state;

    for (unsigned i = 0; i < 4; i++) {
        set_desc(r, i, BUFFER + i, 1 + i, 0, 0);
        offer(r, 3 - i);
    }
    for (unsigned i = 0; i < 3; i++)
        assert_true(virtqueue_pop(&r->q, &r->chain));
    virtqueue_unpop(&r->q, 1);
    assert_true(virtqueue_pop(&r->q, &r->chain));
    assert_int_equal(r->chain.head, 1);
    /* Done out of order; what is left keeps its order. */
    virtqueue_push(&r->q, 2, 0);
    assert_int_equal(r->q.inflight_count, 2);
    assert_true(virtqueue_refetch(&r->q, 0, &r->chain));
    assert_int_equal(r->chain.head, 3);
    assert_int_equal(r->chain.out_bytes, 4);
    assert_true(virtqueue_refetch(&r->q, 1, &r->chain));
    assert_int_equal(r->chain.head, 1);
    assert_false(virtqueue_refetch(&r->q, 2, &r->chain));
    assert_null(virtqueue_post_load(&r->q, 1));
    assert_non_null(r->q.used);
}

static void test_post_load(void **state)
{
    struct ring *r = *state;
    struct virtqueue good = r->q;

#define REFUSED(change)                                                                                      \
    do {                                                                                                     \
        r->q = good;                                                                                         \
        change;                                                                                              \
        assert_non_null(virtqueue_post_load(&r->q, 2));                                                      \
    } while (0)
    REFUSED(r->q.size = 0);
    REFUSED(r->q.size = 3);
    REFUSED(r->q.size = 512);
    REFUSED(r->q.vector = 2);
    REFUSED(r->q.used_gpa = RAM);
    REFUSED(r->q.last_avail++);
    REFUSED(r->q.inflight_count = SIZE + 1; r->q.last_avail = SIZE + 1);
    REFUSED(r->q.inflight_count = 1; r->q.last_avail = 1; r->q.inflight[0] = SIZE);
    r->q = good;
    assert_null(virtqueue_post_load(&r->q, 2));
}

/* Rings full of noise, sometimes of things that are nearly right: whatever is popped lies in RAM and is
 * bounded. */
static void test_fuzz(void **state)
{
    struct ring *r = *state;
    uint8_t *ram = guest_memory_map(r->memory, 0, RAM);
    unsigned popped = 0, broken = 0;

    srand(5);
    r->q.event_idx = true;
    for (unsigned i = 0; i < 100000; i++) {
        for (unsigned k = 0; k < SIZE; k++) {
            bool fair = rand() % 8;

            set_desc(r, k, fair ? (uint32_t)rand() % RAM : (uint64_t)rand() << (rand() % 40),
                     fair ? 1 + (uint32_t)rand() % 200 : (uint32_t)rand(), rand() % 16 ? rand() % 8 : rand(),
                     fair ? (uint32_t)rand() % SIZE : (uint32_t)rand());
            if (rand() % 4 == 0) {
                r->desc[k].addr = DESC; /* the table as an indirect table of itself, or as data */
                r->desc[k].len = 16 * (rand() % 10);
            }
            r->avail->ring[k] = rand() % 16 ? (uint32_t)rand() % SIZE : (uint32_t)rand();
        }
        r->avail->idx = rand() % 16 ? r->q.last_avail + rand() % 4 : rand();
        r->avail->ring[SIZE] = rand();
        while (virtqueue_pop(&r->q, &r->chain)) {
            popped++;
            assert_true(r->chain.out_count + r->chain.in_count <= VIRTQUEUE_CHAIN_MAX);
            for (unsigned k = 0; k < r->chain.out_count + r->chain.in_count; k++) {
                uint8_t *p = r->chain.iov[k].iov_base;

                assert_true(p >= ram && r->chain.iov[k].iov_len <= (size_t)(ram + RAM - p));
            }
            vq_chain_write(&r->q, &r->chain, rand() % 64, &(uint64_t){0}, 8);
            if (rand() % 8)
                virtqueue_push(&r->q, r->chain.head, rand());
            virtqueue_should_notify(&r->q);
        }
        for (uint32_t k = 0; k < r->q.inflight_count; k++)
            virtqueue_refetch(&r->q, k, &r->chain);
        virtqueue_enable_kicks(&r->q, rand() % 3);
        if (r->q.broken) {
            broken++;
            r->q.broken = false;
            r->q.inflight_count = 0;
        }
    }
    assert_true(popped > 1000 && broken > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_indirect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rings_outside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrap_and_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_interrupt_flag, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inflight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_post_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };

    return cmocka_run_group_tests_name("virtqueue", tests, NULL, NULL);
}
