/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Journal: the redo log of a backup's disks. Whole epochs are appended and made durable; what is in it is
 * written in place later, and once more at an open after a crash. One journal serves all disks of a machine,
 * so that an epoch is on all of them or on none.
 *
 * Layout (docs/disk-format.md, octet by octet): a header of 4 KiB, written once, names the pair and the
 * disks; two release marks, written in turn; then two segments of equal size. Epochs are numbered as they are
 * appended: 1, 2, 3, ... Each is a head {number, epoch, counts, size, CRC of all of it} with its writes, and
 * begins at a multiple of 4 KiB, so that writing it cannot harm the one before.
 *
 *     | header | mark | mark | epoch 8, epoch 9, epoch 10, free ... | epoch 5, epoch 6, epoch 7, free |
 *                              current segment                        the other one
 *
 * Epochs are appended to one segment until it is full; then the other is begun, as soon as everything in it
 * is in place and on the medium (journal_release()). Before its first octet is overwritten a mark says up to
 * which number that is, and one sync makes durable both the mark and the segment that is full.
 *
 *     append(N), append(N+1), sync          N and N+1 are durable: they may be written in place
 *     ... in place, images flushed ...      journal_release(): the segments before may be used again
 *
 * After a crash: journal_replay() gives every whole epoch after the newest mark, in order, up to the first
 * one that is not whole: nothing after a torn epoch counts, and nothing of an older use of a segment, whose
 * numbers do not follow. Applied over images that hold some of them already, in part or whole, they give the
 * newest: whole-epoch content. What was durable once and is not whole now is damage, and refused by name:
 * each head says up to which number all was durable when it was written.
 *
 * On a Block, so that the simulator and the crash tests give it theirs. One task at a time. Everything read
 * is checked before it is used: a journal is a file that anybody may have damaged.
 */
#ifndef BLOCK_JOURNAL_H
#define BLOCK_JOURNAL_H

#include "block/block.h"
#include "block/epoch_writes.h"

#define JOURNAL_DISKS_MAX 64
#define JOURNAL_SIZE_MIN  (64u << 10) /* it works; a machine's should hold many epochs */

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
 * error, and so is one that is not newer than the last, or a write that lies outside its disk. After an error
 * nothing more may be appended. */
bool journal_append(Journal *j, const struct epoch_writes *w, bool *ret_full, Error **errp);
/* What was appended is durable. */
bool journal_sync(Journal *j, Error **errp);
/* Every epoch up to this one is in place, and the images are flushed. It becomes durable when it matters:
 * when a segment is used again. */
void journal_release(Journal *j, uint64_t epoch);

/* fn for each whole epoch in order, until it returns false. *ret_last: the epoch that the images hold after
 * it, 0 if there was none: the newest one here, or, if none is here, the newest one that was released. The
 * images must be flushed before the journal is removed or used again. */
bool journal_replay(Journal *j, bool (*fn)(void *opaque, const struct epoch_writes *w, Error **errp),
                    void *opaque, uint64_t *ret_last, Error **errp);

#endif
