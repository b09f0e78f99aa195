/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writers gather whole frames in buf. A memory stream's grows; that of a channel is written out when less
 * than a whole frame has room. A body that is already in one piece goes to the channel from where it is.
 */
#include "stream/vmstream_private.h"
#include "base/endian.h"
#include "base/task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Sends what is in buf, and extra behind it. */
static void write_out(VMStream *f, const void *extra, size_t extra_size)
{
    struct iovec iov[2] = {
        {.iov_base = f->buf, .iov_len = f->used},
        {.iov_base = (void *)extra, .iov_len = extra_size},
    };
    int64_t began = clock_now();
    Error *err = NULL;

    if (!channel_writev(f->ch, iov, 2, &err)) {
        vmstream_take_error(f, err);
        return;
    }
    f->waited += clock_now() - began;
    f->flushed += f->used + extra_size;
    f->used = f->frame_at = 0;
}

/* Memory streams: room for n more bytes. */
static bool grow(VMStream *f, size_t n)
{
    size_t capacity = f->capacity < 4096 ? 4096 : f->capacity;
    uint8_t *buf;

    if (n <= f->capacity - f->used)
        return true;
    while (capacity - f->used < n && capacity <= SIZE_MAX / 2)
        capacity *= 2;
    buf = realloc(f->buf, capacity);
    if (!buf) {
        perdure_stream_set_error(f, -ENOMEM, "no memory for a stream of %zu bytes", capacity);
        return false;
    }
    f->buf = buf;
    f->capacity = capacity;
    return true;
}

static bool begin_frame(VMStream *f)
{
    if (f->kind == VMSTREAM_MEMORY && !grow(f, FRAME_HEADER_SIZE))
        return false;
    if (f->kind == VMSTREAM_WRITER && f->capacity - f->used < FRAME_MAX_SIZE)
        write_out(f, NULL, 0);
    if (f->err)
        return false;
    f->frame_at = f->used;
    f->used += FRAME_HEADER_SIZE;
    return true;
}

static size_t body_size(const VMStream *f)
{
    return f->used - f->frame_at - FRAME_HEADER_SIZE;
}

static void put_header(VMStream *f, uint16_t flags, const void *body, size_t size)
{
    struct frame fr = {.type = f->type, .flags = flags, .length = (uint32_t)size, .id = f->id};

    frame_encode(f->buf + f->frame_at, &fr, body);
}

static void finish_frame(VMStream *f, uint16_t flags)
{
    put_header(f, flags, f->buf + f->frame_at + FRAME_HEADER_SIZE, body_size(f));
    f->frame_at = f->used;
    f->continued = flags & FRAME_MORE;
}

/* The open frame is empty: a full body, which more will follow, goes out from where it is. */
static bool put_direct(VMStream *f, const void *body)
{
    put_header(f, FRAME_MORE, body, PERDURE_STREAM_CHUNK);
    f->continued = true;
    write_out(f, body, PERDURE_STREAM_CHUNK);
    return !f->err && begin_frame(f);
}

static bool can_write(VMStream *f, bool in_record)
{
    if (f->err)
        return false;
    if (vmstream_is_writer(f) && f->in_record == in_record)
        return true;
    perdure_stream_set_error(f, -EINVAL, "%s",
                             !vmstream_is_writer(f) ? "this stream is for reading"
                             : in_record            ? "nothing is written outside of a record"
                                                    : "the record before is still open");
    return false;
}

void perdure_stream_begin(VMStream *f, uint16_t type, uint64_t id)
{
    if (!can_write(f, false))
        return;
    f->type = type;
    f->id = id;
    f->continued = false;
    f->in_record = begin_frame(f);
}

void vmstream_cancel(VMStream *f)
{
    if (!can_write(f, true))
        return;
    if (f->continued) {
        perdure_stream_set_error(f, -EINVAL, "too much of the record was written to take it back");
        return;
    }
    f->used = f->frame_at;
    f->in_record = false;
}

void perdure_stream_end(VMStream *f)
{
    if (!can_write(f, true))
        return;
    finish_frame(f, 0);
    f->in_record = false;
}

/* Whatever does not simply fit. */
static void put_pieces(VMStream *f, const uint8_t *p, size_t size)
{
    while (size) {
        size_t n = PERDURE_STREAM_CHUNK - body_size(f);

        if (!n) {
            finish_frame(f, FRAME_MORE);
            if (!begin_frame(f))
                return;
            continue;
        }
        if (f->ch && n == PERDURE_STREAM_CHUNK && size > n) {
            if (!put_direct(f, p))
                return;
        } else {
            n = n < size ? n : size;
            if (!f->ch && !grow(f, n))
                return;
            memcpy(f->buf + f->used, p, n);
            f->used += n;
        }
        p += n;
        size -= n;
    }
}

/* Most of what is put is a few bytes of device state, in a pause of the guest. */
static inline __attribute__((always_inline)) void put(VMStream *f, const void *data, size_t size)
{
    if (!can_write(f, true))
        return;
    if (size > PERDURE_STREAM_CHUNK - body_size(f) || size > f->capacity - f->used) {
        put_pieces(f, data, size);
        return;
    }
    memcpy(f->buf + f->used, data, size);
    f->used += size;
}

void perdure_stream_put_buffer(VMStream *f, const void *data, size_t size)
{
    put(f, data, size);
}

void perdure_stream_put_u8(VMStream *f, uint8_t v)
{
    put(f, &v, sizeof(v));
}

void perdure_stream_put_u16(VMStream *f, uint16_t v)
{
    le16_put(&v, v);
    put(f, &v, sizeof(v));
}

void perdure_stream_put_u32(VMStream *f, uint32_t v)
{
    le32_put(&v, v);
    put(f, &v, sizeof(v));
}

void perdure_stream_put_u64(VMStream *f, uint64_t v)
{
    le64_put(&v, v);
    put(f, &v, sizeof(v));
}

void perdure_stream_put_string(VMStream *f, const char *s)
{
    size_t n = strlen(s);

    if (n > UINT16_MAX) {
        perdure_stream_set_error(f, -EINVAL, "a string of %zu bytes is too long for a stream", n);
        return;
    }
    perdure_stream_put_u16(f, (uint16_t)n);
    perdure_stream_put_buffer(f, s, n);
}

void vmstream_put_frames(VMStream *f, const void *frames, size_t size)
{
    if (!can_write(f, false) || !size)
        return;
    if (f->kind == VMSTREAM_WRITER && size > f->capacity - f->used) {
        write_out(f, frames, size);
        return;
    }
    if (f->kind == VMSTREAM_MEMORY && !grow(f, size))
        return;
    memcpy(f->buf + f->used, frames, size);
    f->used += size;
    f->frame_at = f->used;
}

void vmstream_append_from(VMStream *f, const VMStream *src, size_t from)
{
    size_t size;
    const uint8_t *frames = perdure_stream_memory(src, &size);

    if (src->kind != VMSTREAM_MEMORY || src->in_record || src->err || from > size)
        perdure_stream_set_error(f, -EINVAL, "the stream to append is not a whole one in memory");
    else
        vmstream_put_frames(f, frames + from, size - from);
}

void perdure_stream_append(VMStream *f, const VMStream *src)
{
    vmstream_append_from(f, src, 0);
}

void perdure_stream_rewind(VMStream *f)
{
    if (f->kind != VMSTREAM_MEMORY) {
        perdure_stream_set_error(f, -EINVAL, "only a stream in memory can be rewound");
        return;
    }
    error_free(f->err);
    f->err = NULL;
    f->in_record = false;
    f->used = f->frame_at = 0;
}

bool perdure_stream_flush(VMStream *f, Error **errp)
{
    if (!f->err && f->kind == VMSTREAM_WRITER) {
        if (f->in_record)
            perdure_stream_set_error(f, -EINVAL, "a stream cannot be flushed inside of a record");
        else if (f->used)
            write_out(f, NULL, 0);
    }
    return perdure_stream_error(f, errp) == 0;
}

int64_t vmstream_waited(const VMStream *f)
{
    return f->waited;
}
