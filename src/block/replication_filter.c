/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A primary's write on its way:
 *
 *     request -> room in the queue -> no overlap -> local disk -> queue -> done
 *
 * Room comes first, so that nothing holds a range while it waits for the connection. The range is given back
 * only when the write has entered the queue: the order of overlapping writes there is that on the local disk.
 *
 * A write that failed locally may have happened in part. Then what is there now is read back and forwarded in
 * its place: the two sides stay the same, and the machine hears of the error.
 */
#include "block/replication_filter.h"
#include "block/replication_group_private.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* A zeroing has no data; up to this size it gets some to be read back. */
#define READ_BACK_MAX (1u << 20)

struct forwarded {
    struct admission admission;
    struct range range;
    struct block_request request; /* to the local disk */
    struct block_request *origin;
    struct replication_filter *filter;
    struct disk_write *write; /* NULL: there is nothing to forward */
    int error;
};

static void wake_feed(ReplicationGroup *g, bool wake)
{
    if (wake)
        replication_feed_waiting(&g->feed);
}

/* Lock held. */
static bool enqueue(ReplicationGroup *g, struct disk_write *w, uint64_t admitted)
{
    if (w && g->state == GROUP_FORWARDING)
        return forward_queue_put(&g->queue, w, admitted);
    forward_queue_give_up(&g->queue, admitted);
    free(w);
    return false;
}

static void finish(struct forwarded *fw)
{
    ReplicationGroup *g = fw->filter->group;
    struct block_request *origin = fw->origin;
    struct range *ready;
    int error = fw->error;
    bool wake;

    task_lock(&g->lock);
    wake = enqueue(g, fw->write, fw->admission.bytes);
    ready = range_lock_drop(&g->ranges, &fw->range);
    if (!g->ranges.first)
        task_broadcast(&g->changed);
    task_unlock(&g->lock);
    free(fw);
    wake_feed(g, wake);
    block_complete(origin, error);
    range_lock_grant(ready);
}

/* --- the local write has failed --- */

static void nothing_to_forward(struct forwarded *fw)
{
    free(fw->write);
    fw->write = NULL;
    finish(fw);
}

static void on_read_back(struct block_request *r)
{
    struct forwarded *fw = r->opaque;

    /* Nobody can tell what is there: whoever reads it here gets an error, on the backup what was there
     * before. Both are what a failed write may leave. */
    if (r->error)
        nothing_to_forward(fw);
    else
        finish(fw);
}

/* Somewhere to read it to; NULL: it is too large, or there is no memory. */
static struct disk_write *read_back_buffer(const struct forwarded *fw)
{
    if (fw->request.op == BLOCK_WRITE)
        return fw->write;
    if (fw->request.size > READ_BACK_MAX)
        return NULL;
    return disk_write_new(DISK_WRITE_DATA, fw->range.disk, fw->range.offset, fw->range.size,
                          (uint32_t)fw->range.size);
}

static void read_back(struct forwarded *fw)
{
    Block *b = &fw->filter->block;
    struct disk_write *into = read_back_buffer(fw);
    Error *err = NULL;

    if (!into) {
        error_setg_errno(&err, fw->error,
                         "disk %s: %s %llu bytes at %llu failed, perhaps in part; the two sides may differ",
                         b->id, block_op_name(fw->request.op), (unsigned long long)fw->range.size,
                         (unsigned long long)fw->range.offset);
        group_fail(fw->filter->group, err);
        nothing_to_forward(fw);
        return;
    }
    if (into != fw->write)
        free(fw->write);
    fw->write = into;
    fw->request = (struct block_request){
        .op = BLOCK_READ,
        .offset = fw->range.offset,
        .size = fw->range.size,
        .data = into->data,
        .done = on_read_back,
        .opaque = fw,
    };
    block_submit(b->next, &fw->request);
}

/* --- the way down --- */

static void on_written(struct block_request *r)
{
    struct forwarded *fw = r->opaque;

    fw->error = r->error;
    if (r->error) {
        read_back(fw);
        return;
    }
    if (r->op == BLOCK_WRITE)
        memcpy(fw->write->data, r->data, r->size);
    finish(fw);
}

static void write_locally(struct range *range)
{
    struct forwarded *fw = (struct forwarded *)((char *)range - offsetof(struct forwarded, range));
    struct block_request *r = fw->origin;

    fw->request = (struct block_request){
        .op = r->op,
        .unmap = r->unmap,
        .offset = r->offset,
        .size = r->size,
        .data = r->data,
        .done = on_written,
        .opaque = fw,
    };
    block_submit(fw->filter->block.next, &fw->request);
}

static void lock_range(struct admission *a)
{
    struct forwarded *fw = (struct forwarded *)((char *)a - offsetof(struct forwarded, admission));
    ReplicationGroup *g = fw->filter->group;
    bool held;

    task_lock(&g->lock);
    held = range_lock_take(&g->ranges, &fw->range);
    task_unlock(&g->lock);
    if (held)
        write_locally(&fw->range);
}

static struct disk_write *make_write(const struct replication_filter *f, const struct block_request *r)
{
    if (r->op == BLOCK_WRITE)
        return disk_write_new(DISK_WRITE_DATA, f->number, r->offset, r->size, (uint32_t)r->size);
    return disk_write_new(r->unmap ? DISK_WRITE_UNMAP : DISK_WRITE_ZERO, f->number, r->offset, r->size, 0);
}

/* NULL: no memory. */
static struct forwarded *forwarded_new(struct replication_filter *f, struct block_request *r)
{
    struct forwarded *fw = malloc(sizeof(*fw));
    struct disk_write *w = make_write(f, r);

    if (!fw || !w) {
        free(fw);
        free(w);
        return NULL;
    }
    *fw = (struct forwarded){
        .admission = {.bytes = forward_queue_cost(w->data_size), .admitted = lock_range},
        .range = {.disk = f->number, .offset = r->offset, .size = r->size, .granted = write_locally},
        .origin = r,
        .filter = f,
        .write = w,
    };
    return fw;
}

/* --- without forwarding --- */

static void on_loose_done(Block *b, struct block_request *r)
{
    ReplicationGroup *g = ((struct replication_filter *)b)->group;

    task_lock(&g->lock);
    g->loose--;
    task_broadcast(&g->changed);
    task_unlock(&g->lock);
    block_complete(r, r->error);
}

/* The machine goes on whatever happens to its protection. */
static void pass_unforwarded(struct replication_filter *f, struct block_request *r)
{
    Error *err = NULL;

    error_setg_errno(&err, ENOMEM, "disk %s: a write of %llu bytes could not be forwarded", f->block.id,
                     (unsigned long long)r->size);
    group_fail(f->group, err);
    task_lock(&f->group->lock);
    f->group->loose++;
    task_unlock(&f->group->lock);
    block_pass(&f->block, r, on_loose_done);
}

static void forward(struct replication_filter *f, struct block_request *r)
{
    struct forwarded *fw = forwarded_new(f, r);
    ReplicationGroup *g = f->group;
    bool admitted;

    if (!fw) {
        pass_unforwarded(f, r);
        return;
    }
    task_lock(&g->lock);
    admitted = forward_queue_admit(&g->queue, &fw->admission);
    task_unlock(&g->lock);
    if (admitted)
        lock_range(&fw->admission);
    else
        wake_feed(g, true);
}

static void filter_submit(Block *b, struct block_request *r)
{
    struct replication_filter *f = (struct replication_filter *)b;
    bool writes = r->op == BLOCK_WRITE || r->op == BLOCK_ZERO;
    enum group_state state;

    task_lock(&f->group->lock);
    state = f->group->state;
    if (state == GROUP_PASSIVE)
        f->group->loose += writes;
    task_unlock(&f->group->lock);
    if (state == GROUP_UNUSABLE)
        block_complete(r, EIO);
    else if (state == GROUP_TARGET || state == GROUP_STANDBY)
        block_complete(r, EBUSY);
    else if (!writes)
        block_pass(b, r, NULL);
    else if (state == GROUP_PASSIVE)
        block_pass(b, r, on_loose_done);
    else
        forward(f, r);
}

/* --- for the group's other files --- */

void group_let_in(ReplicationGroup *g, bool all)
{
    struct admission *list;

    task_lock(&g->lock);
    list = forward_queue_room(&g->queue, all);
    task_unlock(&g->lock);
    forward_queue_let_in(list);
}

static void on_chunk_granted(struct range *range)
{
    struct chunk_lock *c = (struct chunk_lock *)range;

    task_lock(&c->group->lock);
    c->held = true;
    task_broadcast(&c->group->changed);
    task_unlock(&c->group->lock);
}

void group_lock_chunk(ReplicationGroup *g, struct chunk_lock *c, uint32_t disk, uint64_t offset,
                      uint64_t size)
{
    *c = (struct chunk_lock){
        .range = {.disk = disk, .offset = offset, .size = size, .granted = on_chunk_granted},
        .group = g,
    };
    task_lock(&g->lock);
    c->held = range_lock_take(&g->ranges, &c->range);
    while (!c->held)
        task_wait(&g->changed, &g->lock);
    task_unlock(&g->lock);
}

void group_unlock_chunk(struct chunk_lock *c, struct disk_write *w)
{
    ReplicationGroup *g = c->group;
    struct range *ready;
    bool wake;

    task_lock(&g->lock);
    wake = enqueue(g, w, 0);
    ready = range_lock_drop(&g->ranges, &c->range);
    task_unlock(&g->lock);
    wake_feed(g, wake);
    range_lock_grant(ready);
}

/* --- life --- */

/* What waits for room goes on; the rest is under way below. */
static void filter_drain(Block *b)
{
    group_let_in(((struct replication_filter *)b)->group, true);
}

/* The ones behind it move up: nothing is under way that knows their numbers. */
static void filter_close(Block *b)
{
    struct replication_filter *f = (struct replication_filter *)b;
    ReplicationGroup *g = f->group;

    assert(g->state == GROUP_PASSIVE || g->state == GROUP_UNUSABLE);
    g->count--;
    for (uint32_t i = f->number; i < g->count; i++) {
        g->members[i] = g->members[i + 1];
        g->images[i] = g->images[i + 1];
        g->members[i]->number = i;
    }
    free(f);
}

static const struct block_ops filter_ops = {
    .name = "replication",
    .submit = filter_submit,
    .drain = filter_drain,
    .close = filter_close,
};

static bool may_join(ReplicationGroup *g, const Block *next, Error **errp)
{
    assert(group_state(g) == GROUP_PASSIVE);
    if (next->readonly) {
        error_setg(errp, "disk %s: it is read-only: there is nothing to replicate", next->id);
        return false;
    }
    if (g->count == REPLICATION_DISKS_MAX) {
        error_setg(errp, "disk %s: at most %d disks can be replicated", next->id, REPLICATION_DISKS_MAX);
        return false;
    }
    for (uint32_t i = 0; i < g->count; i++) {
        if (!strcmp(g->members[i]->block.id, next->id)) {
            error_setg(errp, "disk %s: the id is taken by another replicated disk", next->id);
            return false;
        }
    }
    return true;
}

Block *replication_filter_new(ReplicationGroup *group, Block *next, Error **errp)
{
    struct replication_filter *f;

    if (!may_join(group, next, errp))
        return NULL;
    f = calloc(1, sizeof(*f));
    if (!f) {
        error_setg_errno(errp, ENOMEM, "disk %s", next->id);
        return NULL;
    }
    block_init_filter(&f->block, &filter_ops, next);
    f->group = group;
    f->number = group->count++;
    group->members[f->number] = f;
    group->images[f->number] = next;
    return &f->block;
}
