/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Applying an epoch: its writes in order, one after the other, on the thread of whoever applies it.
 */
#include "block/disk_hash.h"
#include "block/epoch_writes.h"

#include <stdlib.h>
#include <string.h>

static bool hash(Block *image, const struct disk_write *d, uint8_t ret_hash[DISK_HASH_SIZE], Error **errp)
{
    void *buf = malloc(d->size ? d->size : 1);
    bool ok;

    if (!buf)
        error_setg(errp, "disk %s: out of memory for %llu bytes to compare", image->id,
                   (unsigned long long)d->size);
    ok = buf && block_read(image, d->offset, buf, d->size, errp) && disk_hash(buf, d->size, ret_hash, errp);
    free(buf);
    return ok;
}

static bool verify(Block *image, const struct disk_write *d, uint64_t epoch, Error **errp)
{
    uint8_t found[DISK_HASH_SIZE];

    if (!hash(image, d, found, errp))
        return false;
    if (!memcmp(found, d->data, sizeof(found)))
        return true;
    error_setg(errp, "disk %s: %llu bytes at %llu differ from the primary's after epoch %llu", image->id,
               (unsigned long long)d->size, (unsigned long long)d->offset, (unsigned long long)epoch);
    return false;
}

static bool check(const struct disk_write *d, Block *const *images, uint32_t count, Error **errp)
{
    if (d->disk >= count) {
        error_setg(errp, "a write to disk number %u, of %u disks", d->disk, count);
        return false;
    }
    if (d->offset > images[d->disk]->size || d->size > images[d->disk]->size - d->offset) {
        error_setg(errp, "disk %s: %llu bytes at %llu lie beyond its end", images[d->disk]->id,
                   (unsigned long long)d->size, (unsigned long long)d->offset);
        return false;
    }
    if (d->kind == DISK_WRITE_VERIFY ? d->data_size != DISK_HASH_SIZE || d->size > BLOCK_SIZE_MAX
                                     : d->kind == DISK_WRITE_DATA && d->data_size != d->size) {
        error_setg(errp, "disk %s: a write of %llu bytes comes with %u bytes of data", images[d->disk]->id,
                   (unsigned long long)d->size, d->data_size);
        return false;
    }
    return true;
}

static bool apply(Block *image, const struct disk_write *d, Error **errp)
{
    if (d->kind == DISK_WRITE_DATA)
        return block_write(image, d->offset, d->data, d->size, errp);
    return block_zero(image, d->offset, d->size, d->kind == DISK_WRITE_UNMAP, errp);
}

static bool apply_one(const struct disk_write *d, Block *image, uint64_t epoch, bool replaying, Error **errp)
{
    if (d->kind == DISK_WRITE_VERIFY)
        return replaying || verify(image, d, epoch, errp);
    return apply(image, d, errp);
}

bool epoch_writes_apply(const struct epoch_writes *w, Block *const *images, uint32_t count, bool replaying,
                        Error **errp)
{
    for (const struct disk_write *d = w->first; d; d = d->next) {
        if (d->disk < count && !images[d->disk])
            continue;
        if (!check(d, images, count, errp) || !apply_one(d, images[d->disk], w->epoch, replaying, errp))
            return false;
    }
    return true;
}
