/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image lock: who else uses an image, in the convention of QEMU's programs and ours.
 *
 * Locks are of the open file description, shared, on single bytes whose number has a meaning; whether the
 * file has them does not matter. What one does to the image (read, write, resize: bit n) is a lock on byte
 * 100 + n; what nobody else may do meanwhile is one on byte 200 + n. Whoever opens an image takes his locks
 * first and then looks for others' that contradict: of two who come at once both may be refused, never both
 * let in.
 *
 *     reader: reads;         nobody else may write or resize
 *     writer: reads, writes; nobody else may write or resize
 *
 * The locks end with the last descriptor of the description, so with the process at the latest.
 *
 * A writer can hand an image on, to one on another host that sees the same file (live migration, shared=on):
 *
 *     here                            there
 *     image_lock_offer(): resizes
 *                                     image_lock_accept(): reads, writes
 *     image_lock_leave()
 *
 * Everybody forbids others to resize, so what is offered keeps everybody out but who accepts an offer, and overlooks
 * that: nobody who locks images so can come between (QEMU with share-rw=on does not, while one is offered). If it is not accepted there it is accepted here, by the one who
 * offered it.
 */
#ifndef BLOCK_IMAGE_LOCK_H
#define BLOCK_IMAGE_LOCK_H

#include <perdure/error.h>

/* id and path are for the message, which says what to do. */
bool image_lock(int fd, bool write, const char *id, const char *path, Error **errp);

/* Of a writer, who does not write any more. On failure he is one still. */
bool image_lock_offer(int fd, const char *id, const char *path, Error **errp);
/* mine: it was offered through fd. On failure that stays so; else nothing is held. */
bool image_lock_accept(int fd, bool mine, const char *id, const char *path, Error **errp);
/* Whatever is held. */
void image_lock_leave(int fd);
/* By somebody else. */
bool image_lock_is_written(int fd);

#endif
