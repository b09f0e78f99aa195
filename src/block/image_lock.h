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
 */
#ifndef BLOCK_IMAGE_LOCK_H
#define BLOCK_IMAGE_LOCK_H

#include <perdure/error.h>

/* id and path are for the message, which says what to do. */
bool image_lock(int fd, bool write, const char *id, const char *path, Error **errp);

#endif
