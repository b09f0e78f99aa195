/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/fault_filter.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/task.h"

#define KINDS  (BLOCK_FLUSH + 1)
#define SECTOR 512u

struct fault_filter {
    Block block;

    struct task_mutex lock; /* a leaf; protects what follows */
    struct rule {
        bool armed;
        uint64_t nth, seen;
        int error;
    } rules[KINDS];
    bool half;
    bool limited;
    uint64_t room;
    uint64_t fired, count[KINDS];
};

static const struct block_ops fault_filter_ops;

static struct fault_filter *from_block(Block *b)
{
    assert(b->ops == &fault_filter_ops);
    return (struct fault_filter *)b;
}

/* --- does it fail? lock held; 0 or an errno --- */

static int by_rule(struct rule *rule)
{
    if (!rule->armed || (rule->nth && ++rule->seen < rule->nth))
        return 0;
    rule->armed = !rule->nth;
    return rule->error;
}

static int by_limit(struct fault_filter *f, const struct block_request *r)
{
    if (!f->limited || (r->op != BLOCK_WRITE && r->op != BLOCK_ZERO))
        return 0;
    if (r->size > f->room)
        return ENOSPC;
    f->room -= r->size;
    return 0;
}

static int by_name(enum block_op op)
{
    static const char *const names[] = {[BLOCK_READ] = "block.read",
                                        [BLOCK_WRITE] = "block.write",
                                        [BLOCK_ZERO] = "block.zero",
                                        [BLOCK_FLUSH] = "block.flush"};

    return fault_point(names[op]) ? EIO : 0;
}

static int judge(struct fault_filter *f, const struct block_request *r)
{
    int error = by_rule(&f->rules[r->op]);

    if (!error)
        error = by_name(r->op);
    if (!error)
        error = by_limit(f, r);
    f->count[r->op]++;
    f->fired += error != 0;
    return error;
}

/* --- the node --- */

/* The first half of a request that fails. */
struct half {
    struct block_request part;
    struct block_request *whole;
    int error;
};

static void half_done(struct block_request *part)
{
    struct half *h = part->opaque;
    struct block_request *whole = h->whole;
    int error = h->error;

    free(h);
    block_complete(whole, error);
}

static bool submit_half(Block *b, struct block_request *r, int error)
{
    struct half *h = r->op == BLOCK_WRITE || r->op == BLOCK_ZERO ? malloc(sizeof(*h)) : NULL;

    if (!h)
        return false;
    *h = (struct half){.whole = r, .error = error};
    h->part = (struct block_request){.op = r->op,
                                     .unmap = r->unmap,
                                     .offset = r->offset,
                                     .size = r->size / 2 / SECTOR * SECTOR,
                                     .data = r->data,
                                     .done = half_done,
                                     .opaque = h};
    block_submit(b->next, &h->part);
    return true;
}

static void fault_filter_submit(Block *b, struct block_request *r)
{
    struct fault_filter *f = from_block(b);
    bool half;
    int error;

    task_lock(&f->lock);
    error = judge(f, r);
    half = f->half;
    task_unlock(&f->lock);
    if (!error)
        block_pass(b, r, NULL);
    else if (!half || !submit_half(b, r, error))
        block_complete(r, error);
}

static void fault_filter_close(Block *b)
{
    struct fault_filter *f = from_block(b);

    task_mutex_destroy(&f->lock);
    free(f);
}

static const struct block_ops fault_filter_ops = {
    .name = "fault", .submit = fault_filter_submit, .close = fault_filter_close};

Block *fault_filter_new(Block *next, Error **errp)
{
    struct fault_filter *f = calloc(1, sizeof(*f));

    if (!f) {
        error_setg(errp, "disk %s: out of memory", next->id);
        return NULL;
    }
    block_init_filter(&f->block, &fault_filter_ops, next);
    task_mutex_init(&f->lock);
    return &f->block;
}

/* --- what the test says --- */

void fault_filter_fail(Block *b, enum block_op op, uint64_t nth, int error)
{
    struct fault_filter *f = from_block(b);

    task_lock(&f->lock);
    f->rules[op] = (struct rule){.armed = true, .nth = nth, .error = error};
    f->fired = 0;
    task_unlock(&f->lock);
}

void fault_filter_fail_half(Block *b, bool half)
{
    struct fault_filter *f = from_block(b);

    task_lock(&f->lock);
    f->half = half;
    task_unlock(&f->lock);
}

void fault_filter_limit(Block *b, uint64_t bytes)
{
    struct fault_filter *f = from_block(b);

    task_lock(&f->lock);
    f->limited = true;
    f->room = bytes;
    f->fired = 0;
    task_unlock(&f->lock);
}

void fault_filter_clear(Block *b)
{
    struct fault_filter *f = from_block(b);

    task_lock(&f->lock);
    for (unsigned i = 0; i < KINDS; i++)
        f->rules[i].armed = false;
    f->half = f->limited = false;
    f->fired = 0;
    task_unlock(&f->lock);
}

uint64_t fault_filter_fired(Block *b)
{
    struct fault_filter *f = from_block(b);
    uint64_t n;

    task_lock(&f->lock);
    n = f->fired;
    task_unlock(&f->lock);
    return n;
}

uint64_t fault_filter_count(Block *b, enum block_op op)
{
    struct fault_filter *f = from_block(b);
    uint64_t n;

    task_lock(&f->lock);
    n = f->count[op];
    task_unlock(&f->lock);
    return n;
}
