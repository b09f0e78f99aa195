/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Gated block: a disk in memory (memory_block.h) for several threads at once, that can be stopped and can
 * fail. All disks of one gate stand still while it is shut, and share its lock and its count of operations.
 *
 *     struct gate gate;
 *     gate_init(&gate);
 *     struct gated_block *d = gated_block_new(&gate, "root", 65536);
 *     gate_set_shut(&gate, true);
 *     ...                                  another thread writes to &d->block, and waits
 *     gate_wait_for_one(&gate);
 *     gate_set_shut(&gate, false);
 *     block_close(&d->block);
 *     gate_destroy(&gate);
 */
#ifndef TESTS_GATED_BLOCK_H
#define TESTS_GATED_BLOCK_H

#include "base/task.h"
#include "memory_block.h"

struct gate {
    struct task_mutex lock;
    struct task_cond changed;
    bool shut;
    bool reads_pass; /* also while it is shut */
    unsigned waiting;
    uint64_t order; /* operations on all disks */
};

struct gated_block {
    Block block;
    struct memory_block *memory;
    struct gate *gate; /* shared */
    int fail_read, fail_write, fail_flush;
    /* the order at the last */
    uint64_t wrote, flushed;
    unsigned writes, flushes;
};

static inline void gate_init(struct gate *g)
{
    *g = (struct gate){0};
    task_mutex_init(&g->lock);
    task_cond_init(&g->changed);
}

static inline void gate_destroy(struct gate *g)
{
    task_cond_destroy(&g->changed);
    task_mutex_destroy(&g->lock);
}

static inline void gate_set_shut(struct gate *g, bool shut)
{
    task_lock(&g->lock);
    g->shut = shut;
    task_broadcast(&g->changed);
    task_unlock(&g->lock);
}

static inline void gate_wait_for_one(struct gate *g)
{
    task_lock(&g->lock);
    while (!g->waiting)
        task_wait(&g->changed, &g->lock);
    task_unlock(&g->lock);
}

static inline int gated_block_carry_out(struct gated_block *d, struct block_request *r)
{
    if (r->op == BLOCK_FLUSH) {
        d->flushed = ++d->gate->order;
        d->flushes++;
        return d->fail_flush;
    }
    if (r->op == BLOCK_READ && d->fail_read)
        return d->fail_read;
    if (r->op != BLOCK_READ) {
        d->wrote = ++d->gate->order;
        d->writes++;
        if (d->fail_write)
            return d->fail_write;
    }
    memory_block_carry_out(d->memory, r);
    return 0;
}

static inline void gated_block_submit(Block *b, struct block_request *r)
{
    struct gated_block *d = (struct gated_block *)b;
    struct gate *g = d->gate;
    int error;

    task_lock(&g->lock);
    g->waiting++;
    task_broadcast(&g->changed);
    while (g->shut && !(g->reads_pass && r->op == BLOCK_READ))
        task_wait(&g->changed, &g->lock);
    g->waiting--;
    error = gated_block_carry_out(d, r);
    task_unlock(&g->lock);
    block_complete(r, error);
}

static inline void gated_block_close(Block *b)
{
    struct gated_block *d = (struct gated_block *)b;

    block_close(&d->memory->block);
    free(d);
}

static const struct block_ops gated_block_ops = {
    .name = "gated", .submit = gated_block_submit, .close = gated_block_close};

static inline struct gated_block *gated_block_new(struct gate *g, const char *id, uint64_t size)
{
    struct gated_block *d = calloc(1, sizeof(*d));

    assert(d);
    d->memory = memory_block_new(id, size);
    d->block = d->memory->block;
    d->block.ops = &gated_block_ops;
    d->gate = g;
    return d;
}

#endif
