/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A primary's requests: in flight, overlapping, failing, too many for the connection. */
#include "base/task.h"
#include "disk_pair.h"

#include <errno.h>

#define SIZE 300000

static struct memory_block *disk; /* the primary's first one */
static Block *top;

static int begin_with(uint64_t limit)
{
    pair_open_limited(1, SIZE, limit);
    disk = pair.a.disk[0];
    top = pair.a.top[0];
    return 0;
}

static int begin(void **state)
{
    (void)state;
    return begin_with(1 << 20);
}

static int begin_small(void **state)
{
    (void)state;
    return begin_with(64 << 10);
}

static int end(void **state)
{
    (void)state;
    pair_close();
    return 0;
}

/* A request of the machine. */
struct guest_request {
    struct block_request r;
    uint8_t data[40000];
    int done; /* how often */
};

static void on_done(struct block_request *r)
{
    ((struct guest_request *)r->opaque)->done++;
}

static void submit(struct guest_request *g, enum block_op op, uint64_t offset, uint64_t size, uint8_t value)
{
    g->done = 0;
    memset(g->data, value, sizeof(g->data));
    g->r = (struct block_request){
        .op = op, .offset = offset, .size = size, .data = g->data, .done = on_done, .opaque = g};
    block_submit(top, &g->r);
}

static void assert_backup(uint64_t offset, uint8_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(pair.b.disk[0]->bytes[offset + i], value);
}

static void take_over(void)
{
    assert_true(pair_stop(&pair.b, true, NULL));
}

/* --- in flight --- */

/* At the pause it had not happened: it is no part of the epoch, and whoever takes over issues it again. */
static void test_in_flight_at_the_pause(void **state)
{
    struct guest_request a, b;

    (void)state;
    pair_protect();
    disk->held = true;
    submit(&a, BLOCK_WRITE, 0, 100, 1);
    submit(&b, BLOCK_WRITE, 200, 100, 2);
    memory_block_finish(disk, 1, 0);
    assert_int_equal(b.done, 1);
    pair_end_epoch();
    memory_block_finish(disk, 0, 0); /* the machine runs again */
    assert_int_equal(a.done, 1);
    assert_true(pair_try_finish_epoch(NULL));
    disk->held = false;
    take_over();
    assert_backup(0, 0, 100);
    assert_backup(200, 2, 100);
}

static void test_in_flight_comes_with_the_next(void **state)
{
    struct guest_request a;

    (void)state;
    pair_protect();
    disk->held = true;
    submit(&a, BLOCK_WRITE, 0, 100, 1);
    pair_checkpoint();
    memory_block_finish(disk, 0, 0);
    pair_checkpoint();
    disk->held = false;
    take_over();
    assert_backup(0, 1, 100);
}

static void test_settle(void **state)
{
    struct guest_request a, b;

    (void)state;
    pair_protect();
    assert_true(replication_group_settle(pair.a.group, clock_now()));
    disk->held = true;
    submit(&a, BLOCK_WRITE, 0, 100, 1);
    submit(&b, BLOCK_WRITE, 50, 100, 2); /* waits for a */
    memory_block_finish(disk, 0, 0);
    assert_false(replication_group_settle(pair.a.group, clock_now() + NS_PER_MS));
    memory_block_finish(disk, 0, 0);
    assert_true(replication_group_settle(pair.a.group, clock_now()));
    pair_checkpoint();
    disk->held = false;
    take_over();
    assert_backup(0, 1, 50);
    assert_backup(50, 2, 100);
}

/* The end of protection leaves what is under way alone. */
static void test_in_flight_at_the_end(void **state)
{
    struct guest_request a, b, c;

    (void)state;
    pair_protect();
    disk->held = true;
    submit(&a, BLOCK_WRITE, 0, 100, 1);
    submit(&b, BLOCK_WRITE, 50, 100, 2); /* waits for a */
    assert_true(pair_stop(&pair.a, false, NULL));
    submit(&c, BLOCK_WRITE, 20, 100, 3); /* nobody's order matters any more */
    assert_int_equal(disk->count, 2);
    memory_block_finish(disk, 0, 0);
    memory_block_finish(disk, 1, 0);
    memory_block_finish(disk, 0, 0);
    assert_int_equal(a.done + b.done + c.done, 3);
    disk->held = false;
    assert_true(pair_stop(&pair.b, false, NULL));
    pair.epoch = 0;
    pair_protect();
    assert_true(pair_equal());
    assert_int_equal(pair_figures(&pair.a).queued, 0);
}

/* A write of the old protection that ends in the new one is forwarded there. */
static void test_in_flight_over_two_protections(void **state)
{
    struct guest_request a;
    bool more;

    (void)state;
    pair_protect();
    disk->held = true;
    submit(&a, BLOCK_WRITE, 0, 100, 1);
    assert_true(pair_stop(&pair.a, false, NULL));
    assert_true(pair_stop(&pair.b, false, NULL));
    pair.epoch = 0;
    pair_start();
    assert_true(pair_messages(1, NULL)); /* LAYOUT */
    memory_block_finish(disk, 0, 0);
    disk->held = false;
    do
        assert_true(pair_sync_step(&more, NULL));
    while (more);
    pair_sync();
    pair_checkpoint();
    assert_true(pair_equal());
}

static void finish_later(void *arg)
{
    (void)arg;
    task_sleep_until(clock_now() + 20 * NS_PER_MS);
    disk->held = false;
    memory_block_finish(disk, 0, 0);
}

/* A write that began without protection enters no queue. What the sync reads before it is done is nothing. */
static void test_write_from_before_the_start(void **state)
{
    struct guest_request a;
    Task *t;
    bool asked;

    (void)state;
    disk->held = true;
    submit(&a, BLOCK_WRITE, 0, 100, 1);
    pair_start();
    assert_true(pair_messages(1, NULL));
    t = task_start("disk", finish_later, NULL, NULL);
    pair_enter(&pair.a);
    perdure_stream_rewind(pair.out);
    assert_true(replication_feeds_ask(pair.out, PAIR_QUESTION, 1, &asked, NULL));
    task_join(t);
    assert_int_equal(a.done, 1);
    assert_true(pair_deliver(&pair.b, NULL));
    assert_true(pair_answer(NULL));
    pair_sync();
    pair_checkpoint();
    assert_true(pair_equal());
}

/* Before a side becomes a target, nothing of its own may land any more. */
static void test_no_target_with_writes_under_way(void **state)
{
    struct guest_request a;
    Error *err = NULL;

    (void)state;
    disk->held = true;
    submit(&a, BLOCK_WRITE, 0, 100, 1);
    assert_false(pair_start_side(&pair.a, REPLICATION_MODE_SECONDARY, &err));
    assert_int_equal(error_get_errno(err), EBUSY);
    error_free(err);
    block_drain(pair.a.top[0]);
    assert_int_equal(a.done, 1);
    assert_int_equal(a.r.error, 0);
    disk->held = false;
    assert_true(pair_start_side(&pair.a, REPLICATION_MODE_SECONDARY, NULL));
}

/* --- order --- */

static void test_overlapping_writes(void **state)
{
    struct guest_request a, b, c, read, flush;

    (void)state;
    pair_protect();
    disk->held = true;
    submit(&a, BLOCK_WRITE, 0, 100, 1);
    submit(&b, BLOCK_ZERO, 99, 100, 0);
    submit(&c, BLOCK_WRITE, 198, 10, 3);
    submit(&read, BLOCK_READ, 0, 10, 0);
    submit(&flush, BLOCK_FLUSH, 0, 0, 0);
    assert_int_equal(disk->count, 3); /* a, read, flush: reads wait for nobody */
    memory_block_finish(disk, 0, 0);
    assert_int_equal(a.done, 1);
    assert_int_equal(disk->count, 3);
    memory_block_finish(disk, 2, 0);
    assert_int_equal(b.done, 1);
    memory_block_finish(disk, 2, 0);
    assert_int_equal(c.done, 1);
    disk->held = false;
    memory_block_drain(&disk->block);
    pair_checkpoint();
    take_over();
    assert_true(pair_equal());
    assert_backup(0, 1, 99);
    assert_backup(99, 0, 99);
    assert_backup(198, 3, 10);
}

/* What the queue has in the end is what the local disk has, whatever completed in which order. */
static void test_random_order(void **state)
{
    static struct guest_request g[32];
    unsigned seed = 3, under_way = 0;

    (void)state;
    pair_protect();
    disk->held = true;
    for (int i = 0; i < 32; i++)
        g[i].done = 1;
    for (int step = 0; step < 3000; step++) {
        unsigned i = (unsigned)rand_r(&seed) % 32;

        if (rand_r(&seed) % 2 && g[i].done) {
            submit(&g[i], rand_r(&seed) % 4 ? BLOCK_WRITE : BLOCK_ZERO, (uint64_t)rand_r(&seed) % 5000,
                   (uint64_t)rand_r(&seed) % 500, (uint8_t)step);
            under_way++;
        } else if (disk->count) {
            memory_block_finish(disk, (unsigned)rand_r(&seed) % disk->count, 0);
        }
        if (step % 100 == 99)
            pair_checkpoint();
    }
    disk->held = false;
    block_drain(top);
    pair_checkpoint();
    take_over();
    assert_true(under_way > 500);
    assert_true(pair_equal());
}

/* --- errors of the local disk --- */

/* The machine hears of it; both sides have what the failed write left. */
static void test_failed_write(void **state)
{
    struct guest_request a;

    (void)state;
    pair_protect();
    disk->held = true;
    submit(&a, BLOCK_WRITE, 1000, 100, 1);
    memset(disk->bytes + 1000, 1, 50); /* in part */
    memory_block_finish(disk, 0, EIO);
    assert_int_equal(a.done, 0);
    memory_block_finish(disk, 0, 0); /* reading it back */
    assert_int_equal(a.done, 1);
    assert_int_equal(a.r.error, EIO);
    disk->held = false;
    pair_checkpoint();
    take_over();
    assert_true(pair_equal());
    assert_backup(1000, 1, 50);
    assert_backup(1050, 0, 50);
}

static void test_failed_zeroing(void **state)
{
    struct guest_request a;

    (void)state;
    memset(disk->bytes, 1, SIZE);
    pair_protect();
    disk->held = true;
    submit(&a, BLOCK_ZERO, 1000, 100000, 0);
    memset(disk->bytes + 1000, 0, 50000);
    memory_block_finish(disk, 0, ENOSPC);
    memory_block_finish(disk, 0, 0);
    assert_int_equal(a.r.error, ENOSPC);
    disk->held = false;
    pair_checkpoint();
    take_over();
    assert_true(pair_equal());
    assert_backup(50999, 0, 1);
    assert_backup(51000, 1, 1);
}

/* Unreadable here: the backup keeps what it has, and protection goes on. */
static void test_failed_write_that_cannot_be_read_back(void **state)
{
    struct guest_request a;

    (void)state;
    pair_protect();
    disk->held = true;
    submit(&a, BLOCK_WRITE, 1000, 100, 1);
    memory_block_finish(disk, 0, EIO);
    memory_block_finish(disk, 0, EIO);
    assert_int_equal(a.done, 1);
    assert_int_equal(a.r.error, EIO);
    disk->held = false;
    pair_checkpoint();
    take_over();
    assert_backup(1000, 0, 100);
}

/* Too large to be read back: the sides may differ, so protection ends; the machine goes on. */
static void test_failed_zeroing_of_much(void **state)
{
    struct guest_request a;
    Error *err = NULL;

    (void)state;
    pair_close();
    pair_open(1, 4 << 20);
    disk = pair.a.disk[0];
    top = pair.a.top[0];
    pair_protect();
    disk->held = true;
    submit(&a, BLOCK_ZERO, 0, 4 << 20, 0);
    memory_block_finish(disk, 0, ENOSPC);
    assert_int_equal(a.r.error, ENOSPC);
    disk->held = false;
    pair_enter(&pair.a);
    assert_false(replication_get_error_all(&err));
    pair_expect_error(err, "disk root: zero 4194304 bytes at 0 failed, perhaps in part");
    pair_fill(top, 0, 1, 10);
    assert_true(pair_stop(&pair.a, false, NULL));
    assert_true(pair_stop(&pair.b, false, NULL));
    pair.epoch = 0;
    pair_protect(); /* forgotten */
    assert_true(pair_equal());
}

/* Unreadable during the sync: there is nothing to protect with. */
static void test_sync_cannot_read(void **state)
{
    Error *err = NULL;

    (void)state;
    pair_start();
    disk->errors[BLOCK_READ] = EIO;
    assert_false(pair_try_sync(&err));
    pair_expect_error(err, "replication feed disks: disk root: cannot read");
    disk->errors[BLOCK_READ] = 0;
    pair_fill(top, 0, 1, 10);
}

/* A write that fails locally for want of space, all the time: nothing else suffers. */
static void test_errors_come_through_as_they_are(void **state)
{
    (void)state;
    pair_protect();
    disk->errors[BLOCK_WRITE] = ENOSPC;
    for (int i = 0; i < 100; i++) {
        Error *err = NULL;

        assert_false(block_write(top, (uint64_t)i * 100, "x", 1, &err));
        assert_int_equal(error_get_errno(err), ENOSPC);
        error_free(err);
    }
    disk->errors[BLOCK_WRITE] = 0;
    disk->errors[BLOCK_FLUSH] = EIO;
    assert_false(block_flush(top, NULL));
    disk->errors[BLOCK_FLUSH] = 0;
    pair_checkpoint();
    take_over();
    assert_true(pair_equal());
}

/* --- too much for the connection --- */

static void test_writes_wait_for_room(void **state)
{
    static struct guest_request g[4];

    (void)state;
    pair_protect();
    for (int i = 0; i < 4; i++)
        submit(&g[i], BLOCK_WRITE, (uint64_t)i * 40000, 20000, (uint8_t)(i + 1));
    assert_int_equal(g[2].done, 1);
    assert_int_equal(g[3].done, 0); /* 64 KiB are full */
    assert_int_equal(pair_figures(&pair.a).throttled, 1);
    pair_enter(&pair.a);
    assert_true(replication_feeds_full());
    assert_true(pair_messages(2, NULL)); /* sent, but the epoch has them */
    assert_int_equal(g[3].done, 0);
    pair_end_epoch();
    assert_true(pair_try_finish_epoch(NULL));
    assert_int_equal(g[3].done, 1);
    pair_checkpoint();
    take_over();
    assert_true(pair_equal());
}

static void test_sync_makes_room_as_it_goes(void **state)
{
    static struct guest_request g[4];

    (void)state;
    pair_start();
    for (int i = 0; i < 4; i++)
        submit(&g[i], BLOCK_WRITE, (uint64_t)i * 40000, 20000, (uint8_t)(i + 1));
    assert_int_equal(g[3].done, 0);
    pair_enter(&pair.a);
    assert_false(replication_feeds_full());
    assert_true(pair_messages(1, NULL));
    assert_int_equal(g[3].done, 1);
    pair_sync();
    pair_checkpoint();
    assert_true(pair_equal());
}

static void test_what_waits_goes_on_at_the_end(void **state)
{
    static struct guest_request g[6];

    (void)state;
    pair_protect();
    for (int i = 0; i < 6; i++)
        submit(&g[i], BLOCK_WRITE, (uint64_t)i * 40000, 20000, (uint8_t)(i + 1));
    assert_int_equal(g[5].done, 0);
    assert_true(pair_stop(&pair.a, true, NULL));
    assert_int_equal(g[3].done + g[4].done + g[5].done, 3);
    assert_int_equal(disk->bytes[200000], 6);
}

static void test_drain_lets_everything_go(void **state)
{
    static struct guest_request g[6];

    (void)state;
    pair_protect();
    disk->held = true;
    for (int i = 0; i < 6; i++)
        submit(&g[i], BLOCK_WRITE, (uint64_t)(i / 2) * 100, 20000, (uint8_t)(i + 1));
    block_drain(top);
    for (int i = 0; i < 6; i++)
        assert_int_equal(g[i].done, 1);
    disk->held = false;
}

/* More than an epoch may have: it goes alone, in pieces on the wire. */
static void test_write_larger_than_the_limit(void **state)
{
    uint8_t *bytes = malloc(SIZE);

    (void)state;
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)(i * 31 >> 3);
    pair_protect();
    assert_true(block_write(top, 0, bytes, SIZE, NULL));
    pair_checkpoint();
    take_over();
    assert_memory_equal(pair.b.disk[0]->bytes, bytes, SIZE);
    free(bytes);
}

static int wakes;

static void wake(void *opaque)
{
    (void)opaque;
    wakes++;
}

static void test_tells_that_something_waits(void **state)
{
    static struct guest_request g;

    (void)state;
    pair_protect();
    pair_enter(&pair.a);
    wakes = 0;
    replication_feeds_set_listener(wake, NULL);
    submit(&g, BLOCK_WRITE, 0, 100, 1);
    assert_int_equal(wakes, 1);
    submit(&g, BLOCK_WRITE, 0, 100, 1);
    assert_int_equal(wakes, 1);
    submit(&g, BLOCK_WRITE, 0, 38000, 1); /* half of what an epoch may have */
    assert_int_equal(wakes, 2);
    submit(&g, BLOCK_READ, 0, 100, 1);
    assert_int_equal(wakes, 2);
    replication_feeds_set_listener(NULL, NULL);
}

/* The planted bug that epochs guard against: the test above it would see it. */
static void test_planted_write_after_the_barrier(void **state)
{
    struct guest_request a;

    (void)state;
    pair_protect();
    disk->held = true;
    submit(&a, BLOCK_WRITE, 0, 100, 1);
    pair_end_epoch();
    fault_arm("disks.write_after_barrier_in_epoch", 0);
    memory_block_finish(disk, 0, 0);
    assert_true(pair_try_finish_epoch(NULL));
    disk->held = false;
    take_over();
    assert_backup(0, 1, 100); /* newer than the machine that takes over */
}

int main(void)
{
#define TEST(name)  cmocka_unit_test_setup_teardown(name, begin, end)
#define SMALL(name) cmocka_unit_test_setup_teardown(name, begin_small, end)
    const struct CMUnitTest tests[] = {
        TEST(test_in_flight_at_the_pause),
        TEST(test_in_flight_comes_with_the_next),
        TEST(test_settle),
        TEST(test_in_flight_at_the_end),
        TEST(test_in_flight_over_two_protections),
        TEST(test_write_from_before_the_start),
        TEST(test_no_target_with_writes_under_way),
        TEST(test_overlapping_writes),
        TEST(test_random_order),
        TEST(test_failed_write),
        TEST(test_failed_zeroing),
        TEST(test_failed_write_that_cannot_be_read_back),
        TEST(test_failed_zeroing_of_much),
        TEST(test_sync_cannot_read),
        TEST(test_errors_come_through_as_they_are),
        SMALL(test_writes_wait_for_room),
        SMALL(test_sync_makes_room_as_it_goes),
        SMALL(test_what_waits_goes_on_at_the_end),
        SMALL(test_drain_lets_everything_go),
        SMALL(test_write_larger_than_the_limit),
        SMALL(test_tells_that_something_waits),
        TEST(test_planted_write_after_the_barrier),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
