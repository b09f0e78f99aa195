/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a replication group, shared by its five files:
 *
 *     replication_group.c    the state, the registries
 *     replication_filter.c   a request of the machine, on its way down and back
 *     disk_sync.c            primary: what it asks and tells
 *     disk_target.c          backup: what it hears
 *     disk_copy.c            backup: what a further one hears
 *
 * The state is changed by the session task alone, under the lock; it may look at it without.
 */
#ifndef BLOCK_REPLICATION_GROUP_PRIVATE_H
#define BLOCK_REPLICATION_GROUP_PRIVATE_H

#include <perdure/checkpoint_device.h>
#include <perdure/replication.h>
#include <perdure/replication_feed.h>

#include "base/task.h"
#include "block/disk_copy.h"
#include "block/disk_sync.h"
#include "block/disk_target.h"
#include "block/forward_queue.h"
#include "block/range_lock.h"
#include "block/replication_group.h"

enum group_state { GROUP_PASSIVE, GROUP_FORWARDING, GROUP_TARGET, GROUP_STANDBY, GROUP_UNUSABLE };

struct replication_filter {
    Block block;
    ReplicationGroup *group;
    uint32_t number;
};

struct ReplicationGroup {
    struct replication_group_options options;
    char pair[40];
    uint64_t generation;
    struct replication_filter *members[REPLICATION_DISKS_MAX];
    Block *images[REPLICATION_DISKS_MAX]; /* below the filters */
    uint32_t count;

    ReplicationState *state_entry;
    CheckpointDevice device;
    ReplicationFeed feed;

    struct disk_sync sync;
    struct disk_target target;

    struct task_mutex lock; /* for what follows */
    struct task_cond changed;
    enum group_state state;
    Error *err; /* the first since the start */
    struct forward_queue queue;
    struct range_lock ranges;
    unsigned loose; /* writes under way that nobody forwards: they began before the start */
    uint64_t sync_left, sync_total, sync_sent, verified;
    bool ran_last; /* the machine here was the last to write to them; the session task's */
    uint32_t verify_disk;
    uint64_t verify_offset;
    struct disk_copy *copy; /* NULL: none; the copying task may look at it without the lock */
};

/* Keeps err, which is taken, if it is the first. Any thread, not under the lock. */
void group_fail(ReplicationGroup *g, Error *err);
enum group_state group_state(ReplicationGroup *g);

/* Everything that waits for room and may now go on; all: although there is none. */
void group_let_in(ReplicationGroup *g, bool all);

/* A piece of a disk against writes: lock waits for those under way; unlock lets w (taken; NULL: none) enter
 * the queue first, if replication runs. */
struct chunk_lock {
    struct range range;
    ReplicationGroup *group;
    bool held;
};
void group_lock_chunk(ReplicationGroup *g, struct chunk_lock *c, uint32_t disk, uint64_t offset,
                      uint64_t size);
void group_unlock_chunk(struct chunk_lock *c, struct disk_write *w);

#endif
