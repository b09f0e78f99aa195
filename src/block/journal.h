/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Journal: the redo log of a backup's disks. Whole epochs are appended and made durable; what is in it is
 * written in place later, and once more at an open after a crash. One journal serves all disks of a machine,
 * so that an epoch is on all of them or on none.
 *
 * Layout (docs/disk-format.md, octet by octet): a header of 4 KiB, written once, names the pair and the
 * disks; then two segments of equal size. A segment begins with its own header {sequence, CRC}; then epochs:
 * each is a head {sequence, epoch, counts, size, CRC of all of it} with its writes. Epochs are appended to
 * one segment until it is full; then the other is begun, with the next sequence, as soon as everything in it
 * is in place and on the medium (journal_release()). An epoch whose CRC or sequence is not right ends its
 * segment: nothing after a torn epoch counts, and nothing of an older use of the segment does.
 *
 *     append(N), append(N+1), sync          N and N+1 are durable: they may be written in place
 *     ... in place, images flushed ...      journal_release(): the segments before may be used again
 *
 * After a crash: journal_replay() gives every whole epoch, from the oldest that is needed to the newest that
 * is whole, in order; applied again over images that hold some of them already they give the newest:
 * whole-epoch content.
 *
 * On a Block, so that the simulator and the crash tests give it theirs. One task at a time. Everything read
 * is checked before it is used: a journal is a file that anybody may have damaged.
 */
#ifndef BLOCK_JOURNAL_H
#define BLOCK_JOURNAL_H

#include "block/block.h"
#include "block/epoch_writes.h"

#define JOURNAL_DISKS_MAX 64
#define JOURNAL_SIZE_MIN  (1u << 20)

typedef struct Journal Journal;

/* What a journal belongs to. */
struct journal_identity {
    char pair[40];
    uint64_t generation;
    uint32_t disk_count;
    struct {
        char id[32];
        uint64_t size;
    } disks[JOURNAL_DISKS_MAX];
};

/* Takes b, also on failure. An empty journal, durable when this returns. */
Journal *journal_create(Block *b, const struct journal_identity *identity, Error **errp);
/* Takes b, also on failure. An existing one: replay it, then close it (it is not appended to again). */
Journal *journal_open(Block *b, Error **errp);
void journal_close(Journal *j); /* NULL is fine */
const struct journal_identity *journal_get_identity(const Journal *j);

/* false with errp untouched and *ret_full: no room until a release. An epoch larger than a segment is an
 * error. */
bool journal_append(Journal *j, const struct epoch_writes *w, bool *ret_full, Error **errp);
/* What was appended is durable. */
bool journal_sync(Journal *j, Error **errp);
/* Every epoch up to this one is in place, and the images are flushed. */
bool journal_release(Journal *j, uint64_t epoch, Error **errp);

/* fn for each whole epoch in order, until it returns false. *ret_last: the newest epoch, 0 if there is none.
 */
bool journal_replay(Journal *j, bool (*fn)(void *opaque, const struct epoch_writes *w, Error **errp),
                    void *opaque, uint64_t *ret_last, Error **errp);

#endif
