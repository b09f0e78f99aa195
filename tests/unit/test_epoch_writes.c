/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An epoch's writes: gathered in memory, applied to disks that carry out what is under way in any order.
 */
#include "base/task.h"
#include "block/epoch_writes.h"
#include "memory_block.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define SIZE 65536u

/* --- a disk whose requests wait a moment and are then carried out in the opposite order --- */

struct late_block {
    Block block;
    struct memory_block *memory;
    struct task_mutex lock;
    struct task_cond changed;
    struct block_request *waiting; /* the newest first */
    unsigned count, most;
    bool overlap, ending;
    int error; /* for the next one that is carried out */
    Task *task;
};

static bool overlap(const struct block_request *a, const struct block_request *b)
{
    return a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

static void late_submit(Block *b, struct block_request *r)
{
    struct late_block *l = (struct late_block *)b;

    task_lock(&l->lock);
    for (struct block_request *other = l->waiting; other; other = other->next)
        l->overlap |= overlap(other, r);
    r->next = l->waiting;
    l->waiting = r;
    if (++l->count > l->most)
        l->most = l->count;
    task_broadcast(&l->changed);
    task_unlock(&l->lock);
}

static struct block_request *late_take(struct late_block *l)
{
    struct block_request *r;

    task_lock(&l->lock);
    while (!l->waiting && !l->ending)
        task_wait(&l->changed, &l->lock);
    r = l->waiting;
    if (r) {
        l->waiting = r->next;
        l->count--;
    }
    task_unlock(&l->lock);
    return r;
}

static void late_run(void *arg)
{
    struct late_block *l = arg;
    struct block_request *r;

    for (unsigned n = 0; (r = late_take(l)); n++) {
        int error = l->error;

        if (n % 8 == 0)
            task_sleep_until(clock_now() + NS_PER_MS / 10); /* others gather */
        l->error = 0;
        if (!error)
            memory_block_carry_out(l->memory, r);
        block_complete(r, error);
    }
}

static void late_close(Block *b)
{
    struct late_block *l = (struct late_block *)b;

    task_lock(&l->lock);
    l->ending = true;
    task_broadcast(&l->changed);
    task_unlock(&l->lock);
    task_join(l->task);
    task_cond_destroy(&l->changed);
    task_mutex_destroy(&l->lock);
    block_close(&l->memory->block);
    free(l);
}

static const struct block_ops late_ops = {.name = "late", .submit = late_submit, .close = late_close};

static struct late_block *late_new(const char *id)
{
    struct late_block *l = calloc(1, sizeof(*l));

    l->memory = memory_block_new(id, SIZE);
    l->block = l->memory->block;
    l->block.ops = &late_ops;
    task_mutex_init(&l->lock);
    task_cond_init(&l->changed);
    l->task = task_start("late", late_run, l, NULL);
    assert_non_null(l->task);
    return l;
}

/* --- epochs --- */

static void add(struct epoch_writes *w, enum disk_write_kind kind, uint32_t disk, uint64_t offset,
                uint64_t size, int fill)
{
    struct disk_write *d =
        disk_write_new(kind, disk, offset, size, kind == DISK_WRITE_DATA ? (uint32_t)size : 0);

    assert_non_null(d);
    memset(d->data, fill, d->data_size);
    epoch_writes_add(w, d);
}

static void add_verify(struct epoch_writes *w, uint32_t disk, uint64_t offset, const void *expected, size_t n)
{
    struct disk_write *d = disk_write_new(DISK_WRITE_VERIFY, disk, offset, n, DISK_HASH_SIZE);

    assert_non_null(d);
    assert_int_equal(gnutls_hash_fast(GNUTLS_DIG_SHA256, expected, n, d->data), 0);
    epoch_writes_add(w, d);
}

static struct epoch_writes *epoch(uint64_t number)
{
    struct epoch_writes *w = epoch_writes_new();

    assert_non_null(w);
    w->epoch = number;
    return w;
}

static void assert_fails(const struct epoch_writes *w, Block *const *images, uint32_t count, const char *text)
{
    Error *err = NULL;

    assert_false(epoch_writes_apply(w, images, count, false, &err));
    if (!strstr(error_get_pretty(err), text))
        fail_msg("\"%s\" instead of \"%s\"", error_get_pretty(err), text);
    error_free(err);
    assert_false(epoch_writes_apply(w, images, count, false, NULL));
}

static void test_it_counts(void **state)
{
    struct epoch_writes *w = epoch(1);
    uint64_t before = w->bytes;

    (void)state;
    assert_true(before > 0);
    add(w, DISK_WRITE_DATA, 0, 0, 1000, 1);
    add(w, DISK_WRITE_ZERO, 0, 0, SIZE, 0);
    assert_int_equal(w->count, 2);
    assert_in_range(w->bytes, before + 1000, before + 1000 + 2 * sizeof(struct disk_write));
    assert_int_equal(w->first->size, 1000);
    assert_int_equal(w->first->next->size, SIZE);
    assert_null(w->first->next->next);
    epoch_writes_free(w);
    epoch_writes_free(NULL);
}

/* The last write to each place counts, although the disk would carry out what is under way backwards. */
static void test_order_is_kept(void **state)
{
    struct late_block *l[2] = {late_new("a"), late_new("b")};
    Block *images[2] = {&l[0]->block, &l[1]->block};
    struct epoch_writes *w = epoch(1);
    uint8_t expected[2][SIZE] = {{0}};
    Error *err = NULL;

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        unsigned disk = i % 3 == 0, size = 1 + i * 31 % 700, offset = i * 7919 % (SIZE - 700);
        enum disk_write_kind kind = i % 11 ? DISK_WRITE_DATA : i % 2 ? DISK_WRITE_ZERO : DISK_WRITE_UNMAP;

        add(w, kind, disk, offset, size, i);
        memset(expected[disk] + offset, kind == DISK_WRITE_DATA ? (int)i : 0, size);
        if (i % 100 == 99)
            add_verify(w, disk, 0, expected[disk], SIZE);
    }
    assert_true(epoch_writes_apply(w, images, 2, false, &err));
    epoch_writes_free(w);
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(l[i]->memory->bytes, expected[i], SIZE);
        assert_false(l[i]->overlap);
        assert_int_equal(l[i]->memory->seen[BLOCK_FLUSH], 0);
        assert_int_equal(l[i]->most, 1);
        block_close(&l[i]->block);
    }
}

static void test_first_error_of_a_disk(void **state)
{
    struct late_block *l = late_new("root");
    Block *images[1] = {&l->block};
    struct epoch_writes *w = epoch(5);
    Error *err = NULL;

    (void)state;
    add(w, DISK_WRITE_DATA, 0, 0, 512, 1);
    add(w, DISK_WRITE_DATA, 0, 256, 512, 1);
    l->error = ENOSPC;
    assert_false(epoch_writes_apply(w, images, 1, false, &err));
    assert_int_equal(error_get_errno(err), ENOSPC);
    assert_non_null(strstr(error_get_pretty(err), "disk root: cannot write 512 bytes at 0"));
    assert_int_equal(l->memory->seen[BLOCK_WRITE], 0); /* the second one did not go out */
    error_free(err);
    epoch_writes_free(w);
    block_close(&l->block);
}

static void test_verify(void **state)
{
    struct memory_block *m = memory_block_new("root", SIZE);
    Block *images[1] = {&m->block};
    uint8_t expected[8192] = {0};
    struct epoch_writes *w = epoch(7);

    (void)state;
    memset(expected + 4096, 3, 512);
    add(w, DISK_WRITE_DATA, 0, 8192, 512, 3);
    add_verify(w, 0, 4096, expected, sizeof(expected));
    assert_true(epoch_writes_apply(w, images, 1, false, NULL));
    expected[0] = 1;
    add_verify(w, 0, 4096, expected, sizeof(expected));
    assert_true(epoch_writes_apply(w, images, 1, true, NULL)); /* not when replaying */
    assert_fails(w, images, 1, "disk root: 8192 bytes at 4096 differ from the primary's after epoch 7");
    epoch_writes_free(w);
    block_close(&m->block);
}

/* Of a journal of two disks only one is at hand. */
static void test_an_absent_disk_is_passed_over(void **state)
{
    struct memory_block *m = memory_block_new("b", SIZE);
    Block *images[2] = {NULL, &m->block};
    struct epoch_writes *w = epoch(1);

    (void)state;
    add(w, DISK_WRITE_DATA, 0, UINT64_MAX - 512, 512, 1);
    add(w, DISK_WRITE_DATA, 1, 0, 512, 2);
    assert_true(epoch_writes_apply(w, images, 2, true, NULL));
    assert_int_equal(m->bytes[0], 2);
    assert_int_equal(m->seen[BLOCK_WRITE], 1);
    epoch_writes_free(w);
    block_close(&m->block);
}

static void test_hostile_writes(void **state)
{
    struct memory_block *m = memory_block_new("root", SIZE);
    Block *images[1] = {&m->block};
    const struct {
        struct disk_write write;
        const char *text;
    } bad[] = {
        {{.kind = DISK_WRITE_ZERO, .disk = 1}, "disk number 1, of 1 disks"},
        {{.kind = DISK_WRITE_ZERO, .offset = SIZE, .size = 1}, "beyond its end"},
        {{.kind = DISK_WRITE_ZERO, .offset = UINT64_MAX, .size = 2}, "beyond its end"},
        {{.kind = DISK_WRITE_UNMAP, .offset = 1, .size = UINT64_MAX}, "beyond its end"},
        {{.kind = DISK_WRITE_DATA, .size = 9}, "9 bytes comes with 8 bytes of data"},
        {{.kind = DISK_WRITE_VERIFY, .size = 8}, "8 bytes comes with 8 bytes of data"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct epoch_writes *w = epoch(1);
        struct disk_write *d =
            disk_write_new(bad[i].write.kind, bad[i].write.disk, bad[i].write.offset, bad[i].write.size, 8);

        memset(d->data, 0, 8);
        epoch_writes_add(w, d);
        assert_fails(w, images, 1, bad[i].text);
        epoch_writes_free(w);
    }
    assert_int_equal(m->seen[BLOCK_WRITE] + m->seen[BLOCK_ZERO], 0);
    block_close(&m->block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_counts),
        cmocka_unit_test(test_order_is_kept),
        cmocka_unit_test(test_first_error_of_a_disk),
        cmocka_unit_test(test_verify),
        cmocka_unit_test(test_an_absent_disk_is_passed_over),
        cmocka_unit_test(test_hostile_writes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
