/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The group's state: one table, one set_state(); and its entries in the registries.
 */
#include "block/replication_group_private.h"
#include "base/fault.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_JOURNAL (256u << 20)
#define VERIFY_BYTES    (8u << 20) /* an epoch */
#define DEFAULT_LIMIT   (64u << 20)

/* --- states --- */

enum group_op {
    OP_START_PRIMARY,
    OP_START_SECONDARY,
    OP_CHECKPOINT,
    OP_STOP,
    OP_FAILOVER,
    OP_COPY,
    OP_COUNT
};

static const char *const op_names[OP_COUNT] = {
    "start as primary", "start as secondary", "take a checkpoint", "stop", "take over", "be copied",
};
static const char *const state_names[] = {"PASSIVE", "FORWARDING", "TARGET", "STANDBY", "UNUSABLE"};

static const char running[] = "replication runs already", not_running[] = "replication does not run",
                  half[] = "the disks are half of one copy and half of another",
                  no_standby[] = "only a standby can, after its first checkpoint";

/* refused NULL: permitted, and next is the state after it. */
static const struct {
    const char *refused;
    enum group_state next;
} table[][OP_COUNT] = {
    [GROUP_PASSIVE] = {{NULL, GROUP_FORWARDING},
                       {NULL, GROUP_TARGET},
                       {not_running, 0},
                       {NULL, GROUP_PASSIVE},
                       {NULL, GROUP_PASSIVE},
                       {not_running, 0}},
    [GROUP_FORWARDING] = {{running, 0},
                          {running, 0},
                          {NULL, GROUP_FORWARDING},
                          {NULL, GROUP_PASSIVE},
                          {NULL, GROUP_PASSIVE},
                          {no_standby, 0}},
    [GROUP_TARGET] = {{running, 0},
                      {running, 0},
                      {NULL, GROUP_STANDBY},
                      {NULL, GROUP_UNUSABLE},
                      {half, GROUP_UNUSABLE},
                      {no_standby, 0}},
    [GROUP_STANDBY] = {{running, 0},
                       {running, 0},
                       {NULL, GROUP_STANDBY},
                       {NULL, GROUP_PASSIVE},
                       {NULL, GROUP_PASSIVE},
                       {NULL, GROUP_STANDBY}},
    [GROUP_UNUSABLE] = {{half, 0},
                        {NULL, GROUP_TARGET},
                        {not_running, 0},
                        {NULL, GROUP_UNUSABLE},
                        {half, GROUP_UNUSABLE},
                        {not_running, 0}},
};

enum group_state group_state(ReplicationGroup *g)
{
    enum group_state s;

    task_lock(&g->lock);
    s = g->state;
    task_unlock(&g->lock);
    return s;
}

static void set_state(ReplicationGroup *g, enum group_state s)
{
    task_lock(&g->lock);
    g->state = s;
    task_broadcast(&g->changed);
    task_unlock(&g->lock);
}

/* What follows op; an error where it is refused. */
static bool may(ReplicationGroup *g, enum group_op op, enum group_state *ret_next, Error **errp)
{
    enum group_state s = group_state(g);
    const char *refused = table[s][op].refused;

    *ret_next = table[s][op].next;
    if (refused)
        error_setg(errp, "disks: cannot %s: %s (%s)", op_names[op], refused, state_names[s]);
    return !refused;
}

/* --- errors --- */

void group_fail(ReplicationGroup *g, Error *err)
{
    task_lock(&g->lock);
    error_propagate(&g->err, err);
    task_unlock(&g->lock);
}

static void forget_error(ReplicationGroup *g)
{
    task_lock(&g->lock);
    error_free(g->err);
    g->err = NULL;
    task_unlock(&g->lock);
}

static bool get_kept_error(ReplicationGroup *g, Error **errp)
{
    Error *err;

    task_lock(&g->lock);
    err = g->err ? error_copy(g->err) : NULL;
    task_unlock(&g->lock);
    if (!err)
        return true;
    error_propagate(errp, err);
    return false;
}

/* --- as a ReplicationState --- */

static bool op_start(ReplicationState *rs, enum ReplicationMode mode, Error **errp)
{
    ReplicationGroup *g = rs->opaque;
    bool primary = mode == REPLICATION_MODE_PRIMARY;
    enum group_state next;

    if (!may(g, primary ? OP_START_PRIMARY : OP_START_SECONDARY, &next, errp))
        return false;
    if (!(primary ? disk_sync_start(g, errp) : disk_target_start(g, errp)))
        return false;
    forget_error(g);
    set_state(g, next);
    return true;
}

static bool op_checkpoint(ReplicationState *rs, Error **errp)
{
    ReplicationGroup *g = rs->opaque;
    enum group_state state = group_state(g), next;
    bool ok = true;

    if (!may(g, OP_CHECKPOINT, &next, errp))
        return false;
    if (state == GROUP_TARGET)
        ok = disk_target_begin_standby(g, errp);
    else if (state == GROUP_STANDBY)
        ok = disk_target_checkpoint(g, errp);
    if (ok)
        set_state(g, next);
    return ok;
}

static bool op_get_error(ReplicationState *rs, Error **errp)
{
    ReplicationGroup *g = rs->opaque;

    if (!get_kept_error(g, errp))
        return false;
    return !g->target.writer || journal_writer_get_error(g->target.writer, errp);
}

/* The local disks go on by themselves. */
static void stop_forwarding(ReplicationGroup *g)
{
    set_state(g, GROUP_PASSIVE);
    g->ran_last = true;
    task_lock(&g->lock);
    forward_queue_reset(&g->queue);
    task_unlock(&g->lock);
    group_let_in(g, true);
    disk_sync_stop(g);
}

static bool op_stop(ReplicationState *rs, bool failover, Error **errp)
{
    ReplicationGroup *g = rs->opaque;
    enum group_state state = group_state(g), next = state;
    bool whole =
        state == GROUP_TARGET && failover && (g->ran_last || fault_point("disks.takeover_of_half_synced"));
    bool ok = whole || may(g, failover ? OP_FAILOVER : OP_STOP, &next, errp);

    if (whole)
        next = GROUP_PASSIVE;
    if (state == GROUP_FORWARDING) {
        stop_forwarding(g);
    } else if (state == GROUP_TARGET || state == GROUP_STANDBY) {
        disk_copy_end(g);
        if (!disk_target_stop(g, ok ? errp : NULL)) {
            ok = false;
            next = GROUP_UNUSABLE;
        }
        set_state(g, next);
    }
    return ok;
}

static ReplicationOps state_ops = {
    .start = op_start,
    .stop = op_stop,
    .checkpoint = op_checkpoint,
    .get_error = op_get_error,
};

/* --- as a CheckpointDevice --- */

static void device_setup(CheckpointDevice *dev)
{
    checkpoint_device_setup_done(dev, CHECKPOINT_DEVICE_READY, NULL);
}

static bool device_postsuspend(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    ReplicationGroup *g = dev->opaque;
    uint64_t mine;

    task_lock(&g->lock);
    mine = g->state == GROUP_FORWARDING ? g->queue.epoch : epoch;
    if (mine == epoch && g->state == GROUP_FORWARDING)
        forward_queue_end_epoch(&g->queue);
    task_unlock(&g->lock);
    if (mine != epoch)
        error_setg(errp, "disks: epoch %llu ends, but the one that runs is %llu", (unsigned long long)epoch,
                   (unsigned long long)mine);
    return mine == epoch;
}

static const CheckpointDeviceOps device_ops = {
    .name = "disks",
    .kind = CHECKPOINT_DEVICE_DISK,
    .setup = device_setup,
    .postsuspend = device_postsuspend,
};

void replication_group_register(void)
{
    checkpoint_device_register_ops(&device_ops);
}

/* --- as a ReplicationFeed --- */

static bool feed_next(void *opaque, uint64_t epoch, VMStream *f)
{
    ReplicationGroup *g = opaque;

    group_let_in(g, false);
    return g->state == GROUP_FORWARDING && disk_sync_next(g, epoch, f);
}

static bool feed_full(void *opaque)
{
    ReplicationGroup *g = opaque;
    bool full;

    task_lock(&g->lock);
    full = g->state == GROUP_FORWARDING && forward_queue_full(&g->queue);
    task_unlock(&g->lock);
    return full;
}

static void feed_equal(void *opaque)
{
    ReplicationGroup *g = opaque;

    if (g->state == GROUP_FORWARDING)
        disk_sync_equal(g);
}

static bool feed_ask(void *opaque, VMStream *f, Error **errp)
{
    ReplicationGroup *g = opaque;

    return g->state == GROUP_FORWARDING && disk_sync_ask(g, f, errp);
}

static bool feed_answer(void *opaque, VMStream *f, Error **errp)
{
    return disk_sync_answer(opaque, f, errp);
}

static uint64_t feed_left(void *opaque)
{
    struct replication_group_figures n;

    replication_group_figures(opaque, &n);
    return n.sync_left;
}

static bool feed_receive(void *opaque, VMStream *f, VMStream *reply, Error **errp)
{
    return disk_target_receive(opaque, f, reply, errp);
}

static void feed_verify(void *opaque)
{
    replication_group_verify(opaque, VERIFY_BYTES);
}

static bool feed_copy_begin(void *opaque, Error **errp)
{
    enum group_state next;

    return may(opaque, OP_COPY, &next, errp) && disk_copy_begin(opaque, errp);
}

static bool feed_copy_next(void *opaque, VMStream *f, bool last, Error **errp)
{
    return disk_copy_next(opaque, f, last, errp);
}

static uint64_t feed_copy_left(void *opaque)
{
    return disk_copy_left(opaque);
}

static void feed_copy_end(void *opaque)
{
    disk_copy_end(opaque);
}

static const ReplicationFeedOps feed_ops = {
    .next = feed_next,
    .full = feed_full,
    .equal = feed_equal,
    .ask = feed_ask,
    .answer = feed_answer,
    .left = feed_left,
    .verify = feed_verify,
    .receive = feed_receive,
    .copy_begin = feed_copy_begin,
    .copy_next = feed_copy_next,
    .copy_left = feed_copy_left,
    .copy_end = feed_copy_end,
};

/* --- life --- */

static void apply_defaults(struct replication_group_options *o)
{
    if (!o->journal_size)
        o->journal_size = DEFAULT_JOURNAL;
    if (!o->queue_limit)
        o->queue_limit = DEFAULT_LIMIT;
    if (!o->backlog_limit)
        o->backlog_limit = DEFAULT_LIMIT;
}

static ReplicationGroup *group_alloc(const struct replication_group_options *o)
{
    ReplicationGroup *g = calloc(1, sizeof(*g));

    if (!g)
        return NULL;
    g->options = *o;
    apply_defaults(&g->options);
    task_mutex_init(&g->lock);
    task_cond_init(&g->changed);
    forward_queue_init(&g->queue, g->options.queue_limit);
    g->device = (CheckpointDevice){.id = "disks", .kind = CHECKPOINT_DEVICE_DISK, .opaque = g};
    g->feed = (ReplicationFeed){.id = "disks", .opaque = g, .ops = &feed_ops};
    return g;
}

ReplicationGroup *replication_group_new(const struct replication_group_options *o, Error **errp)
{
    ReplicationGroup *g = group_alloc(o);

    if (!g) {
        error_setg_errno(errp, ENOMEM, "disks");
        return NULL;
    }
    g->state_entry = replication_new(g, &state_ops);
    if (!g->state_entry)
        error_setg_errno(errp, ENOMEM, "disks");
    if (g->state_entry && checkpoint_device_add(&g->device, errp) && replication_feed_add(&g->feed, errp))
        return g;
    replication_group_free(g);
    return NULL;
}

void replication_group_free(ReplicationGroup *g)
{
    if (!g)
        return;
    assert(!g->count && (g->state == GROUP_PASSIVE || g->state == GROUP_UNUSABLE));
    replication_feed_remove(&g->feed);
    checkpoint_device_remove(&g->device);
    replication_remove(g->state_entry);
    error_free(g->err);
    task_cond_destroy(&g->changed);
    task_mutex_destroy(&g->lock);
    free(g);
}

/* Lock held. */
static bool is_settled(const ReplicationGroup *g)
{
    return !g->ranges.first && !g->queue.waiting && !g->loose;
}

bool replication_group_settle(ReplicationGroup *g, int64_t until)
{
    bool settled;

    task_lock(&g->lock);
    while (!(settled = is_settled(g)) && task_wait_until(&g->changed, &g->lock, until))
        ;
    task_unlock(&g->lock);
    return settled;
}

void replication_group_set_pair(ReplicationGroup *g, const char *pair, uint64_t generation)
{
    assert(strlen(pair) < sizeof(g->pair));
    strncpy(g->pair, pair, sizeof(g->pair) - 1);
    g->generation = generation;
}

/* Lock held. The first epoch was durable before there was a writer. */
static void backup_figures(ReplicationGroup *g, struct replication_group_figures *ret)
{
    struct disk_target *t = &g->target;
    uint64_t durable = t->writer ? journal_writer_durable_epoch(t->writer) : t->epoch;

    ret->durable_epoch = durable || !t->epoch ? durable : 1;
    ret->backlog = t->writer ? journal_writer_backlog(t->writer) : 0;
}

void replication_group_figures(ReplicationGroup *g, struct replication_group_figures *ret)
{
    *ret = (struct replication_group_figures){0};
    task_lock(&g->lock);
    ret->sync_left = g->sync_left;
    ret->sync_total = g->sync_total;
    ret->sync_sent = g->sync_sent;
    ret->queued = g->queue.queued;
    ret->verified = g->verified;
    ret->throttled = g->queue.throttled;
    backup_figures(g, ret);
    task_unlock(&g->lock);
}
