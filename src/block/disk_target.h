/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disk target: the backup's half of a replication group's conversation (disk_sync.h).
 *
 *     until the first checkpoint      what comes is written to the images at once; questions are answered
 *     from then on                    what comes is gathered; a checkpoint gives it to the journal's writer
 *
 * Every message is hostile until it is checked: which disk, where, how much, and whether it may come now. How
 * much an epoch may hold in memory was said by LAYOUT, and a primary that sends more is refused.
 *
 * The session task's, all of it; it waits for the local disks.
 */
#ifndef BLOCK_DISK_TARGET_H
#define BLOCK_DISK_TARGET_H

#include "block/disk_message.h"
#include "block/journal_writer.h"

struct disk_target {
    bool layout_heard, over_heard;
    struct disk_layout layout;            /* the primary's */
    uint32_t here[REPLICATION_DISKS_MAX]; /* the primary's number of a disk -> ours */
    uint64_t unflushed;                   /* bytes written to the images and perhaps not on the medium */
    uint64_t epoch;              /* the last one that was checkpointed; 0: none; changes under the lock */
    uint64_t given;              /* the last one that the writer has got, or is about to; 0: none; the same */
    struct epoch_writes *writes; /* of the epoch that is being received */
    uint8_t *buffer;             /* one chunk */
    Journal *journal;            /* until the writer has it */
    JournalWriter *writer;       /* NULL: no disks, or not yet; changes under the lock */
    bool journal_settled;        /* nothing in the file at the path is needed any more */
};

/* disk_journal.c. First there is none, or none that is needed; then the journal of this protection, new and empty: its space
 * takes a while, so it is made when the sync begins, and not at the start, for which both machines stand still. */
bool disk_target_clear_journal(ReplicationGroup *g, Error **errp);
Journal *disk_target_make_journal(ReplicationGroup *g, Error **errp);
/* Waits for what is under way on the disks; nobody submits meanwhile. */
bool disk_target_start(ReplicationGroup *g, Error **errp);
/* As ReplicationFeedOps. */
bool disk_target_receive(ReplicationGroup *g, VMStream *f, VMStream *reply, Error **errp);
/* The first checkpoint, and every other one. */
bool disk_target_begin_standby(ReplicationGroup *g, Error **errp);
bool disk_target_checkpoint(ReplicationGroup *g, Error **errp);
/* What no checkpoint covered is dropped, what one did cover is on the medium when this returns. Cleans up,
 * also when it fails. */
bool disk_target_stop(ReplicationGroup *g, Error **errp);

#endif
