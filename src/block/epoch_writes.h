/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Epoch writes: what one epoch writes to the disks of a group, in order, in memory.
 *
 *     struct disk_write *d = disk_write_new(DISK_WRITE_DATA, disk, offset, n, n);
 *
 *     memcpy(d->data, bytes, n);
 *     epoch_writes_add(w, d);
 *     ...
 *     if (!epoch_writes_apply(w, images, count, false, errp)) ...
 *     epoch_writes_free(w);
 */
#ifndef BLOCK_EPOCH_WRITES_H
#define BLOCK_EPOCH_WRITES_H

#include "block/block.h"

#define DISK_HASH_SIZE 32

enum disk_write_kind {
    DISK_WRITE_DATA,
    DISK_WRITE_ZERO,   /* size may be large, there is no data */
    DISK_WRITE_UNMAP,  /* the same, and the space is given back */
    DISK_WRITE_VERIFY, /* writes nothing: data is the SHA-256 that size bytes at offset have after all before
                          it */
};

struct disk_write {
    struct disk_write *next;
    enum disk_write_kind kind;
    uint32_t disk; /* number in the group */
    uint64_t offset, size;
    uint64_t epoch; /* of forward_queue.h */
    uint32_t data_size;
    uint8_t data[];
};

struct epoch_writes {
    struct epoch_writes *next;
    uint64_t epoch;
    struct disk_write *first, **end;
    uint64_t count, bytes; /* bytes: of memory, roughly; never 0 */
};

struct epoch_writes *epoch_writes_new(void);    /* NULL: no memory */
void epoch_writes_free(struct epoch_writes *w); /* w alone, not its next; NULL is fine */
/* NULL: no memory. data is uninitialised. */
struct disk_write *disk_write_new(enum disk_write_kind kind, uint32_t disk, uint64_t offset, uint64_t size,
                                  uint32_t data_size);
void epoch_writes_add(struct epoch_writes *w, struct disk_write *d); /* takes d */

/* One epoch to the images, in order; an image that is NULL is passed over. Compares for DISK_WRITE_VERIFY,
 * unless replaying: then the images may hold later epochs in part. Nothing is flushed. Waits for the disks. The
 * error names the disk; the epoch may have happened in part. */
bool epoch_writes_apply(const struct epoch_writes *w, Block *const *images, uint32_t count, bool replaying,
                        Error **errp);

#endif
