/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/block.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/task.h"

const char *block_op_name(enum block_op op)
{
    static const char *const names[] = {
        [BLOCK_READ] = "read", [BLOCK_WRITE] = "write", [BLOCK_ZERO] = "zero", [BLOCK_FLUSH] = "flush"};

    return names[op];
}

static int check(const Block *b, const struct block_request *r)
{
    if (r->op == BLOCK_FLUSH)
        return 0;
    if (r->offset > b->size || r->size > b->size - r->offset)
        return EINVAL;
    if (r->op != BLOCK_ZERO && r->size > BLOCK_SIZE_MAX)
        return EINVAL;
    return r->op != BLOCK_READ && b->readonly ? EROFS : 0;
}

/* false: r is over, with *ret_error. */
static bool begin(const Block *b, struct block_request *r, int *ret_error)
{
    *ret_error = check(b, r);
    r->progress = 0;
    r->stage = 0;
    return !*ret_error && (r->op == BLOCK_FLUSH || r->size);
}

static void enter(Block *b, struct block_request *r)
{
    int error;

    if (begin(b, r, &error))
        b->ops->submit(b, r);
    else
        block_complete(r, error);
}

void block_submit(Block *b, struct block_request *r)
{
    r->error = 0;
    r->depth = 0;
    enter(b, r);
}

void block_init_filter(Block *b, const struct block_ops *ops, Block *next)
{
    *b = (Block){.ops = ops, .next = next, .size = next->size, .readonly = next->readonly};
    memcpy(b->id, next->id, sizeof(b->id));
}

void block_pass(Block *b, struct block_request *r, void (*fn)(Block *b, struct block_request *r))
{
    if (fn) {
        assert(r->depth < BLOCK_DEPTH_MAX);
        r->waiting[r->depth].fn = fn;
        r->waiting[r->depth].block = b;
        r->depth++;
    }
    enter(b->next, r);
}

void block_complete(struct block_request *r, int error)
{
    r->error = error;
    if (!r->depth) {
        r->done(r);
        return;
    }
    r->depth--;
    r->waiting[r->depth].fn(r->waiting[r->depth].block, r);
}

void block_drain(Block *b)
{
    for (; b; b = b->next) {
        if (b->ops->drain)
            b->ops->drain(b);
    }
}

void block_close(Block *b)
{
    while (b) {
        Block *next = b->next;

        b->ops->close(b);
        b = next;
    }
}

/* --- waiting --- */

struct waiter {
    struct task_mutex lock;
    struct task_cond changed;
    bool done;
};

static void wake_waiter(struct block_request *r)
{
    struct waiter *w = r->opaque;

    task_lock(&w->lock);
    w->done = true;
    task_broadcast(&w->changed);
    task_unlock(&w->lock);
}

static int submit_and_wait(Block *b, struct block_request *r)
{
    struct waiter w = {.done = false};

    task_mutex_init(&w.lock);
    task_cond_init(&w.changed);
    r->done = wake_waiter;
    r->opaque = &w;
    block_submit(b, r);
    task_lock(&w.lock);
    while (!w.done)
        task_wait(&w.changed, &w.lock);
    task_unlock(&w.lock);
    task_cond_destroy(&w.changed);
    task_mutex_destroy(&w.lock);
    return r->error;
}

/* 0 or an errno. */
static int carry_out(Block *b, struct block_request *r)
{
    int error;

    if (!b->ops->carry_out)
        return submit_and_wait(b, r);
    return begin(b, r, &error) ? b->ops->carry_out(b, r) : error;
}

static bool transfer(Block *b, enum block_op op, uint64_t offset, char *data, size_t n, Error **errp)
{
    while (n) {
        size_t part = n < BLOCK_SIZE_MAX ? n : BLOCK_SIZE_MAX;
        struct block_request r = {.op = op, .offset = offset, .size = part, .data = data};
        int error = carry_out(b, &r);

        if (error) {
            error_setg_errno(errp, error, "disk %s: cannot %s %zu bytes at %llu", b->id, block_op_name(op),
                             part, (unsigned long long)offset);
            return false;
        }
        offset += part;
        data += part;
        n -= part;
    }
    return true;
}

bool block_read(Block *b, uint64_t offset, void *buf, size_t n, Error **errp)
{
    return transfer(b, BLOCK_READ, offset, buf, n, errp);
}

bool block_write(Block *b, uint64_t offset, const void *buf, size_t n, Error **errp)
{
    return transfer(b, BLOCK_WRITE, offset, (char *)buf, n, errp);
}

bool block_zero(Block *b, uint64_t offset, uint64_t n, bool unmap, Error **errp)
{
    struct block_request r = {.op = BLOCK_ZERO, .unmap = unmap, .offset = offset, .size = n};
    int error = carry_out(b, &r);

    if (error)
        error_setg_errno(errp, error, "disk %s: cannot zero %llu bytes at %llu", b->id, (unsigned long long)n,
                         (unsigned long long)offset);
    return !error;
}

bool block_flush(Block *b, Error **errp)
{
    struct block_request r = {.op = BLOCK_FLUSH};
    int error = carry_out(b, &r);

    if (error)
        error_setg_errno(errp, error, "disk %s: cannot flush it", b->id);
    return !error;
}
