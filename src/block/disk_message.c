/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/disk_message.h"

#include <errno.h>
#include <stdlib.h>

/* A record with one fits one frame. */
#define MESSAGE_ROOM (PERDURE_STREAM_CHUNK - 64)
#define WRITE_HEAD   21   /* octets of a write before its data */
#define PIECE_MIN    4096 /* no smaller one is cut from a large write */

static bool good(VMStream *f)
{
    return !perdure_stream_error(f, NULL);
}

static bool refuse(VMStream *f, const char *what, unsigned long long n)
{
    perdure_stream_set_error(f, -EBADMSG, "%s (%llu)", what, n);
    return false;
}

/* --- layout --- */

void disk_message_put_layout(VMStream *f, const struct disk_layout *l)
{
    perdure_stream_put_u8(f, DISK_MESSAGE_LAYOUT);
    perdure_stream_put_u64(f, l->limit);
    perdure_stream_put_u32(f, l->count);
    for (uint32_t i = 0; i < l->count; i++) {
        perdure_stream_put_string(f, l->disks[i].id);
        perdure_stream_put_u64(f, l->disks[i].size);
    }
}

bool disk_message_get_layout(VMStream *f, struct disk_layout *ret)
{
    ret->limit = perdure_stream_get_u64(f);
    ret->count = perdure_stream_get_u32(f);
    if (good(f) && ret->count > REPLICATION_DISKS_MAX)
        return refuse(f, "too many disks", ret->count);
    for (uint32_t i = 0; good(f) && i < ret->count; i++) {
        perdure_stream_get_string(f, ret->disks[i].id, sizeof(ret->disks[i].id));
        ret->disks[i].size = perdure_stream_get_u64(f);
    }
    return good(f);
}

/* --- writes --- */

/* Octets of a message that the write takes from where it is, with at most room of them; 0: not even a piece fits. */
static size_t piece_size(const struct disk_writes_out *o, size_t room)
{
    uint64_t left = o->part->data_size - o->part_sent;

    if (room < WRITE_HEAD)
        return 0;
    if (left <= room - WRITE_HEAD)
        return WRITE_HEAD + (size_t)left;
    return o->part->kind == DISK_WRITE_DATA && room >= WRITE_HEAD + PIECE_MIN ? room : 0;
}

static void put_piece(struct disk_writes_out *o, VMStream *f, size_t octets)
{
    const struct disk_write *w = o->part;
    size_t n = octets - WRITE_HEAD;

    perdure_stream_put_u8(f, (uint8_t)w->kind);
    perdure_stream_put_u32(f, w->disk);
    perdure_stream_put_u64(f, w->offset + o->part_sent);
    perdure_stream_put_u64(f, w->kind == DISK_WRITE_DATA ? n : w->size);
    perdure_stream_put_buffer(f, w->data + o->part_sent, n);
    o->part_sent += n;
    if (o->part_sent < w->data_size)
        return;
    free(o->part);
    o->part = NULL;
}

/* The write that goes on, or the next one; false: none, or an error. */
static bool have_part(struct disk_writes_out *o, Error **errp)
{
    if (o->part)
        return true;
    o->part = o->next(o->opaque, errp);
    o->part_sent = 0;
    return o->part;
}

bool disk_message_put_writes(struct disk_writes_out *o, VMStream *f, Error **errp)
{
    size_t room = MESSAGE_ROOM, n;
    Error *err = NULL;

    if (!have_part(o, errp))
        return false;
    perdure_stream_put_u8(f, DISK_MESSAGE_WRITES);
    while (have_part(o, &err) && (n = piece_size(o, room))) {
        put_piece(o, f, n);
        room -= n;
    }
    if (!err)
        return true;
    error_propagate(errp, err);
    return false;
}

/* How much data a write of that kind and size comes with; false: there is no such write. */
static bool data_size(uint8_t kind, uint64_t size, uint32_t *ret_size)
{
    switch (kind) {
    case DISK_WRITE_DATA:
        *ret_size = (uint32_t)size;
        return size && size <= DISK_WRITE_MESSAGE_MAX;
    case DISK_WRITE_ZERO:
    case DISK_WRITE_UNMAP:
        *ret_size = 0;
        return size;
    case DISK_WRITE_VERIFY:
        *ret_size = DISK_HASH_SIZE;
        return size && size <= REPLICATION_CHUNK_SIZE;
    default:
        return false;
    }
}

struct disk_write *disk_message_get_write(VMStream *f)
{
    uint8_t kind = perdure_stream_get_u8(f);
    uint32_t disk = perdure_stream_get_u32(f), n = 0;
    uint64_t offset = perdure_stream_get_u64(f), size = perdure_stream_get_u64(f);
    struct disk_write *w;

    if (!good(f))
        return NULL;
    if (!data_size(kind, size, &n)) {
        perdure_stream_set_error(f, -EBADMSG, "a write of kind %u and size %llu", kind,
                                 (unsigned long long)size);
        return NULL;
    }
    w = disk_write_new(kind, disk, offset, size, n);
    if (!w)
        perdure_stream_set_error(f, -ENOMEM, "no memory for a write of %u bytes", n);
    else if (!perdure_stream_get_buffer(f, w->data, n)) {
        free(w);
        w = NULL;
    }
    return w;
}

/* --- questions --- */

void disk_message_put_question(VMStream *f, const struct disk_question *q)
{
    perdure_stream_put_u8(f, DISK_MESSAGE_QUESTION);
    perdure_stream_put_u32(f, q->disk);
    perdure_stream_put_u64(f, q->offset);
    perdure_stream_put_u32(f, q->count);
    perdure_stream_put_buffer(f, q->hashes, q->count * sizeof(q->hashes[0]));
}

bool disk_message_get_question(VMStream *f, struct disk_question *ret)
{
    ret->disk = perdure_stream_get_u32(f);
    ret->offset = perdure_stream_get_u64(f);
    ret->count = perdure_stream_get_u32(f);
    if (good(f) && (!ret->count || ret->count > DISK_QUESTION_MAX))
        return refuse(f, "a question about that many chunks", ret->count);
    return perdure_stream_get_buffer(f, ret->hashes, ret->count * sizeof(ret->hashes[0]));
}

static size_t bitmap_size(uint32_t count)
{
    return (count + 7) / 8;
}

void disk_message_put_reply(VMStream *f, const struct disk_reply *r)
{
    perdure_stream_put_u8(f, DISK_MESSAGE_REPLY);
    perdure_stream_put_u32(f, r->disk);
    perdure_stream_put_u64(f, r->offset);
    perdure_stream_put_u32(f, r->count);
    perdure_stream_put_buffer(f, r->differs, bitmap_size(r->count));
}

bool disk_message_get_reply(VMStream *f, struct disk_reply *ret)
{
    ret->disk = perdure_stream_get_u32(f);
    ret->offset = perdure_stream_get_u64(f);
    ret->count = perdure_stream_get_u32(f);
    if (good(f) && (!ret->count || ret->count > DISK_QUESTION_MAX))
        return refuse(f, "a reply about that many chunks", ret->count);
    return perdure_stream_get_buffer(f, ret->differs, bitmap_size(ret->count));
}
