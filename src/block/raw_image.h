/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Raw image: a file or block device whose bytes are the disk's. Locked while open (an open-file-description
 * lock on the whole file): many may read it, or one may write it.
 *
 *     RawImage *image = raw_image_open("root", "/srv/web.img", false, &err);
 *     if (!raw_image_write(image, offset, buf, n, &err)) ...
 *     raw_image_close(image);
 *
 * Threads: read, write and flush from any thread, several at once. They wait for the disk.
 */
#ifndef BLOCK_RAW_IMAGE_H
#define BLOCK_RAW_IMAGE_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

typedef struct RawImage RawImage;

/* id and path are for messages; copied. */
RawImage *raw_image_open(const char *id, const char *path, bool readonly, Error **errp);
void raw_image_close(RawImage *image); /* NULL is fine */

/* Bytes, as they were when it was opened. */
uint64_t raw_image_size(const RawImage *image);

/* All n bytes at offset, which must lie inside; a shorter transfer is an error. */
bool raw_image_read(RawImage *image, uint64_t offset, void *buf, size_t n, Error **errp);
bool raw_image_write(RawImage *image, uint64_t offset, const void *buf, size_t n, Error **errp);
/* What was written before is on the medium. */
bool raw_image_flush(RawImage *image, Error **errp);

#endif
