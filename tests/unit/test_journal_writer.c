/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The writer's task: what is in place and on the medium when, its limit, its first error. (Power cuts are in
 * test_journal_crash.c.)
 */
#include "base/task.h"
#include "block/journal_writer.h"
#include "gated_block.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define DISK_SIZE    65536u
#define JOURNAL_SIZE (256u << 10)

/* --- a standby's disks --- */

struct standby {
    struct gate gate;
    struct gated_block *journal, *disks[2];
    Block *images[2];
    JournalWriter *jw;
};

static void standby_open(struct standby *s, uint64_t limit)
{
    struct journal_identity identity = {
        .pair = "pair", .generation = 1, .disk_count = 2, .disks = {{"a", DISK_SIZE}, {"b", DISK_SIZE}}};
    Journal *j;

    *s = (struct standby){0};
    gate_init(&s->gate);
    for (int i = 0; i < 2; i++) {
        s->disks[i] = gated_block_new(&s->gate, i ? "b" : "a", DISK_SIZE);
        s->images[i] = &s->disks[i]->block;
    }
    s->journal = gated_block_new(&s->gate, "journal", JOURNAL_SIZE);
    j = journal_create(&s->journal->block, &identity, NULL);
    assert_non_null(j);
    s->jw = journal_writer_new(j, s->images, limit, NULL);
    assert_non_null(s->jw);
}

static void standby_close(struct standby *s)
{
    journal_writer_free(s->jw);
    for (int i = 0; i < 2; i++)
        block_close(s->images[i]);
    gate_destroy(&s->gate);
}

static struct epoch_writes *epoch(uint64_t number, uint32_t size)
{
    struct epoch_writes *w = epoch_writes_new();

    w->epoch = number;
    for (uint32_t disk = 0; size && disk < 2; disk++) {
        struct disk_write *d = disk_write_new(DISK_WRITE_DATA, disk, number % 8 * 512, size, size);

        memset(d->data, (int)number, size);
        epoch_writes_add(w, d);
    }
    return w;
}

static void put(struct standby *s, uint64_t number, uint32_t size)
{
    assert_true(journal_writer_put(s->jw, epoch(number, size), NULL));
}

static void assert_in_place(struct standby *s, uint64_t number)
{
    for (int i = 0; i < 2; i++)
        assert_int_equal(s->disks[i]->memory->bytes[number % 8 * 512], number & 0xff);
}

static void assert_error(struct standby *s, const char *text, int errnum)
{
    Error *err = NULL;

    assert_false(journal_writer_drain(s->jw, &err));
    if (!strstr(error_get_pretty(err), text))
        fail_msg("\"%s\" instead of \"%s\"", error_get_pretty(err), text);
    assert_int_equal(error_get_errno(err), errnum);
    error_free(err);
    assert_false(journal_writer_get_error(s->jw, NULL));
    assert_false(journal_writer_put(s->jw, epoch(1000, 512), NULL));
}

static void test_drained_is_in_place(void **state)
{
    struct standby s;

    (void)state;
    standby_open(&s, 1 << 20);
    assert_int_equal(journal_writer_durable_epoch(s.jw), 0);
    assert_true(journal_writer_drain(s.jw, NULL));
    for (uint64_t i = 1; i <= 300; i++) { /* several times around the journal */
        put(&s, i, 3000);
        if (i % 50)
            continue;
        assert_true(journal_writer_drain(s.jw, NULL));
        assert_in_place(&s, i);
        assert_int_equal(journal_writer_durable_epoch(s.jw), i);
        assert_int_equal(journal_writer_backlog(s.jw), 0);
        for (int d = 0; d < 2; d++)
            assert_true(s.disks[d]->flushed > s.disks[d]->wrote);
    }
    assert_true(journal_writer_get_error(s.jw, NULL));
    standby_close(&s);
}

/* Nothing reaches an image before the journal's flush, and one flush serves all that waited. */
static void test_batches(void **state)
{
    struct standby s;
    unsigned flushes;

    (void)state;
    standby_open(&s, 1 << 20);
    gate_set_shut(&s.gate, true);
    put(&s, 1, 512);
    gate_wait_for_one(&s.gate);
    for (uint64_t i = 2; i <= 20; i++)
        put(&s, i, 512);
    assert_true(journal_writer_backlog(s.jw) > 20 * 512);
    assert_int_equal(journal_writer_durable_epoch(s.jw), 0);
    flushes = s.journal->flushes;
    gate_set_shut(&s.gate, false);
    assert_true(journal_writer_drain(s.jw, NULL));
    assert_int_equal(s.journal->flushes, flushes + 2);
    assert_int_equal(s.disks[0]->flushes, 1);
    assert_true(s.disks[0]->wrote > s.journal->flushed);
    assert_in_place(&s, 20);
    standby_close(&s);
}

struct putter {
    struct standby *s;
    bool returned;
};

static void put_one_more(void *arg)
{
    struct putter *p = arg;

    put(p->s, 5, 512);
    task_lock(&p->s->gate.lock);
    p->returned = true;
    task_unlock(&p->s->gate.lock);
}

static void test_limit(void **state)
{
    struct standby s;
    struct putter p = {&s, false};
    Task *t;

    (void)state;
    standby_open(&s, 4 * (2 * 4096));
    gate_set_shut(&s.gate, true);
    for (uint64_t i = 1; i <= 4; i++)
        put(&s, i, 4096);
    gate_wait_for_one(&s.gate);
    t = task_start("putter", put_one_more, &p, NULL);
    task_sleep_until(clock_now() + 20 * NS_PER_MS);
    task_lock(&s.gate.lock);
    assert_false(p.returned);
    task_unlock(&s.gate.lock);
    gate_set_shut(&s.gate, false);
    task_join(t);
    assert_true(journal_writer_drain(s.jw, NULL));
    assert_int_equal(journal_writer_durable_epoch(s.jw), 5);
    assert_in_place(&s, 5);
    standby_close(&s);
}

static void test_epochs_without_writes(void **state)
{
    struct standby s;
    unsigned flushes;

    (void)state;
    standby_open(&s, 1 << 20);
    flushes = s.journal->flushes;
    for (uint64_t i = 1; i <= 100; i++)
        put(&s, i, 0);
    assert_true(journal_writer_drain(s.jw, NULL));
    assert_int_equal(journal_writer_durable_epoch(s.jw), 100);
    assert_int_equal(s.journal->flushes, flushes);
    assert_int_equal(s.disks[0]->flushes, 0);
    standby_close(&s);
}

static void test_images_are_flushed_meanwhile(void **state)
{
    struct journal_identity identity = {
        .pair = "pair", .disk_count = 1, .disks = {{"a", JOURNAL_WRITER_UNFLUSHED}}};
    struct memory_block *m = memory_block_new("journal", 5 * JOURNAL_WRITER_UNFLUSHED);
    struct memory_block *image = memory_block_new("a", JOURNAL_WRITER_UNFLUSHED);
    Block *images[1] = {&image->block};
    JournalWriter *jw = journal_writer_new(journal_create(&m->block, &identity, NULL), images, 1 << 30, NULL);
    struct epoch_writes *w = epoch_writes_new();

    (void)state;
    w->epoch = 1;
    for (int i = 0; i < 2; i++)
        epoch_writes_add(w, disk_write_new(DISK_WRITE_DATA, 0, 0, JOURNAL_WRITER_UNFLUSHED / 2,
                                           JOURNAL_WRITER_UNFLUSHED / 2));
    for (struct disk_write *d = w->first; d; d = d->next)
        memset(d->data, 1, d->data_size);
    assert_true(journal_writer_put(jw, w, NULL));
    assert_true(journal_writer_drain(jw, NULL));
    assert_int_equal(image->seen[BLOCK_FLUSH], 1); /* not once more at the end */
    journal_writer_free(jw);
    block_close(&image->block);
}

static unsigned flushes_of(struct gated_block *d)
{
    unsigned n;

    task_lock(&d->gate->lock);
    n = d->flushes;
    task_unlock(&d->gate->lock);
    return n;
}

/* Nobody drains: it comes by itself. */
static void test_images_are_flushed_after_a_while(void **state)
{
    struct standby s;

    (void)state;
    standby_open(&s, 1 << 20);
    put(&s, 1, 512);
    while (!flushes_of(s.disks[0]))
        task_sleep_until(clock_now() + NS_PER_MS);
    assert_in_place(&s, 1);
    standby_close(&s);
}

static void test_errors_are_kept(void **state)
{
    struct standby s;
    uint64_t wrote;

    (void)state;
    standby_open(&s, 1 << 20);
    s.journal->fail_write = ENOSPC;
    put(&s, 1, 512);
    assert_error(&s, "disk journal: cannot write", ENOSPC);
    assert_int_equal(journal_writer_durable_epoch(s.jw), 0);
    assert_int_equal(s.disks[0]->writes, 0);
    standby_close(&s);

    standby_open(&s, 1 << 20);
    s.journal->fail_flush = EIO;
    put(&s, 1, 512);
    assert_error(&s, "disk journal: cannot flush", EIO);
    assert_int_equal(journal_writer_durable_epoch(s.jw), 0);
    assert_int_equal(s.disks[0]->writes, 0);
    standby_close(&s);

    standby_open(&s, 1 << 20);
    s.disks[1]->fail_write = EIO;
    put(&s, 1, 512);
    assert_error(&s, "disk b: cannot write 512 bytes at 512", EIO);
    assert_int_equal(journal_writer_durable_epoch(s.jw), 1); /* it is in the journal */
    wrote = s.gate.order;
    s.disks[1]->fail_write = 0;
    assert_error(&s, "disk b: cannot write", EIO); /* also when the disk is well again */
    assert_int_equal(s.gate.order, wrote);
    standby_close(&s);

    standby_open(&s, 1 << 20);
    s.disks[1]->fail_flush = EIO;
    put(&s, 1, 512);
    assert_error(&s, "disk b: cannot flush", EIO);
    standby_close(&s);
}

/* Acknowledged, and waiting when an image fails: those epochs are in the journal, none of them in place, before drain() says so. */
static void test_what_waits_when_an_image_fails(void **state)
{
    struct standby s;

    (void)state;
    standby_open(&s, 1 << 20);
    gate_set_shut(&s.gate, true);
    put(&s, 1, 512);
    gate_wait_for_one(&s.gate);
    for (uint64_t i = 2; i <= 20; i++)
        put(&s, i, 3000);
    s.disks[0]->fail_write = EIO;
    gate_set_shut(&s.gate, false);
    assert_error(&s, "disk a: cannot write", EIO);
    assert_int_equal(journal_writer_durable_epoch(s.jw), 20);
    assert_int_equal(s.disks[0]->writes, 1); /* the one that failed */
    standby_close(&s);
}

struct waiter {
    struct standby *s;
    bool ok, returned;
};

static void wait_for_second(void *arg)
{
    struct waiter *w = arg;

    w->ok = journal_writer_wait_in_place(w->s->jw, 2, NULL);
    task_lock(&w->s->gate.lock);
    w->returned = true;
    task_unlock(&w->s->gate.lock);
}

static bool has_returned(struct waiter *w)
{
    bool returned;

    task_lock(&w->s->gate.lock);
    returned = w->returned;
    task_unlock(&w->s->gate.lock);
    return returned;
}

/* Also for one that is put only later, and not for what comes behind it. */
static void test_wait_in_place(void **state)
{
    struct standby s;
    struct waiter w = {.s = &s};
    Task *t;

    (void)state;
    standby_open(&s, 1 << 20);
    assert_true(journal_writer_wait_in_place(s.jw, 0, NULL));
    gate_set_shut(&s.gate, true);
    put(&s, 1, 512);
    gate_wait_for_one(&s.gate);
    t = task_start("waiter", wait_for_second, &w, NULL);
    gate_set_shut(&s.gate, false);
    assert_true(journal_writer_wait_in_place(s.jw, 1, NULL));
    assert_in_place(&s, 1);
    task_sleep_until(clock_now() + 20 * NS_PER_MS);
    assert_false(has_returned(&w));
    put(&s, 2, 0);
    task_join(t);
    assert_true(w.ok);
    put(&s, 3, 512);
    assert_true(journal_writer_wait_in_place(s.jw, 3, NULL));
    assert_in_place(&s, 3);
    assert_true(journal_writer_wait_in_place(s.jw, 2, NULL));
    standby_close(&s);
}

/* What cannot get there is not waited for. */
static void test_wait_in_place_fails(void **state)
{
    struct standby s;
    Error *err = NULL;

    (void)state;
    standby_open(&s, 1 << 20);
    s.disks[1]->fail_write = EIO;
    put(&s, 1, 512);
    put(&s, 2, 512);
    assert_false(journal_writer_wait_in_place(s.jw, 2, &err));
    assert_int_equal(error_get_errno(err), EIO);
    error_free(err);
    standby_close(&s);
}

/* A put that waits for room hears of the error. */
static void test_error_ends_a_wait(void **state)
{
    struct standby s;
    Error *err = NULL;
    uint64_t i = 1;

    (void)state;
    standby_open(&s, 8192);
    s.journal->fail_flush = EIO;
    while (journal_writer_put(s.jw, epoch(i, 4096), &err))
        assert_true(++i < 1000);
    assert_int_equal(error_get_errno(err), EIO);
    error_free(err);
    standby_close(&s);
}

static void test_an_epoch_too_large(void **state)
{
    struct standby s;
    struct epoch_writes *w = epoch_writes_new();

    (void)state;
    standby_open(&s, 1 << 20);
    w->epoch = 1;
    for (int i = 0; i < 2; i++) {
        struct disk_write *d = disk_write_new(DISK_WRITE_DATA, i, 0, DISK_SIZE, DISK_SIZE);

        memset(d->data, 1, d->data_size);
        epoch_writes_add(w, d);
    }
    assert_true(journal_writer_put(s.jw, w, NULL));
    assert_error(&s, "a larger journal is needed", 0);
    standby_close(&s);
}

static void test_a_difference_is_found(void **state)
{
    struct standby s;
    struct epoch_writes *w = epoch_writes_new();
    struct disk_write *d = disk_write_new(DISK_WRITE_VERIFY, 1, 0, DISK_SIZE, DISK_HASH_SIZE);

    (void)state;
    memset(d->data, 0, d->data_size); /* no SHA-256 of anything */
    w->epoch = 2;
    epoch_writes_add(w, d);
    standby_open(&s, 1 << 20);
    put(&s, 1, 512);
    assert_true(journal_writer_put(s.jw, w, NULL));
    assert_error(&s, "disk b: 65536 bytes at 0 differ from the primary's after epoch 2", 0);
    standby_close(&s);
}

static void test_images_must_fit(void **state)
{
    struct journal_identity identity = {.pair = "pair", .disk_count = 1, .disks = {{"a", 4096}}};
    struct memory_block *m = memory_block_new("journal", JOURNAL_SIZE), *image = memory_block_new("a", 4095);
    Block *images[1] = {&image->block};
    Error *err = NULL;

    (void)state;
    assert_null(journal_writer_new(journal_create(&m->block, &identity, NULL), images, 1, &err));
    assert_non_null(strstr(error_get_pretty(err), "disk a: the image has 4095 bytes"));
    error_free(err);
    block_close(&image->block);
}

/* What waits is not written; free() does not wait for it. */
static void test_free_with_a_queue(void **state)
{
    struct standby s;

    (void)state;
    standby_open(&s, 1 << 20);
    for (uint64_t i = 1; i <= 100; i++)
        put(&s, i, 512);
    standby_close(&s);
    journal_writer_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drained_is_in_place),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_epochs_without_writes),
        cmocka_unit_test(test_images_are_flushed_meanwhile),
        cmocka_unit_test(test_images_are_flushed_after_a_while),
        cmocka_unit_test(test_errors_are_kept),
        cmocka_unit_test(test_what_waits_when_an_image_fails),
        cmocka_unit_test(test_wait_in_place),
        cmocka_unit_test(test_wait_in_place_fails),
        cmocka_unit_test(test_error_ends_a_wait),
        cmocka_unit_test(test_an_epoch_too_large),
        cmocka_unit_test(test_a_difference_is_found),
        cmocka_unit_test(test_images_must_fit),
        cmocka_unit_test(test_free_with_a_queue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
