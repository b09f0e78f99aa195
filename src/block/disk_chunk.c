/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/disk_chunk.h"

#include <errno.h>
#include <string.h>

uint64_t disk_chunk_size(const Block *image, uint64_t offset)
{
    uint64_t left = image->size - offset;

    return left < REPLICATION_CHUNK_SIZE ? left : REPLICATION_CHUNK_SIZE;
}

static bool all_zero(const uint8_t *data, size_t n)
{
    return !data[0] && !memcmp(data, data + 1, n - 1);
}

static struct disk_write *make_write(uint32_t disk, uint64_t offset, const uint8_t *data, uint64_t n)
{
    bool zero = all_zero(data, n);
    struct disk_write *w =
        disk_write_new(zero ? DISK_WRITE_ZERO : DISK_WRITE_DATA, disk, offset, n, zero ? 0 : (uint32_t)n);

    if (w && !zero)
        memcpy(w->data, data, n);
    return w;
}

struct disk_write *disk_chunk_read(Block *image, uint32_t disk, uint64_t offset, uint8_t *buffer,
                                   Error **errp)
{
    uint64_t n = disk_chunk_size(image, offset);
    struct disk_write *w;

    if (!block_read(image, offset, buffer, n, errp))
        return NULL;
    w = make_write(disk, offset, buffer, n);
    if (!w)
        error_setg_errno(errp, ENOMEM, "disk %s", image->id);
    return w;
}
