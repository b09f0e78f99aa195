/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A standby b brings a further one, d, to what it holds, while the primary a goes on; the three number their disks differently. */
#include "base/task.h"
#include "disk_pair.h"
#include "gated_block.h"

#include <errno.h>

#define CHUNK  REPLICATION_CHUNK_SIZE
#define COUNT  3
#define CHUNKS (13 + 6 + 1)
#define LIMIT  (2u << 20)
#define WRITE  150000 /* of the longest write of data; six of them fit an epoch */

static const char *const ids[COUNT] = {"root", "data", "log"};
static const uint64_t sizes[COUNT] = {12 * CHUNK + 777, 5 * CHUNK + 1, 1000};

static struct pair_side d;
static struct gate gates[3];
static struct gated_block *b_disk[COUNT], *d_disk[COUNT];
static VMStream *copied;
static unsigned seed;

/* --- three sides --- */

/* order: which of the disks has number 0, 1, 2 there. */
static void open_side(struct pair_side *s, struct gate *g, unsigned count, const unsigned *order,
                      uint64_t limit)
{
    gate_init(g);
    pair_side_begin(s, limit);
    for (unsigned n = 0; n < count; n++) {
        unsigned i = order[n];
        struct gated_block *block = gated_block_new(g, ids[i], sizes[i]);

        pair_side_add(s, i, block->memory, &block->block);
        (s == &d ? d_disk : b_disk)[i] = block; /* a's come first, and b's instead of them */
    }
    pair_side_ready();
}

static void open_all(unsigned count)
{
    fault_disarm_all();
    seed = 1;
    pair.epoch = 0;
    pair.out = perdure_stream_open_memory(0);
    pair.reply = perdure_stream_open_memory(0);
    copied = perdure_stream_open_memory(0);
    open_side(&pair.a, &gates[0], count, (unsigned[]){0, 1, 2}, LIMIT);
    open_side(&pair.b, &gates[1], count, (unsigned[]){2, 0, 1}, LIMIT);
    open_side(&d, &gates[2], count, (unsigned[]){1, 0, 2}, LIMIT);
}

static void close_all(void)
{
    gate_set_shut(&gates[1], false);
    pair_enter(&pair.b);
    replication_feeds_copy_end();
    pair_side_close(&d);
    pair_close();
    perdure_stream_close(copied);
    for (int i = 0; i < 3; i++)
        gate_destroy(&gates[i]);
}

static int begin(void **state)
{
    (void)state;
    open_all(COUNT);
    return 0;
}

static int end(void **state)
{
    (void)state;
    close_all();
    return 0;
}

static unsigned below(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

/* Every third chunk stays as it is: zeroes. */
static void fill_random(struct pair_side *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        for (uint64_t at = 0; at < sizes[i]; at += 512) {
            uint64_t n = sizes[i] - at < 512 ? sizes[i] - at : 512;

            if (at / CHUNK % 3 != 1)
                memset(s->disk[i]->bytes + at, rand_r(&seed) >> 4, n);
        }
    }
}

static void become_target(void)
{
    assert_true(pair_start_side(&d, REPLICATION_MODE_SECONDARY, NULL));
}

static void protect(void)
{
    fill_random(&pair.a);
    fill_random(&pair.b);
    fill_random(&d);
    pair_protect();
    become_target();
}

/* --- epochs; with d: what the primary says is passed on --- */

static void write_something(void)
{
    unsigned i = below(pair.a.count);
    uint64_t offset = (uint64_t)rand_r(&seed) % sizes[i], left = sizes[i] - offset,
             n = (uint64_t)rand_r(&seed) % (left < WRITE ? left : WRITE) + 1;

    if (below(4))
        pair_fill(pair.a.top[i], offset, (uint8_t)rand_r(&seed), n);
    else
        assert_true(block_zero(pair.a.top[i], offset, below(10) ? n : left, below(2), NULL));
}

static void pass_on(bool with_d)
{
    unsigned n = 1;

    while (n) {
        perdure_stream_rewind(pair.out);
        pair_enter(&pair.a);
        n = replication_feeds_next(pair.epoch + 1, pair.out, PAIR_MESSAGE, pair.epoch + 1,
                                   below(1 << 20) + 1);
        assert_true(pair_deliver(&pair.b, NULL));
        assert_true(!with_d || pair_deliver(&d, NULL));
    }
}

static void checkpoint(struct pair_side *s)
{
    pair_enter(s);
    assert_true(replication_do_checkpoint_all(NULL));
    assert_true(replication_get_error_all(NULL));
}

static void end_epoch(bool with_d)
{
    pair_end_epoch();
    pass_on(with_d);
    checkpoint(&pair.b);
    if (with_d)
        checkpoint(&d);
    pair.epoch++;
}

static void run_epoch(bool with_d)
{
    for (unsigned n = below(7); n; n--)
        write_something();
    if (!below(3))
        replication_group_verify(pair.a.group, below(10) * CHUNK);
    end_epoch(with_d);
}

/* --- a copy --- */

static void begin_copy(void)
{
    pair_enter(&pair.b);
    assert_true(replication_feeds_copy_begin(NULL));
}

static uint64_t left(void)
{
    pair_enter(&pair.b);
    return replication_feeds_copy_left();
}

/* *ret_more false: the pass is over. */
static bool copy_batch(size_t budget, bool last, bool *ret_more, Error **errp)
{
    perdure_stream_rewind(pair.out);
    pair_enter(&pair.b);
    if (!replication_feeds_copy(pair.out, PAIR_MESSAGE, 1, budget, last, ret_more, errp))
        return false;
    if (!pair_deliver(&d, errp))
        return false;
    assert_int_equal(perdure_stream_bytes(pair.reply), 0);
    return true;
}

static void copy_pass(bool last)
{
    bool more = true;

    while (more)
        assert_true(copy_batch(300000, last, &more, NULL));
}

static void end_copy(void)
{
    checkpoint(&d);
    pair_enter(&pair.b);
    replication_feeds_copy_end();
}

static void expect_copy_error(bool last, const char *text)
{
    Error *err = NULL;
    bool more = true;

    while (more && !err)
        copy_batch(1 << 20, last, &more, &err);
    pair_expect_error(err, text);
}

static bool equal(const struct pair_side *s, const struct pair_side *t)
{
    for (unsigned i = 0; i < s->count; i++) {
        if (memcmp(s->disk[i]->bytes, t->disk[i]->bytes, sizes[i]))
            return false;
    }
    return true;
}

/* All that was checkpointed is in place then. */
static void stop_both(void)
{
    assert_true(pair_stop(&pair.b, true, NULL));
    assert_true(pair_stop(&d, true, NULL));
}

static void assert_all_equal(void)
{
    end_epoch(true);
    stop_both();
    assert_true(equal(&pair.a, &pair.b));
    assert_true(equal(&pair.b, &d));
}

static void run_seed(unsigned s)
{
    bool more = true;

    seed = s;
    protect();
    for (unsigned n = below(4); n; n--)
        run_epoch(false);
    begin_copy();
    for (unsigned passes = below(4); passes;) {
        while (!below(3))
            run_epoch(false);
        assert_true(copy_batch(below(1 << 20) + 1, false, &more, NULL));
        passes -= !more;
    }
    if (below(2)) /* the last one in the middle of another */
        assert_true(copy_batch(below(1 << 20) + 1, false, &more, NULL));
    if (below(2))
        run_epoch(false);
    copy_pass(true);
    assert_int_equal(left(), 0);
    end_copy();
    for (unsigned n = below(6); n; n--)
        run_epoch(true);
    assert_all_equal();
}

static void test_random(void **state)
{
    (void)state;
    for (unsigned s = 1; s <= 60; s++) {
        open_all(COUNT);
        run_seed(s);
        close_all();
    }
}

/* --- what a pass puts --- */

static unsigned writes_at_d(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < COUNT; i++)
        n += d.disk[i]->seen[BLOCK_WRITE] + d.disk[i]->seen[BLOCK_ZERO];
    return n;
}

static void test_only_what_changed(void **state)
{
    unsigned before;

    (void)state;
    protect();
    begin_copy();
    assert_int_equal(left(), CHUNKS * CHUNK);
    copy_pass(false);
    assert_int_equal(left(), 0);
    assert_int_equal(d.disk[0]->seen[BLOCK_ZERO], 4); /* chunks of zeroes */
    before = writes_at_d();
    replication_group_verify(pair.a.group, 1 << 20); /* changes nothing */
    end_epoch(false);
    copy_pass(false);
    assert_int_equal(writes_at_d(), before);
    pair_fill(pair.a.top[0], 3 * CHUNK - 1, 7, 2); /* two */
    assert_true(block_zero(pair.a.top[1], 4 * CHUNK, CHUNK, true, NULL));
    pair_fill(pair.a.top[2], 999, 7, 1);
    end_epoch(false);
    pair_fill(pair.a.top[0], 3 * CHUNK, 8, 1);
    end_epoch(false);
    assert_int_equal(left(), 4 * CHUNK);
    copy_pass(false);
    assert_int_equal(left(), 0);
    assert_true(writes_at_d() > before);
    assert_true(writes_at_d() <= before + 5); /* one may come in two pieces */
    copy_pass(true);
    end_copy();
    assert_all_equal();
}

/* What has changed again by the time that the pass comes to it waits for the next one. */
static void test_what_changes_all_the_time(void **state)
{
    bool more;
    unsigned before;

    (void)state;
    protect();
    begin_copy();
    assert_true(copy_batch(1, false, &more, NULL)); /* LAYOUT */
    assert_true(copy_batch(1, false, &more, NULL));
    pair_fill(pair.a.top[1], 0, 1, sizes[1]);
    end_epoch(false);
    before = d.disk[1]->seen[BLOCK_WRITE];
    copy_pass(false);
    assert_int_equal(d.disk[1]->seen[BLOCK_WRITE], before);
    assert_int_equal(left(), 6 * CHUNK);
    copy_pass(true);
    end_copy();
    assert_all_equal();
}

static void test_no_disks(void **state)
{
    (void)state;
    close_all();
    open_all(0);
    pair_protect();
    become_target();
    begin_copy();
    copy_pass(false);
    copy_pass(true);
    end_copy();
    assert_all_equal();
    assert_null(d.journal);
}

/* The further one must take the primary's epochs, whose limit is the primary's. */
static void test_limit_is_the_primarys(void **state)
{
    (void)state;
    pair_side_close(&d);
    gate_destroy(&gates[2]);
    open_side(&d, &gates[2], COUNT, (unsigned[]){0, 1, 2}, LIMIT - 1);
    protect();
    begin_copy();
    expect_copy_error(false, "the primary's epochs may have 2097152 bytes, this side takes 2097151");
}

/* No checkpoint before it is over, and no copying behind it. */
static void test_over(void **state)
{
    Error *err = NULL;
    bool more;

    (void)state;
    protect();
    begin_copy();
    copy_pass(false);
    pair_enter(&d);
    assert_false(replication_do_checkpoint_all(&err));
    pair_expect_error(err, "a checkpoint came before the sync was over");
    copy_pass(true);
    end_epoch(false);
    perdure_stream_rewind(pair.out);
    pair_enter(&pair.b);
    assert_true(replication_feeds_copy(pair.out, PAIR_MESSAGE, 1, 1 << 20, true, &more, NULL));
    assert_false(more);
    assert_int_equal(perdure_stream_bytes(pair.out), 0);
}

/* --- the journal's writer is behind --- */

struct copier {
    bool last, done, stop;
    uint64_t passes;
    struct task_mutex lock;
};

/* On a task of its own, in the context of b: nobody enters another meanwhile. */
static void run_copier(void *arg)
{
    struct copier *c = arg;
    bool more = true, stop = false;

    while (more || !stop) {
        assert_true(replication_feeds_copy(copied, PAIR_MESSAGE, 1, 200000, c->last, &more, NULL));
        task_lock(&c->lock);
        c->passes += !more;
        stop = c->stop || c->last;
        task_unlock(&c->lock);
    }
    task_lock(&c->lock);
    c->done = true;
    task_unlock(&c->lock);
}

static bool is_done(struct copier *c)
{
    bool done;

    task_lock(&c->lock);
    done = c->done;
    task_unlock(&c->lock);
    return done;
}

/* An epoch is acknowledged, and is not in the images before the gate is opened. */
static void be_behind(void)
{
    protect();
    begin_copy();
    gates[1].reads_pass = true;
    gate_set_shut(&gates[1], true);
    for (unsigned i = 0; i < COUNT; i++)
        pair_fill(pair.a.top[i], 0, 0x77, 1000);
    end_epoch(false);
    gate_wait_for_one(&gates[1]);
    pair_enter(&pair.b);
}

static void test_waits_for_the_journal(void **state)
{
    struct copier c = {.last = true};
    Task *t;

    (void)state;
    task_mutex_init(&c.lock);
    be_behind();
    t = task_start("copier", run_copier, &c, NULL);
    task_sleep_until(clock_now() + 20 * NS_PER_MS);
    assert_false(is_done(&c));
    gate_set_shut(&gates[1], false);
    task_join(t);
    task_mutex_destroy(&c.lock);
    assert_true(pair_deliver_from(copied, &d, NULL));
    end_copy();
    assert_all_equal();
}

/* Planted: what the test above would find. */
static void test_planted_copy_overtakes_journal(void **state)
{
    (void)state;
    be_behind();
    fault_arm("disks.copy_overtakes_journal", 0);
    copy_pass(true);
    end_copy();
    gate_set_shut(&gates[1], false);
    end_epoch(true);
    stop_both();
    assert_true(equal(&pair.a, &pair.b));
    assert_false(equal(&pair.b, &d));
}

/* --- on a task of its own, while epochs come --- */

#define EPOCHS 60

static VMStream *epochs[EPOCHS];

/* The primary alone. */
static void record_epochs(void)
{
    for (unsigned i = 0; i < EPOCHS; i++) {
        epochs[i] = perdure_stream_open_memory(0);
        for (unsigned n = below(5); n; n--)
            write_something();
        replication_group_verify(pair.a.group, below(3) * CHUNK);
        pair_end_epoch();
        pair.epoch++;
        while (replication_feeds_next(pair.epoch, epochs[i], PAIR_MESSAGE, pair.epoch, 1 << 20))
            ;
    }
}

static void receive_epochs(struct copier *c)
{
    for (unsigned i = 0; i < EPOCHS; i++) {
        assert_true(pair_deliver_from(epochs[i], &pair.b, NULL));
        checkpoint(&pair.b);
        assert_true(replication_feeds_copy_left() <= CHUNKS * CHUNK);
        perdure_stream_close(epochs[i]);
    }
    task_lock(&c->lock);
    c->stop = true;
    task_unlock(&c->lock);
}

static void test_beside_checkpoints(void **state)
{
    struct copier c = {.last = false};
    Task *t;

    (void)state;
    task_mutex_init(&c.lock);
    protect();
    record_epochs();
    begin_copy();
    t = task_start("copier", run_copier, &c, NULL);
    receive_epochs(&c);
    task_join(t);
    assert_true(c.passes > 0);
    task_mutex_destroy(&c.lock);
    assert_true(pair_deliver_from(copied, &d, NULL));
    copy_pass(true);
    end_copy();
    run_epoch(true);
    assert_all_equal();
}

/* --- ends --- */

/* Given up in the middle, and begun again for one that begins anew. */
static void test_end_in_the_middle(void **state)
{
    bool more;

    (void)state;
    protect();
    begin_copy();
    assert_true(copy_batch(1, false, &more, NULL));
    assert_true(copy_batch(300000, false, &more, NULL));
    replication_feeds_copy_end();
    pair_enter(&pair.b);
    replication_feeds_copy_end();
    assert_int_equal(left(), 0);
    run_epoch(false);
    assert_true(pair_stop(&d, false, NULL));
    become_target();
    begin_copy();
    assert_int_equal(left(), CHUNKS * CHUNK);
    copy_pass(false);
    run_epoch(false);
    copy_pass(true);
    end_copy();
    run_epoch(true);
    assert_all_equal();
}

/* It takes over: nothing of the copy is left. */
static void test_stop_in_the_middle(void **state)
{
    Error *err = NULL;
    bool more;

    (void)state;
    protect();
    begin_copy();
    assert_true(copy_batch(300000, false, &more, NULL));
    assert_true(pair_stop(&pair.b, true, NULL));
    assert_int_equal(replication_feeds_copy_left(), 0);
    assert_false(replication_feeds_copy(pair.out, PAIR_MESSAGE, 1, 1, false, &more, &err));
    pair_expect_error(err, "replication feed disks: no copy is under way");
    replication_feeds_copy_end();
    assert_true(equal(&pair.a, &pair.b));
    pair_fill(pair.b.top[0], 0, 1, 10);
}

/* --- errors --- */

static void set_read_error(int error)
{
    task_lock(&gates[1].lock);
    b_disk[1]->fail_read = error;
    task_unlock(&gates[1].lock);
}

/* The standby goes on: a takeover needs no reading. */
static void test_disk_cannot_be_read(void **state)
{
    (void)state;
    protect();
    begin_copy();
    set_read_error(EIO);
    expect_copy_error(false, "replication feed disks: disk data: cannot read");
    expect_copy_error(true, "replication feeds: the copy has failed");
    pair_enter(&pair.b);
    replication_feeds_copy_end();
    pair_fill(pair.a.top[1], 0, 9, 1000);
    end_epoch(false);
    set_read_error(0);
    assert_true(pair_stop(&d, false, NULL));
    become_target();
    begin_copy();
    copy_pass(true);
    end_copy();
    assert_all_equal();
}

/* What is acknowledged cannot be put in place: nobody waits for it for ever. */
static void test_disk_cannot_be_written(void **state)
{
    Error *err = NULL;

    (void)state;
    protect();
    begin_copy();
    copy_pass(false);
    task_lock(&gates[1].lock);
    b_disk[0]->fail_write = EIO;
    task_unlock(&gates[1].lock);
    pair_fill(pair.a.top[0], 0, 9, 1000);
    pair_end_epoch();
    pair_try_finish_epoch(NULL); /* it may be told with this epoch, or later */
    expect_copy_error(true, "disk root: cannot write");
    assert_false(pair_stop(&pair.b, true, &err));
    pair_expect_error(err, "disk root: cannot write");
}

/* The further one's disk fails: its message is refused, b knows nothing of it. */
static void test_further_disk_fails(void **state)
{
    (void)state;
    protect();
    begin_copy();
    d_disk[0]->fail_write = ENOSPC;
    expect_copy_error(false, "disk root: cannot write");
    pair_enter(&pair.b);
    replication_feeds_copy_end();
    end_epoch(false);
    assert_true(pair_stop(&pair.b, true, NULL));
    assert_true(equal(&pair.a, &pair.b));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),        TEST(test_only_what_changed),
        TEST(test_what_changes_all_the_time), TEST(test_no_disks),
        TEST(test_limit_is_the_primarys),     TEST(test_over),
        TEST(test_waits_for_the_journal),     TEST(test_planted_copy_overtakes_journal),
        TEST(test_beside_checkpoints),        TEST(test_end_in_the_middle),
        TEST(test_stop_in_the_middle),        TEST(test_disk_cannot_be_read),
        TEST(test_disk_cannot_be_written),    TEST(test_further_disk_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
