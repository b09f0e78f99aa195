/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disk sync: the primary's half of a replication group's conversation.
 *
 *     LAYOUT                          which disks, how large
 *     QUESTION / reply, WRITES ...    "are these chunks what you have?"; those that differ, and meanwhile
 *                                     whatever the machine writes, in one order
 *     SYNC_OVER                       both sides are equal now
 *     WRITES ...                      epoch after epoch
 *
 * A question may be wrong by the time that it is answered, and a chunk may be read while it is written: both
 * do no harm. What differs is read again under the range lock, so that it enters the queue in the order in
 * which the local disk saw it; what was equal once stays equal by the writes that are forwarded.
 *
 * The session task's, all of it, and all waits are for the local disk: nothing waits here for room in the
 * queue, which only this task empties.
 */
#ifndef BLOCK_DISK_SYNC_H
#define BLOCK_DISK_SYNC_H

#include "block/disk_message.h"

struct disk_sync {
    bool layout_sent;
    bool over_sent;                /* changes under the group's lock */
    bool over;                     /* every chunk was asked about, and the last reply was heard */
    bool asked;                    /* question waits for its reply */
    struct disk_question question; /* the last one */
    uint32_t disk;                 /* what comes next */
    uint64_t offset;
    uint8_t *buffer;               /* SYNC_READ bytes; NULL while replication does not run */
    struct disk_writes_out writes; /* from the queue */
    uint64_t epoch;                /* what may be taken from there */
};

#define DISK_SYNC_READ (1u << 20) /* how much of a disk is read at a time */

bool disk_sync_start(ReplicationGroup *g, Error **errp);
void disk_sync_stop(ReplicationGroup *g);
/* As ReplicationFeedOps. */
void disk_sync_equal(ReplicationGroup *g);
bool disk_sync_next(ReplicationGroup *g, uint64_t epoch, VMStream *f);
bool disk_sync_ask(ReplicationGroup *g, VMStream *f, Error **errp);
bool disk_sync_answer(ReplicationGroup *g, VMStream *f, Error **errp);

#endif
