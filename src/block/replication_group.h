/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replication group: the writable disks of one machine, replicated together, so that an epoch takes effect on
 * all of them or on none. It is one ReplicationState, one CheckpointDevice and one ReplicationFeed ("disks");
 * its members are the replication filters in the disks' chains (replication_filter.h).
 *
 *     ReplicationGroup *group = replication_group_new(&options, &err);
 *     Block *top = replication_filter_new(group, raw, &err);      // for each disk, in the same order on both
 * sides
 *     ...                                                         // the engine walks the registries
 *     block_close(top);
 *     replication_group_free(group);
 *
 * One state for the whole group, one table, one set_state(); what is not in the table is refused by name:
 *
 *     | state      | the machine's requests  | start(PRIMARY) | start(SECONDARY) | checkpoint | stop         |
 *     |------------|-------------------------|----------------|------------------|------------|--------------|
 *     | PASSIVE    | go through              | FORWARDING     | TARGET           | refused    | nothing      |
 *     | FORWARDING | go through, and are fed | refused        | refused          | nothing    | PASSIVE      |
 *     | TARGET     | fail (EBUSY)            | refused        | refused          | STANDBY    | UNUSABLE (1) |
 *     | STANDBY    | fail (EBUSY)            | refused        | refused          | an epoch   | PASSIVE (2)  |
 *     | UNUSABLE   | fail (EIO)              | refused        | TARGET           | refused    | nothing (1)  |
 *
 * (1) a failover is an error: half a disk is none; but where the machine here ran last (a swap) and nothing was written
 * since, it is a whole one, and the state PASSIVE. (2) UNUSABLE, and an error, if what was acknowledged
 * cannot be put in place: it is in the journal, which stays. A copy to a further standby (disk_copy.h)
 * begins in STANDBY alone, and ends with it.
 *
 * Primary. A write, zero or unmap goes to the local image from the submitter's own buffer (the device has
 * copied it out of guest RAM: the guest may change the page meanwhile). When it has succeeded locally, and
 * before its submitter is told, it enters the feed's queue under the number of the running epoch; so whatever
 * completion is in the RAM of epoch N, its write is in N or before, and what is in flight at the pause is
 * issued again by a side that takes over. A write that overlaps one in flight waits for it: the queue's order
 * is the order on the local image. What waits for the connection, and what one epoch has, is bounded
 * (queue_limit, forward_queue.h): beyond it a write waits before it begins, and nothing is dropped. At half
 * of it the running epoch should end (ReplicationFeedOps.full).
 *
 * Sync (disk_sync.h): 64 KiB chunks are compared by SHA-256, and what differs is sent, in the background. A
 * chunk is locked against writes from its reading to its entry into the queue. Everything that the backup
 * receives before the first checkpoint it writes to its images at once: until then they are no disks
 * (disk_record.h: sync-target). After a swap both sides are equal already (ReplicationFeedOps.equal),: the machine's
 * writes were waited for (replication_group_settle()). The first checkpoint is refused unless the primary has said that the sync is
 * over; it waits until all of it is on the medium.
 *
 * Backup, from then on: an epoch's writes are gathered in memory. checkpoint() gives them to the journal's
 * writer (journal_writer.h), which appends whole epochs, makes them durable in batches, and then writes them
 * in place. At backlog_limit bytes checkpoint() waits: acknowledgements are withheld. stop(), in both forms,
 * drops what no checkpoint covered and waits until everything that one did cover is in place and on the
 * medium. Both sides give the same queue_limit; a primary with a larger one is refused.
 *
 * verify: every now and then (replication_group_verify()) the primary feeds the hash of some chunks; the
 * backup compares when it has applied everything before. A difference is an error.
 *
 * Errors: the backup's I/O errors, a full file system, a difference found: kept, and told by get_error(); the
 * primary's own I/O errors go to the machine, as without replication. (docs/disks.md has the table of
 * failures.)
 *
 * Locks: one, the group's, a leaf but for the journal writer's. Requests may come on any thread; start,
 * stop, checkpoint and the feed are called by the engine's session task.
 */
#ifndef BLOCK_REPLICATION_GROUP_H
#define BLOCK_REPLICATION_GROUP_H

#include "block/block.h"

#define REPLICATION_DISKS_MAX  64
#define REPLICATION_CHUNK_SIZE (64u << 10)

typedef struct ReplicationGroup ReplicationGroup;

struct replication_group_options {
    char journal[1100];     /* path on this host; the file is made when LAYOUT comes */
    uint64_t journal_size;  /* 0: 256 MiB */
    uint64_t queue_limit;   /* bytes; 0: 64 MiB. An epoch must fit half of the journal */
    uint64_t backlog_limit; /* backup, bytes acknowledged and not yet durable; 0: 64 MiB */
    /* Where the journal lies instead of at a path; NULL: there. */
    Block *(*open_journal)(void *opaque, Error **errp);
    void *open_journal_opaque;
};

/* Registers itself in the three registries. */
ReplicationGroup *replication_group_new(const struct replication_group_options *o, Error **errp);
/* Stopped, its filters closed. NULL is fine. */
void replication_group_free(ReplicationGroup *group);

/* Once, in a process: the implementation of CHECKPOINT_DEVICE_DISK. */
void replication_group_register(void);

/* Before a start: what the journal will say that it belongs to. */
void replication_group_set_pair(ReplicationGroup *group, const char *pair, uint64_t generation);
/* Stopped, and no disk record names the journal any more: removes the file. (Until then it may be replayed: a
 * stop put all of it in place, but the records say so only when they are written.) A start as secondary does
 * it too. Refused where nobody knows that all of it is in place: a stop failed, or it is from before this
 * process. */
bool replication_group_remove_journal(ReplicationGroup *group, Error **errp);

#define REPLICATION_VERIFY_MAX (64u << 20)
/* Primary, any thread, waits for the disks: compare about so many bytes of them (at most
 * REPLICATION_VERIFY_MAX, none twice) in the epoch that runs, round and round. Nothing happens before the
 * sync is over. */
void replication_group_verify(ReplicationGroup *group, uint64_t bytes);

/* Primary; the machine's processors stand still, and its loop runs. Waits, until then, for the writes that are under way:
 * true: there is none, and all are in the queue. */
bool replication_group_settle(ReplicationGroup *group, int64_t until);

struct replication_group_figures {
    uint64_t sync_left, sync_total; /* bytes to look at */
    uint64_t sync_sent;             /* bytes that differed */
    uint64_t queued, backlog;       /* bytes now */
    uint64_t durable_epoch;         /* backup: the last one in the journal, or in place */
    uint64_t verified, throttled;   /* bytes compared; completions that had to wait for the queue */
};
void replication_group_figures(ReplicationGroup *group, struct replication_group_figures *ret);

#endif
