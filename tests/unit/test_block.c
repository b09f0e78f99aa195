/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The chain: what reaches a driver, who sees a completion and in which order, the helpers that wait.
 */
#include "memory_block.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "base/task.h"

#define SIZE 4096u

/* A filter that notes what it sees in a common trace, and may change the error. */
struct filter {
    Block block;
    char name;
    int error; /* 0: as it is */
    struct block_request *kept;
    bool keep;
};

static char trace[64];

static void note(char c)
{
    size_t n = strlen(trace);

    assert_true(n + 1 < sizeof(trace));
    trace[n] = c;
    trace[n + 1] = 0;
}

static void filter_done(Block *b, struct block_request *r)
{
    struct filter *f = (struct filter *)b;

    note(f->name);
    if (f->keep) {
        f->kept = r;
        return;
    }
    block_complete(r, f->error ? f->error : r->error);
}

static void filter_submit(Block *b, struct block_request *r)
{
    block_pass(b, r, ((struct filter *)b)->name == '-' ? NULL : filter_done);
}

static void filter_drain(Block *b)
{
    struct filter *f = (struct filter *)b;
    struct block_request *r = f->kept;

    f->keep = false;
    f->kept = NULL;
    if (r)
        block_complete(r, r->error);
}

static void filter_close(Block *b)
{
    note('c');
    free(b);
}

static const struct block_ops filter_ops = {
    .name = "filter", .submit = filter_submit, .drain = filter_drain, .close = filter_close};

static struct filter *filter_new(char name, Block *next)
{
    struct filter *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    block_init_filter(&f->block, &filter_ops, next);
    f->name = name;
    return f;
}

static int clear(void **state)
{
    (void)state;
    trace[0] = 0;
    return 0;
}

static void count_done(struct block_request *r)
{
    note('d');
    ++*(int *)r->opaque;
}

static int submit(Block *b, enum block_op op, uint64_t offset, uint64_t size, int *done)
{
    static char data[SIZE];
    struct block_request r = {
        .op = op, .offset = offset, .size = size, .data = data, .done = count_done, .opaque = done};

    *done = 0;
    block_submit(b, &r);
    return r.error;
}

static void test_bounds(void **state)
{
    struct memory_block *m = memory_block_new("root", SIZE);
    Block *b = &m->block;
    int done;

    (void)state;
    for (int op = BLOCK_READ; op <= BLOCK_ZERO; op++) {
        assert_int_equal(submit(b, op, 0, SIZE, &done), 0);
        assert_int_equal(submit(b, op, SIZE - 1, 1, &done), 0);
        assert_int_equal(m->seen[op], 2);
        assert_int_equal(submit(b, op, SIZE, 0, &done), 0); /* of no bytes: done, and nobody asked */
        assert_int_equal(submit(b, op, SIZE, 1, &done), EINVAL);
        assert_int_equal(submit(b, op, 1, SIZE, &done), EINVAL);
        assert_int_equal(submit(b, op, UINT64_MAX, 2, &done), EINVAL);
        assert_int_equal(submit(b, op, 2, UINT64_MAX, &done), EINVAL);
        assert_int_equal(submit(b, op, SIZE + 1, 0, &done), EINVAL);
        assert_int_equal(done, 1);
        assert_int_equal(m->seen[op], 2);
    }
    assert_int_equal(submit(b, BLOCK_FLUSH, UINT64_MAX, UINT64_MAX, &done), 0);
    assert_int_equal(m->seen[BLOCK_FLUSH], 1);
    block_close(b);
}

static void test_largest(void **state)
{
    struct memory_block *m = memory_block_new("root", 2 * (uint64_t)BLOCK_SIZE_MAX);
    int done;

    (void)state;
    m->held = true;
    assert_int_equal(submit(&m->block, BLOCK_WRITE, 0, BLOCK_SIZE_MAX + 1, &done), EINVAL);
    assert_int_equal(submit(&m->block, BLOCK_READ, 0, BLOCK_SIZE_MAX + 1, &done), EINVAL);
    assert_int_equal(m->count, 0);
    m->held = false;
    assert_int_equal(submit(&m->block, BLOCK_ZERO, 0, 2 * (uint64_t)BLOCK_SIZE_MAX, &done), 0);
    block_close(&m->block);
}

static void test_readonly(void **state)
{
    struct memory_block *m = memory_block_new("root", SIZE);
    int done;

    (void)state;
    m->block.readonly = true;
    assert_int_equal(submit(&m->block, BLOCK_WRITE, 0, 512, &done), EROFS);
    assert_int_equal(submit(&m->block, BLOCK_ZERO, 0, 512, &done), EROFS);
    assert_int_equal(submit(&m->block, BLOCK_READ, 0, 512, &done), 0);
    assert_int_equal(submit(&m->block, BLOCK_FLUSH, 0, 0, &done), 0);
    block_close(&m->block);
}

/* Completions come up in the opposite order; a node that does not look is passed by; an error set on the way
 * up stays; the chain is closed from the top. */
static void test_chain(void **state)
{
    struct memory_block *m = memory_block_new("root", SIZE);
    struct filter *low = filter_new('l', &m->block), *blind = filter_new('-', &low->block);
    struct filter *top = filter_new('t', &blind->block);
    int done;

    (void)state;
    assert_string_equal(top->block.id, "root");
    assert_int_equal(top->block.size, SIZE);
    assert_int_equal(submit(&top->block, BLOCK_WRITE, 0, 512, &done), 0);
    assert_string_equal(trace, "ltd");
    low->error = EIO;
    assert_int_equal(submit(&top->block, BLOCK_WRITE, 0, 512, &done), EIO);
    top->error = ENOSPC;
    assert_int_equal(submit(&top->block, BLOCK_WRITE, 0, 512, &done), ENOSPC);
    trace[0] = 0;
    m->block.size = 256; /* became smaller than those above: the check of the lower node answers */
    low->error = top->error = 0;
    assert_int_equal(submit(&top->block, BLOCK_READ, 0, 512, &done), EINVAL);
    assert_string_equal(trace, "ltd");
    trace[0] = 0;
    block_close(&top->block);
    assert_string_equal(trace, "ccc");
}

static void test_drain(void **state)
{
    struct memory_block *m = memory_block_new("root", SIZE);
    struct filter *low = filter_new('l', &m->block), *top = filter_new('t', &low->block);
    int done = 0;
    struct block_request r[2];

    (void)state;
    top->keep = true;
    for (int i = 0; i < 2; i++) {
        r[i] = (struct block_request){.op = BLOCK_FLUSH, .done = count_done, .opaque = &done};
        block_submit(&top->block, &r[i]);
        m->held = true;
    }
    assert_int_equal(done, 0); /* the first is in the filter, the second at the end of the chain */
    assert_int_equal(m->count, 1);
    block_drain(&top->block);
    assert_int_equal(done, 2);
    block_close(&top->block);
    block_close(NULL);
}

static void test_helpers(void **state)
{
    struct memory_block *m = memory_block_new("root", SIZE);
    Error *err = NULL;
    char buf[16];

    (void)state;
    assert_true(block_write(&m->block, 100, "sixteen letters", 16, NULL));
    assert_true(block_read(&m->block, 100, buf, 16, NULL));
    assert_string_equal(buf, "sixteen letters");
    assert_true(block_zero(&m->block, 100, 3, true, NULL));
    assert_memory_equal(m->bytes + 100, "\0\0\0teen", 7);
    assert_true(block_flush(&m->block, NULL));
    assert_int_equal(m->seen[BLOCK_FLUSH], 1);
    assert_false(block_write(&m->block, SIZE, buf, 16, &err));
    assert_string_equal(error_get_pretty(err), "disk root: cannot write 16 bytes at 4096: Invalid argument");
    assert_int_equal(error_get_errno(err), EINVAL);
    error_free(err);
    err = NULL;
    assert_false(block_zero(&m->block, 1, SIZE, false, &err));
    assert_non_null(strstr(error_get_pretty(err), "root"));
    error_free(err);
    block_close(&m->block);
}

/* More than one request may carry. */
static void test_large_helper(void **state)
{
    size_t n = BLOCK_SIZE_MAX + 4096;
    struct memory_block *m = memory_block_new("root", n);
    char *data = malloc(n);

    (void)state;
    memset(data, 'x', n);
    assert_true(block_write(&m->block, 0, data, n, NULL));
    assert_int_equal(m->seen[BLOCK_WRITE], 2);
    assert_memory_equal(m->bytes, data, n);
    free(data);
    block_close(&m->block);
}

/* The completion comes from elsewhere, later. */
static void complete_later(void *opaque)
{
    struct memory_block *m = opaque;

    while (!__atomic_load_n(&m->count, __ATOMIC_ACQUIRE))
        task_sleep_until(clock_now() + NS_PER_MS);
    memory_block_finish(m, 0, EIO);
}

static void atomic_hold(Block *b, struct block_request *r)
{
    struct memory_block *m = (struct memory_block *)b;

    m->waiting[0] = r;
    __atomic_store_n(&m->count, 1, __ATOMIC_RELEASE);
}

static void test_helper_waits(void **state)
{
    static const struct block_ops ops = {.name = "held", .submit = atomic_hold, .close = memory_block_close};
    struct memory_block *m = memory_block_new("root", SIZE);
    Error *err = NULL;
    Task *t;

    (void)state;
    m->block.ops = &ops;
    t = task_start("later", complete_later, m, NULL);
    assert_non_null(t);
    assert_false(block_flush(&m->block, &err));
    assert_int_equal(error_get_errno(err), EIO);
    error_free(err);
    task_join(t);
    block_close(&m->block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_readonly),
        cmocka_unit_test_setup(test_chain, clear),
        cmocka_unit_test_setup(test_drain, clear),
        cmocka_unit_test(test_helpers),
        cmocka_unit_test(test_large_helper),
        cmocka_unit_test(test_helper_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
