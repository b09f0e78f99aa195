/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is read out of dirty rings: pages of every block, round and round, nothing that is no page; and who writes. */
#include "machine/dirty_ring.h"
#include "base/bitmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE  8
#define RINGS 4

struct rig {
    GuestMemory *memory; /* of two blocks */
    struct kvm_dirty_gfn entries[RINGS][SIZE];
    struct dirty_ring ring[RINGS];
    struct dirty_rings rings;
    uint32_t kvm_next[RINGS];
    uint64_t *map;
};

static int set_up(void **state)
{
    struct rig *g = calloc(1, sizeof(*g));

    g->memory = guest_memory_new(UINT64_C(4) << 30, NULL);
    assert_non_null(g->memory);
    assert_int_equal(g->memory->block_count, 2);
    g->map = calloc(1, bitmap_bytes(g->memory->page_count));
    g->rings = (struct dirty_rings){.memory = g->memory, .size = SIZE, .ring = g->ring, .count = RINGS};
    for (int i = 0; i < RINGS; i++)
        g->ring[i].entry = g->entries[i];
    *state = g;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *g = *state;

    guest_memory_free(g->memory);
    free(g->map);
    free(g);
    return 0;
}

/* As KVM does it. */
static void push(struct rig *g, int ring, uint32_t slot, uint64_t offset)
{
    struct kvm_dirty_gfn *e = &g->entries[ring][g->kvm_next[ring]++ % SIZE];

    assert_int_equal(e->flags, 0);
    *e = (struct kvm_dirty_gfn){KVM_DIRTY_GFN_F_DIRTY, slot, offset};
}

/* As KVM does it. The number of them. */
static unsigned reset(struct rig *g)
{
    unsigned n = 0;

    for (int i = 0; i < RINGS; i++)
        for (int j = 0; j < SIZE; j++)
            if (g->entries[i][j].flags & KVM_DIRTY_GFN_F_RESET) {
                g->entries[i][j].flags = 0;
                n++;
            }
    g->rings.collected -= n;
    return n;
}

static uint64_t bits(const struct rig *g)
{
    return bitmap_popcount(g->map, g->memory->page_count);
}

static void test_collect(void **state)
{
    struct rig *g = *state;
    uint64_t second = g->memory->blocks[1].first_page;

    push(g, 0, 0, 5);
    push(g, 0, 0, second - 1);
    push(g, 1, 1, 0);
    push(g, 3, 1, g->memory->page_count - second - 1);
    dirty_rings_peek(&g->rings, g->map);
    assert_int_equal(bits(g), 4);
    assert_int_equal(reset(g), 0);
    memset(g->map, 0, bitmap_bytes(g->memory->page_count));
    assert_true(dirty_rings_collect(&g->rings, g->map, NULL));
    assert_int_equal(bits(g), 4);
    assert_true(bitmap_test(g->map, 5) && bitmap_test(g->map, second - 1) && bitmap_test(g->map, second) &&
                bitmap_test(g->map, g->memory->page_count - 1));
    assert_int_equal(reset(g), 4);
    assert_int_equal(g->rings.collected, 0);
}

/* A whole ring at once, as often as the count goes past the end, and more than its 32 bits. */
static void test_round_and_round(void **state)
{
    struct rig *g = *state;

    g->ring[2].next = g->kvm_next[2] = UINT32_MAX - 3 * SIZE - 2;
    for (uint64_t page = 0; page < 8 * SIZE;) {
        for (int i = 0; i < SIZE; i++)
            push(g, 2, 0, page++);
        dirty_rings_peek(&g->rings, g->map);
        assert_int_equal(bits(g), page);
        assert_true(dirty_rings_collect(&g->rings, g->map, NULL));
        assert_int_equal(bits(g), page);
        dirty_rings_peek(&g->rings, g->map); /* those that KVM has not taken back yet are not ours any more */
        assert_true(dirty_rings_collect(&g->rings, g->map, NULL));
        assert_int_equal(g->rings.collected, SIZE);
        assert_int_equal(reset(g), SIZE);
    }
}

static void refuse(struct rig *g, uint32_t slot, uint64_t offset)
{
    Error *err = NULL;

    push(g, 1, slot, offset);
    dirty_rings_peek(&g->rings, g->map);
    assert_false(dirty_rings_collect(&g->rings, g->map, &err));
    assert_non_null(strstr(error_get_pretty(err), "vCPU 1 names a page that is no RAM"));
    error_free(err);
    assert_int_equal(bits(g), 0);
    g->entries[1][--g->kvm_next[1] % SIZE].flags = 0;
}

static void test_no_page(void **state)
{
    struct rig *g = *state;

    refuse(g, 2, 0);
    refuse(g, UINT32_MAX, 0);
    refuse(g, 1 << 16, 0); /* another address space */
    refuse(g, 0, g->memory->blocks[1].first_page);
    refuse(g, 1, g->memory->page_count - g->memory->blocks[1].first_page);
    refuse(g, 0, UINT64_MAX);
}

static void wrote(struct rig *g, int ring, int pages)
{
    for (int i = 0; i < pages; i++) {
        push(g, ring, 0, (uint64_t)i);
        assert_true(dirty_rings_collect(&g->rings, g->map, NULL));
        reset(g);
    }
}

static void test_writers(void **state)
{
    struct rig *g = *state;

    assert_int_equal(dirty_rings_writers(&g->rings), UINT64_MAX);
    wrote(g, 0, 1000);
    wrote(g, 1, 10);
    wrote(g, 2, 100);
    dirty_rings_age(&g->rings);
    assert_int_equal(dirty_rings_writers(&g->rings), 1 << 0 | 1 << 2);
    dirty_rings_age(&g->rings); /* nothing new: nothing gets older */
    assert_int_equal(dirty_rings_writers(&g->rings), 1 << 0 | 1 << 2);
    for (int i = 0; i < 5; i++) {
        wrote(g, 1, 1000);
        dirty_rings_age(&g->rings);
    }
    assert_int_equal(dirty_rings_writers(&g->rings), 1 << 1);
    dirty_rings_forget(&g->rings);
    assert_int_equal(dirty_rings_writers(&g->rings), UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_collect, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_round_and_round, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_page, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writers, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
