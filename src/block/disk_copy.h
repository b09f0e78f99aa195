/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disk copy: a standby brings a further standby to what it holds, and goes on being one meanwhile.
 *
 *     this standby                                     the further one (an ordinary disk_target.h)
 *     LAYOUT, as the primary said it                   which disks, how large
 *     WRITES ...               pass after pass         written to its images at once
 *     WRITES ...               the last pass
 *     SYNC_OVER                                        both hold the same now; its first checkpoint
 *
 * and from then on it gets what the primary sends, verbatim. So LAYOUT says the primary's limit, and its
 * numbers of the disks, which may be other ones than ours; and so do the writes of the copy.
 *
 * A chunk that has to be copied has its bit in one of two bitmaps: all are set in the beginning, and a
 * checkpoint sets those that its epoch touches.
 *
 *     changed     since the pass began; what checkpoints set
 *     taken       what the pass has to put; emptied as it goes
 *
 * A pass begins by exchanging the two; then it waits until every epoch whose bits it may have taken is in
 * place (journal_writer.h); then it reads. An epoch's bits are set before the journal's writer gets it, so
 * what is written to a chunk while, or after, it is read has its bit in changed, or moves it there: the chunk
 * comes again, and what was read half-written does no harm. What changes all the time waits for the next pass
 * without being put in this one.
 *
 * In the last pass there is no checkpoint, so it ends, and the two are equal.
 *
 * A disk that cannot be read ends the copy and nothing else. Memory: two bits a chunk, one chunk, one write.
 */
#ifndef BLOCK_DISK_COPY_H
#define BLOCK_DISK_COPY_H

#include "block/replication_group.h"
#include <perdure/stream.h>

struct disk_copy;
struct epoch_writes;

/* As ReplicationFeedOps; the group is in STANDBY. */
bool disk_copy_begin(ReplicationGroup *g, Error **errp);
bool disk_copy_next(ReplicationGroup *g, VMStream *f, bool last, Error **errp);
uint64_t disk_copy_left(ReplicationGroup *g);
/* Nothing happens if none is under way. */
void disk_copy_end(ReplicationGroup *g);

/* Checkpoint, before the journal's writer gets w, copy or not. */
void disk_copy_note(ReplicationGroup *g, const struct epoch_writes *w);

#endif
