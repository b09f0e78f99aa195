/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Journal writer: the task that makes a backup's acknowledged epochs durable, then writes them in place.
 *
 *     put(N) -> [queue] -> append all that waits -> sync -> in place -> (now and then) flush images, release
 *
 *     JournalWriter *jw = journal_writer_new(journal, images, 64 << 20, &err);
 *     journal_writer_put(jw, w, &err);                 // at each checkpoint
 *     journal_writer_drain(jw, &err);                  // taking over
 *     journal_writer_free(jw);
 *
 * put() returns at once while less than backlog_limit bytes are not durable, else it waits. Images are flushed
 * when nothing waits and the first write that needs it is JOURNAL_WRITER_UNFLUSHED_NS old, or after
 * JOURNAL_WRITER_UNFLUSHED bytes: seldom, for each flush is one more beside the journal's; but so that a
 * takeover has little left to do. An epoch without writes costs nothing: it is durable as soon as all before
 * it is.
 *
 * The first error is kept: put() and drain() fail with it from then on. Where an image has failed, what was put
 * before still goes into the journal, and stays there: those epochs are acknowledged. Where the journal has failed, or is
 * full of what cannot be put in place, nothing more is written; what was durable still is.
 * Locks: one of its own, a leaf, not held while anything is read or written. put, drain and error by one
 * task, wait_in_place and figures by any.
 */
#ifndef BLOCK_JOURNAL_WRITER_H
#define BLOCK_JOURNAL_WRITER_H

#include "base/task.h"
#include "block/journal.h"

#define JOURNAL_WRITER_UNFLUSHED    (16u << 20)
#define JOURNAL_WRITER_UNFLUSHED_NS (100 * NS_PER_MS)

typedef struct JournalWriter JournalWriter;

/* Borrows the images (as many as the journal's identity has disks, of the sizes that it says); takes the
 * journal, fresh from journal_create(), also on failure. */
JournalWriter *journal_writer_new(Journal *j, Block *const *images, uint64_t backlog_limit, Error **errp);
/* Takes w. */
bool journal_writer_put(JournalWriter *jw, struct epoch_writes *w, Error **errp);
/* Waits until all that was put is in place and on the medium; or, where that fails, in the journal. */
bool journal_writer_drain(JournalWriter *jw, Error **errp);
/* Waits until every epoch up to this one, which was put or is about to be, is in place, though perhaps not on the
 * medium; 0: none. What comes behind it does not make it wait longer. */
bool journal_writer_wait_in_place(JournalWriter *jw, uint64_t epoch, Error **errp);
/* false: it has failed. Does not wait. */
bool journal_writer_get_error(JournalWriter *jw, Error **errp);
uint64_t journal_writer_backlog(JournalWriter *jw);       /* bytes not yet durable */
uint64_t journal_writer_durable_epoch(JournalWriter *jw); /* the last one that a crash does not undo */
/* Ends the task and closes the journal: what waits is not written, though a batch that is under way is. NULL
 * is fine. */
void journal_writer_free(JournalWriter *jw);

#endif
