/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disk chunk: a piece of an image as the other side gets it, a write of data, or of zeroes where there is
 * nothing else. Chunks begin at multiples of REPLICATION_CHUNK_SIZE; the last one of an image may be shorter.
 */
#ifndef BLOCK_DISK_CHUNK_H
#define BLOCK_DISK_CHUNK_H

#include "block/epoch_writes.h"
#include "block/replication_group.h"

uint64_t disk_chunk_size(const Block *image, uint64_t offset);
/* Reads it by way of buffer, which has room for one; waits for the disk. disk: the number that the write names.
 * The caller's; NULL: an error. */
struct disk_write *disk_chunk_read(Block *image, uint32_t disk, uint64_t offset, uint8_t *buffer,
                                   Error **errp);

#endif
