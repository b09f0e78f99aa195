/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The range lock and the forward queue: what keeps a primary's writes in order, and their number bounded. */
#include "base/fault.h"
#include "block/forward_queue.h"
#include "block/range_lock.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char events[256];

static void event(const char *name)
{
    size_t n = strlen(events);

    snprintf(events + n, sizeof(events) - n, "%s%s", n ? " " : "", name);
}

static void assert_events(const char *expected)
{
    assert_string_equal(events, expected);
    events[0] = 0;
}

/* --- ranges --- */

struct named_range {
    struct range range;
    char name[8];
};

static void on_granted(struct range *r)
{
    event(((struct named_range *)r)->name);
}

static struct named_range named(const char *name, uint32_t disk, uint64_t offset, uint64_t size)
{
    struct named_range r = {.range = {.disk = disk, .offset = offset, .size = size, .granted = on_granted}};

    snprintf(r.name, sizeof(r.name), "%s", name);
    return r;
}

static void drop(struct range_lock *l, struct named_range *r)
{
    range_lock_grant(range_lock_drop(l, &r->range));
}

static void test_ranges_overlap(void **state)
{
    struct range_lock l = {0};
    struct named_range a = named("a", 0, 10, 10), behind = named("behind", 0, 20, 5),
                       before = named("before", 0, 5, 5), other = named("other", 1, 10, 10),
                       end = named("end", 0, 19, 1), begin = named("begin", 0, 0, 11),
                       inside = named("inside", 0, 14, 2);

    (void)state;
    assert_true(range_lock_take(&l, &a.range));
    assert_true(range_lock_take(&l, &behind.range));
    assert_true(range_lock_take(&l, &before.range));
    assert_true(range_lock_take(&l, &other.range));
    assert_false(range_lock_take(&l, &end.range));
    assert_false(range_lock_take(&l, &begin.range));
    assert_false(range_lock_take(&l, &inside.range));
    drop(&l, &a);
    assert_events("end inside"); /* begin waits for before, too */
    drop(&l, &before);
    assert_events("begin");
    drop(&l, &inside);
    drop(&l, &end);
    drop(&l, &begin);
    drop(&l, &behind);
    drop(&l, &other);
    assert_events("");
    assert_null(l.first);
    assert_null(l.last);
}

/* A large one that waits is not overtaken by small ones for ever. */
static void test_ranges_in_order(void **state)
{
    struct range_lock l = {0};
    struct named_range a = named("a", 0, 0, 4), all = named("all", 0, 0, 1000), b = named("b", 0, 8, 4),
                       c = named("c", 0, 8, 4);

    (void)state;
    assert_true(range_lock_take(&l, &a.range));
    assert_false(range_lock_take(&l, &all.range));
    assert_false(range_lock_take(&l, &b.range));
    assert_false(range_lock_take(&l, &c.range));
    drop(&l, &a);
    assert_events("all");
    drop(&l, &all);
    assert_events("b");
    drop(&l, &b);
    assert_events("c");
    drop(&l, &c);
    assert_null(l.first);
}

/* At no time do two holders overlap, and everybody gets his turn. */
static void test_ranges_at_random(void **state)
{
    enum { N = 64 };
    static struct named_range r[N];
    struct range_lock l = {0};
    bool waits[N] = {0}, holds[N] = {0};
    unsigned seed = 7, turns = 0;

    (void)state;
    for (unsigned step = 0; step < 20000; step++) {
        unsigned i = (unsigned)rand_r(&seed) % N;

        if (holds[i]) {
            struct range *ready = range_lock_drop(&l, &r[i].range);

            holds[i] = false;
            for (; ready; ready = ready->next_ready) {
                unsigned k = (unsigned)((struct named_range *)ready - r);

                assert_true(waits[k]);
                waits[k] = false;
                holds[k] = true;
            }
        } else if (!waits[i]) {
            r[i] = named("", (uint32_t)rand_r(&seed) % 2, (uint64_t)rand_r(&seed) % 100,
                         1 + (uint64_t)rand_r(&seed) % 30);
            holds[i] = range_lock_take(&l, &r[i].range);
            waits[i] = !holds[i];
            turns++;
        }
        for (unsigned a = 0; a < N; a++)
            for (unsigned b = 0; b < a; b++)
                assert_false(holds[a] && holds[b] && r[a].range.disk == r[b].range.disk &&
                             r[a].range.offset < r[b].range.offset + r[b].range.size &&
                             r[b].range.offset < r[a].range.offset + r[a].range.size);
    }
    assert_true(turns > 1000);
}

/* --- queue --- */

#define COST(n) (sizeof(struct disk_write) + (n))

static struct forward_queue q;

static int begin(void **state)
{
    (void)state;
    fault_disarm_all();
    events[0] = 0;
    forward_queue_init(&q, 10 * COST(100));
    return 0;
}

static int end(void **state)
{
    (void)state;
    forward_queue_reset(&q);
    fault_disarm_all();
    return 0;
}

struct asker {
    struct admission a;
    char name[8];
};

static void on_admitted(struct admission *a)
{
    event(((struct asker *)a)->name);
}

static struct asker asker(const char *name, unsigned data)
{
    struct asker k = {.a = {.bytes = COST(data), .admitted = on_admitted}};

    snprintf(k.name, sizeof(k.name), "%s", name);
    return k;
}

static bool put(unsigned data, uint64_t offset, uint64_t admitted)
{
    return forward_queue_put(&q, disk_write_new(DISK_WRITE_DATA, 0, offset, data, data), admitted);
}

static uint64_t pop(uint64_t epoch)
{
    struct disk_write *w = forward_queue_pop(&q, epoch);
    uint64_t offset = w ? w->offset : UINT64_MAX;

    free(w);
    return offset;
}

static void test_epochs(void **state)
{
    (void)state;
    assert_true(put(10, 1, 0));
    assert_false(put(10, 2, 0));
    forward_queue_end_epoch(&q);
    put(10, 3, 0);
    assert_int_equal(pop(1), 1);
    assert_int_equal(pop(1), 2);
    assert_int_equal(pop(1), UINT64_MAX);
    forward_queue_end_epoch(&q);
    put(10, 4, 0);
    assert_int_equal(pop(3), 3);
    assert_int_equal(pop(3), 4);
    assert_int_equal(pop(3), UINT64_MAX);
    assert_int_equal(q.queued, 0);
    assert_true(put(10, 5, 0)); /* empty again: somebody should look */
}

/* In the sync what waits is bounded; how much it is all in all is not. */
static void test_first_epoch_is_as_long_as_it_is(void **state)
{
    struct asker a = asker("a", 100);

    (void)state;
    for (int i = 0; i < 100; i++) {
        assert_true(forward_queue_admit(&q, &a.a));
        put(100, 0, COST(100));
        pop(1);
        assert_false(forward_queue_full(&q));
    }
    for (int i = 0; i < 10; i++) {
        assert_true(forward_queue_admit(&q, &a.a));
        put(100, 0, COST(100));
    }
    assert_false(forward_queue_admit(&q, &a.a));
    assert_false(forward_queue_full(&q));
    assert_int_equal(q.throttled, 1);
    pop(1);
    forward_queue_let_in(forward_queue_room(&q, false));
    assert_events("a");
}

/* Later the whole epoch is, also what was sent already: the backup has it in memory. */
static void test_epoch_is_bounded(void **state)
{
    struct asker a = asker("a", 100);

    (void)state;
    forward_queue_end_epoch(&q);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(forward_queue_full(&q), i > 5);
        assert_true(forward_queue_admit(&q, &a.a));
        put(100, 0, COST(100));
        pop(2);
    }
    assert_false(forward_queue_admit(&q, &a.a));
    assert_null(forward_queue_room(&q, false));
    forward_queue_end_epoch(&q);
    assert_true(forward_queue_full(&q)); /* somebody waits */
    forward_queue_let_in(forward_queue_room(&q, false));
    assert_events("a");
    assert_false(forward_queue_full(&q));
}

static void test_wakes_at_half(void **state)
{
    unsigned woken = 0;

    (void)state;
    forward_queue_end_epoch(&q);
    for (int i = 0; i < 10; i++)
        woken += put(100, 0, 0);
    assert_int_equal(woken, 2); /* the first, and the one at half of the limit */
}

/* What goes through the local disk counts from before it begins. */
static void test_admitted_counts(void **state)
{
    struct asker a = asker("a", 100), large = asker("large", 500), small = asker("small", 0);

    (void)state;
    for (int i = 0; i < 9; i++)
        assert_true(forward_queue_admit(&q, &a.a));
    assert_false(forward_queue_admit(&q, &large.a));
    assert_false(forward_queue_admit(&q, &small.a)); /* has room, but not its turn */
    forward_queue_give_up(&q, COST(100));
    assert_null(forward_queue_room(&q, false));
    for (int i = 0; i < 5; i++)
        forward_queue_give_up(&q, COST(100));
    forward_queue_let_in(forward_queue_room(&q, false));
    assert_events("large small");
    assert_null(q.waiting);
}

static void test_larger_than_the_limit(void **state)
{
    struct asker a = asker("a", 100), huge = asker("huge", 100000), next = asker("next", 1);

    (void)state;
    forward_queue_end_epoch(&q);
    assert_true(forward_queue_admit(&q, &a.a));
    assert_false(forward_queue_admit(&q, &huge.a));
    assert_false(forward_queue_admit(&q, &next.a));
    put(100, 0, COST(100));
    pop(2);
    assert_null(forward_queue_room(&q, false)); /* not alone: its epoch has more */
    forward_queue_end_epoch(&q);
    forward_queue_let_in(forward_queue_room(&q, false));
    assert_events("huge");
    put(100000, 0, COST(100000));
    assert_null(forward_queue_room(&q, false));
    pop(3);
    forward_queue_end_epoch(&q);
    forward_queue_let_in(forward_queue_room(&q, false));
    assert_events("next");
}

static void test_reset(void **state)
{
    struct asker a = asker("a", 100), b = asker("b", 2000);

    (void)state;
    assert_true(forward_queue_admit(&q, &a.a));
    assert_false(forward_queue_admit(&q, &b.a));
    forward_queue_end_epoch(&q);
    put(10, 1, 0);
    forward_queue_reset(&q);
    assert_int_equal(pop(9), UINT64_MAX);
    assert_int_equal(q.epoch, 1);
    forward_queue_let_in(forward_queue_room(&q, true));
    assert_events("b");
    forward_queue_give_up(&q, COST(100));
    forward_queue_give_up(&q, COST(2000));
    assert_int_equal(q.admitted, 0);
    assert_true(forward_queue_admit(&q, &b.a));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_ranges_overlap),
        TEST(test_ranges_in_order),
        TEST(test_ranges_at_random),
        TEST(test_epochs),
        TEST(test_first_epoch_is_as_long_as_it_is),
        TEST(test_epoch_is_bounded),
        TEST(test_wakes_at_half),
        TEST(test_admitted_counts),
        TEST(test_larger_than_the_limit),
        TEST(test_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
