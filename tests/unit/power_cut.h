/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power cut: disks that write down what is done to them, and what could be left of them if the power had gone
 * after each operation.
 *
 *     struct power_cut p = {.rng = sim_rng_make(seed, 1)};
 *     Block *b = power_cut_add(&p, "root", size);         // on fibers: a task carries requests out, late and
 *     ...                                                 // in any order
 *     block_close(b);                                     // p keeps what was written
 *     for (k = 0; k <= p.count; k++) {
 *         power_cut_at(&p, k);                            // forwards only
 *         power_cut_leave(&p, disk, POWER_CUT_ANY, out);  // one of the contents that the disk may have now
 *     }
 *     power_cut_free(&p);
 *
 * A write is safe when a flush of its disk was carried out that had been submitted after the write was
 * complete. Of the others each may be there, or not, or some of its sectors, or a sector
 * in part; and of two that overlap either
 * may have been the last.
 */
#ifndef TESTS_POWER_CUT_H
#define TESTS_POWER_CUT_H

#include "../sim/sim_random.h"
#include "base/task.h"
#include "block/block.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POWER_CUT_DISKS  4
#define POWER_CUT_SECTOR 512u

enum power_cut_fate { POWER_CUT_ALL, POWER_CUT_NONE, POWER_CUT_ANY };

struct power_cut_op {
    unsigned disk;
    enum block_op op;
    uint64_t offset, size;
    uint8_t *data;   /* BLOCK_WRITE */
    size_t covers;   /* BLOCK_FLUSH: the operations that were complete when it was submitted */
    uint64_t before; /* what p->told() said just before it */
};

struct power_cut;

struct power_cut_disk {
    Block block;
    struct power_cut *p;
    uint8_t *now;    /* while it runs */
    uint8_t *stable; /* at the cut: what is safe */
    size_t safe;     /* of its operations those before this one */
    /* requests under way; request->progress is a flush's covers */
    struct task_mutex lock;
    struct task_cond changed;
    struct block_request *first;
    unsigned under_way;
    bool closing;
    Task *task;
};

struct power_cut {
    struct sim_rng rng;
    uint64_t (*told)(void *opaque); /* NULL: 0 */
    void *opaque;
    struct power_cut_op *ops;
    size_t count, room, cut;
    struct power_cut_disk *disks[POWER_CUT_DISKS];
    unsigned disk_count;
};

/* --- recording --- */

static inline struct power_cut_op *power_cut_note(struct power_cut_disk *d, const struct block_request *r)
{
    struct power_cut *p = d->p;
    uint64_t before = p->told ? p->told(p->opaque) : 0;
    struct power_cut_op *op;

    if (p->count == p->room) {
        p->room = p->room ? 2 * p->room : 256;
        p->ops = realloc(p->ops, p->room * sizeof(*p->ops));
    }
    op = &p->ops[p->count++];
    *op = (struct power_cut_op){.op = r->op, .offset = r->offset, .size = r->size, .before = before};
    while (p->disks[op->disk] != d)
        op->disk++;
    return op;
}

static inline void power_cut_carry_out(struct power_cut_disk *d, struct block_request *r)
{
    struct power_cut_op *op;

    if (r->op == BLOCK_READ) {
        memcpy(r->data, d->now + r->offset, r->size);
        return;
    }
    op = power_cut_note(d, r);
    if (r->op == BLOCK_FLUSH) {
        op->covers = r->progress;
    } else if (r->op == BLOCK_ZERO) {
        memset(d->now + r->offset, 0, r->size);
    } else {
        op->data = malloc(r->size);
        memcpy(op->data, r->data, r->size);
        memcpy(d->now + r->offset, r->data, r->size);
    }
}

static inline void power_cut_submit(Block *b, struct block_request *r)
{
    struct power_cut_disk *d = (struct power_cut_disk *)b;

    task_lock(&d->lock);
    r->progress = d->p->count;
    r->next = d->first;
    d->first = r;
    d->under_way++;
    task_broadcast(&d->changed);
    task_unlock(&d->lock);
}

/* Any of those under way; NULL: the end. */
static inline struct block_request *power_cut_take(struct power_cut_disk *d)
{
    struct block_request *r = NULL, **at = &d->first;

    task_lock(&d->lock);
    while (!d->first && !d->closing)
        task_wait(&d->changed, &d->lock);
    if (d->first) {
        for (uint64_t i = sim_rng_below(&d->p->rng, d->under_way); i; i--)
            at = &(*at)->next;
        r = *at;
        *at = r->next;
        d->under_way--;
    }
    task_unlock(&d->lock);
    return r;
}

static inline void power_cut_run(void *arg)
{
    struct power_cut_disk *d = arg;
    struct block_request *r;

    while ((r = power_cut_take(d))) {
        power_cut_carry_out(d, r);
        block_complete(r, 0);
        if (sim_rng_one_in(&d->p->rng, 4))
            task_sleep_until(clock_now() + sim_rng_range(&d->p->rng, 0, NS_PER_MS));
    }
}

static inline void power_cut_close(Block *b)
{
    struct power_cut_disk *d = (struct power_cut_disk *)b;

    task_lock(&d->lock);
    d->closing = true;
    task_broadcast(&d->changed);
    task_unlock(&d->lock);
    task_join(d->task);
    task_cond_destroy(&d->changed);
    task_mutex_destroy(&d->lock);
}

static const struct block_ops power_cut_ops = {
    .name = "power cut", .submit = power_cut_submit, .close = power_cut_close};

static inline Block *power_cut_add(struct power_cut *p, const char *id, uint64_t size)
{
    struct power_cut_disk *d = calloc(1, sizeof(*d));

    p->disks[p->disk_count++] = d;
    d->p = p;
    d->block = (Block){.ops = &power_cut_ops, .size = size};
    snprintf(d->block.id, sizeof(d->block.id), "%s", id);
    d->now = calloc(1, size);
    d->stable = calloc(1, size);
    task_mutex_init(&d->lock);
    task_cond_init(&d->changed);
    d->task = task_start(id, power_cut_run, d, NULL);
    return &d->block;
}

/* --- cutting --- */

/* sectors: a random choice of them, some only up to their middle. */
static inline void power_cut_apply(struct power_cut *p, const struct power_cut_op *op, uint8_t *bytes,
                                   bool sectors)
{
    uint64_t end = op->offset + op->size, next, n;

    for (uint64_t at = op->offset; op->op != BLOCK_FLUSH && at < end; at = next) {
        next = (at / POWER_CUT_SECTOR + 1) * POWER_CUT_SECTOR;
        if (next > end)
            next = end;
        n = next - at;
        if (sectors && sim_rng_one_in(&p->rng, 2))
            n = sim_rng_one_in(&p->rng, 4) ? sim_rng_below(&p->rng, 1 + (n >> sim_rng_below(&p->rng, 6))) : 0;
        if (op->data)
            memcpy(bytes + at, op->data + (at - op->offset), n);
        else
            memset(bytes + at, 0, n);
    }
}

static inline void power_cut_make_safe(struct power_cut *p, struct power_cut_disk *d, size_t end)
{
    for (; d->safe < end; d->safe++)
        if (p->disks[p->ops[d->safe].disk] == d)
            power_cut_apply(p, &p->ops[d->safe], d->stable, false);
}

/* The power goes after so many operations. */
static inline void power_cut_at(struct power_cut *p, size_t cut)
{
    for (; p->cut < cut; p->cut++)
        if (p->ops[p->cut].op == BLOCK_FLUSH)
            power_cut_make_safe(p, p->disks[p->ops[p->cut].disk], p->ops[p->cut].covers);
}

/* The largest thing that had been told when the power went. end: what is told after the last operation. */
static inline uint64_t power_cut_told(const struct power_cut *p, uint64_t end)
{
    return p->cut < p->count ? p->ops[p->cut].before : end;
}

static inline void power_cut_leave(struct power_cut *p, unsigned disk, enum power_cut_fate fate, uint8_t *out)
{
    struct power_cut_disk *d = p->disks[disk];
    size_t unsafe[1000], n = 0;

    memcpy(out, d->stable, d->block.size);
    for (size_t i = d->safe; i < p->cut && fate != POWER_CUT_NONE; i++)
        if (p->ops[i].disk == disk && p->ops[i].op != BLOCK_FLUSH) {
            assert(n < sizeof(unsafe) / sizeof(unsafe[0]));
            unsafe[n++] = i;
        }
    for (size_t i = 0; i < n; i++) { /* in any order */
        size_t other = fate == POWER_CUT_ANY ? i + sim_rng_below(&p->rng, n - i) : i, op = unsafe[other];

        unsafe[other] = unsafe[i];
        if (fate == POWER_CUT_ALL || sim_rng_one_in(&p->rng, 3))
            power_cut_apply(p, &p->ops[op], out, false);
        else if (sim_rng_one_in(&p->rng, 2))
            power_cut_apply(p, &p->ops[op], out, true);
    }
}

static inline void power_cut_free(struct power_cut *p)
{
    for (size_t i = 0; i < p->count; i++)
        free(p->ops[i].data);
    free(p->ops);
    for (unsigned i = 0; i < p->disk_count; i++) {
        free(p->disks[i]->now);
        free(p->disks[i]->stable);
        free(p->disks[i]);
    }
}

#endif
