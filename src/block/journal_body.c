/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The body of an epoch in the journal: its writes, one after the other.
 */
#include "base/crc32c.h"
#include "base/endian.h"
#include "block/journal_format.h"

#include <string.h>

static const uint8_t zeroes[JOURNAL_PADDING];

static uint32_t padding(uint32_t data_size)
{
    return -data_size % JOURNAL_PADDING;
}

static void encode_write(const struct disk_write *d, uint8_t out[JOURNAL_WRITE_SIZE])
{
    le32_put(out, d->kind);
    le32_put(out + 4, d->disk);
    le64_put(out + 8, d->offset);
    le64_put(out + 16, d->size);
    le32_put(out + 24, d->data_size);
    le32_put(out + 28, 0);
}

bool journal_body_encode(const struct epoch_writes *w, journal_sink *sink, void *opaque, Error **errp)
{
    for (const struct disk_write *d = w->first; d; d = d->next) {
        uint8_t head[JOURNAL_WRITE_SIZE];

        encode_write(d, head);
        if (!sink(opaque, head, sizeof(head), errp) || !sink(opaque, d->data, d->data_size, errp) ||
            !sink(opaque, zeroes, padding(d->data_size), errp))
            return false;
    }
    return true;
}

uint64_t journal_body_size(const struct epoch_writes *w)
{
    uint64_t size = 0;

    for (const struct disk_write *d = w->first; d; d = d->next)
        size += JOURNAL_WRITE_SIZE + (uint64_t)d->data_size + padding(d->data_size);
    return size;
}

static bool add_to_crc(void *opaque, const void *data, size_t n, Error **errp)
{
    uint32_t *crc = opaque;

    (void)errp;
    *crc = crc32c(*crc, data, n);
    return true;
}

uint32_t journal_body_crc(const struct epoch_writes *w)
{
    uint32_t crc = 0;

    journal_body_encode(w, add_to_crc, &crc, NULL);
    return crc;
}

static bool size_is_possible(const struct disk_write *d)
{
    switch (d->kind) {
    case DISK_WRITE_DATA:
        return d->data_size == d->size && d->size <= BLOCK_SIZE_MAX;
    case DISK_WRITE_ZERO:
    case DISK_WRITE_UNMAP:
        return !d->data_size;
    case DISK_WRITE_VERIFY:
        return d->data_size == DISK_HASH_SIZE && d->size <= BLOCK_SIZE_MAX;
    }
    return false; /* no kind at all */
}

bool journal_write_check(const struct journal_identity *identity, const struct disk_write *d, Error **errp)
{
    uint64_t disk_size;

    if (d->disk >= identity->disk_count) {
        error_setg(errp, "a write to disk number %u, of %u disks", d->disk, identity->disk_count);
        return false;
    }
    disk_size = identity->disks[d->disk].size;
    if (!size_is_possible(d)) {
        error_setg(errp, "disk %s: a write of kind %u, %llu bytes and %u bytes of data",
                   identity->disks[d->disk].id, d->kind, (unsigned long long)d->size, d->data_size);
        return false;
    }
    if (d->offset > disk_size || d->size > disk_size - d->offset) {
        error_setg(errp, "disk %s: %llu bytes at %llu lie beyond its end", identity->disks[d->disk].id,
                   (unsigned long long)d->size, (unsigned long long)d->offset);
        return false;
    }
    return true;
}

/* The write at the front of n bytes; *ret_used is what it takes of them. */
static struct disk_write *decode_write(const struct journal_identity *identity, const uint8_t *in, uint64_t n,
                                       uint64_t *ret_used, Error **errp)
{
    struct disk_write head, *d = NULL;

    if (n < JOURNAL_WRITE_SIZE) {
        error_setg(errp, "a write is cut off");
        return NULL;
    }
    head = (struct disk_write){
        .kind = le32_get(in),
        .disk = le32_get(in + 4),
        .offset = le64_get(in + 8),
        .size = le64_get(in + 16),
        .data_size = le32_get(in + 24),
    };
    if (!journal_write_check(identity, &head, errp))
        return NULL;
    *ret_used = JOURNAL_WRITE_SIZE + (uint64_t)head.data_size + padding(head.data_size);
    if (le32_get(in + 28) || *ret_used > n ||
        memcmp(in + JOURNAL_WRITE_SIZE + head.data_size, zeroes, padding(head.data_size)))
        error_setg(errp, "a write of %u bytes of data is cut off, or not filled up as it should be",
                   head.data_size);
    else if (!(d = disk_write_new(head.kind, head.disk, head.offset, head.size, head.data_size)))
        error_setg(errp, "out of memory");
    else
        memcpy(d->data, in + JOURNAL_WRITE_SIZE, head.data_size);
    return d;
}

struct epoch_writes *journal_body_decode(const struct journal_identity *identity,
                                         const struct journal_head *head, const uint8_t *body, Error **errp)
{
    struct epoch_writes *w = epoch_writes_new();
    uint64_t left = head->body_size, used;

    if (!w) {
        error_setg(errp, "out of memory");
        return NULL;
    }
    w->epoch = head->epoch;
    while (left) {
        struct disk_write *d = decode_write(identity, body, left, &used, errp);

        if (!d)
            goto fail;
        epoch_writes_add(w, d);
        body += used;
        left -= used;
    }
    if (w->count == head->count)
        return w;
    error_setg(errp, "%llu writes instead of %llu", (unsigned long long)w->count,
               (unsigned long long)head->count);
fail:
    epoch_writes_free(w);
    return NULL;
}
