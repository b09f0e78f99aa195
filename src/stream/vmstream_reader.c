/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Readers take one frame at a time, never a byte beyond it, and check it whole before anybody sees a byte of
 * it: whoever reads the same channel after this stream finds it right behind the last record.
 */
#include "stream/vmstream_private.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/task.h"

#include <errno.h>
#include <string.h>

static void cut_off(VMStream *f, const char *where)
{
    /* A peer that is gone is another matter than a file that is damaged. */
    bool peer = f->ch && !f->owns_channel;

    perdure_stream_set_error(f, peer ? -ECONNRESET : -EBADMSG,
                             "%s%sthe stream ends inside of a %s at offset %llu", f->ch ? f->ch->peer : "",
                             f->ch ? ": " : "", where, (unsigned long long)f->frame_begin);
}

static void bad_frame(VMStream *f, const struct frame *fr, const char *what)
{
    perdure_stream_set_error(f, -EBADMSG, "record type 0x%x id %llu at offset %llu: %s", fr->type,
                             (unsigned long long)fr->id, (unsigned long long)f->frame_begin, what);
}

static void bad_record(VMStream *f, const char *what)
{
    bad_frame(f, &(struct frame){.type = f->type, .id = f->id}, what);
}

bool vmstream_has_begun(VMStream *f)
{
    Error *err = NULL;
    bool there;
    ssize_t r;

    if (f->err || f->ahead)
        return true;
    r = f->ch->ops->read(f->ch, f->buf, 1, clock_now(), &err);
    f->ahead = r > 0;
    there = r >= 0 || error_get_errno(err) != ETIMEDOUT; /* an end or error comes again */
    error_free(err);
    return there;
}

/* Up to n bytes from the channel to buf + at; fewer at its end or on an error. */
static size_t read_channel(VMStream *f, size_t at, size_t n)
{
    size_t done = at ? 0 : f->ahead;
    Error *err = NULL;

    f->ahead = 0;
    while (done < n) {
        ssize_t r = channel_read(f->ch, f->buf + at + done, n - done, &err);

        if (r < 0)
            vmstream_take_error(f, err);
        if (r <= 0)
            break;
        done += (size_t)r;
    }
    return done;
}

/* Makes n bytes of the medium follow the at ones that f->frame has. How many there are. */
static size_t fetch(VMStream *f, size_t at, size_t n)
{
    size_t there;

    if (f->ch) {
        f->frame = f->buf;
        there = read_channel(f, at, n);
    } else {
        f->frame = f->data + f->frame_begin;
        there = f->data_size - f->offset;
        there = there < n ? there : n;
    }
    f->offset += there;
    return there;
}

static bool check_continuation(VMStream *f, const struct frame *fr)
{
    if (fr->type == f->type && fr->id == f->id && fr->length)
        return true;
    bad_frame(f, fr, "it does not go on with the record before, which is not complete");
    return false;
}

/* Takes the next frame. false: the stream is at its end (no error), or there is one. */
static bool next_frame(VMStream *f, bool continuation)
{
    const char *wrong;
    struct frame fr;
    size_t n;

    f->body_left = 0;
    f->frame_begin = f->offset;
    n = fetch(f, 0, FRAME_HEADER_SIZE);
    if (n < FRAME_HEADER_SIZE) {
        if (n || continuation)
            cut_off(f, n ? "frame header" : "record");
        return false;
    }
    wrong = frame_decode(f->frame, &fr);
    if (wrong) {
        perdure_stream_set_error(f, -EBADMSG, "frame at offset %llu: %s", (unsigned long long)f->frame_begin,
                                 wrong);
        return false;
    }
    if (continuation && !check_continuation(f, &fr))
        return false;
    if (fetch(f, FRAME_HEADER_SIZE, fr.length) < fr.length) {
        cut_off(f, "frame");
        return false;
    }
    if (crc32c(0, f->frame + FRAME_HEADER_SIZE, fr.length) != fr.body_crc) {
        bad_frame(f, &fr, "the checksum of the body is wrong");
        return false;
    }
    f->type = fr.type;
    f->id = fr.id;
    f->frame_size = FRAME_HEADER_SIZE + fr.length;
    f->body = f->frame + FRAME_HEADER_SIZE;
    f->body_left = fr.length;
    f->more = fr.flags & FRAME_MORE;
    return true;
}

static bool can_read(VMStream *f, bool in_record)
{
    if (f->err)
        return false;
    if (!vmstream_is_writer(f) && f->in_record == in_record)
        return true;
    perdure_stream_set_error(f, -EINVAL, "%s",
                             vmstream_is_writer(f) ? "this stream is for writing"
                             : in_record           ? "nothing is read outside of a record"
                                                   : "the record before is still open");
    return false;
}

bool perdure_stream_next(VMStream *f, uint16_t *type, uint64_t *id)
{
    if (!can_read(f, false) || !next_frame(f, false))
        return false;
    f->in_record = true;
    *type = f->type;
    *id = f->id;
    return true;
}

void perdure_stream_done(VMStream *f)
{
    if (!can_read(f, true))
        return;
    if (f->body_left || f->more)
        bad_record(f, "bytes are left over at its end");
    f->in_record = false;
}

void perdure_stream_skip(VMStream *f)
{
    if (!can_read(f, true))
        return;
    while (f->more && next_frame(f, true))
        ;
    f->body_left = 0;
    f->in_record = false;
}

size_t perdure_stream_left(const VMStream *f)
{
    if (f->err || !f->in_record)
        return 0;
    return f->more ? SIZE_MAX : f->body_left;
}

/* Some bytes of the record are there to be got. */
static bool has_bytes(VMStream *f)
{
    if (f->body_left)
        return true;
    if (f->more)
        return next_frame(f, true);
    bad_record(f, "it ends too early");
    return false;
}

size_t vmstream_left_in_place(const VMStream *f)
{
    return f->err || !f->in_record ? 0 : f->body_left;
}

const void *vmstream_get_in_place(VMStream *f, size_t size)
{
    const uint8_t *at = f->body;

    if (vmstream_is_writer(f) || size > vmstream_left_in_place(f))
        return NULL;
    f->body += size;
    f->body_left -= size;
    return at;
}

bool perdure_stream_get_buffer(VMStream *f, void *data, size_t size)
{
    size_t done = 0;

    if (can_read(f, true)) {
        while (done < size && has_bytes(f)) {
            size_t n = f->body_left < size - done ? f->body_left : size - done;

            memcpy((uint8_t *)data + done, f->body, n);
            f->body += n;
            f->body_left -= n;
            done += n;
        }
    }
    if (f->err && size)
        memset(data, 0, size);
    return !f->err;
}

uint8_t perdure_stream_get_u8(VMStream *f)
{
    uint8_t v;

    perdure_stream_get_buffer(f, &v, sizeof(v));
    return v;
}

uint16_t perdure_stream_get_u16(VMStream *f)
{
    uint16_t v;

    perdure_stream_get_buffer(f, &v, sizeof(v));
    return le16_get(&v);
}

uint32_t perdure_stream_get_u32(VMStream *f)
{
    uint32_t v;

    perdure_stream_get_buffer(f, &v, sizeof(v));
    return le32_get(&v);
}

uint64_t perdure_stream_get_u64(VMStream *f)
{
    uint64_t v;

    perdure_stream_get_buffer(f, &v, sizeof(v));
    return le64_get(&v);
}

bool perdure_stream_get_string(VMStream *f, char *buf, size_t size)
{
    size_t n = perdure_stream_get_u16(f);

    buf[0] = 0;
    if (f->err)
        return false;
    if (n >= size) {
        bad_record(f, "a string in it is too long");
        return false;
    }
    buf[n] = 0;
    if (!perdure_stream_get_buffer(f, buf, n)) {
        buf[0] = 0;
        return false;
    }
    if (strlen(buf) != n) {
        bad_record(f, "a string in it has a NUL inside");
        buf[0] = 0;
        return false;
    }
    return true;
}

/* How many bytes of frames a copy may add to out. */
static size_t room_for_copy(const VMStream *out, size_t limit)
{
    return limit > out->used ? limit - out->used : 0;
}

void vmstream_copy_record(VMStream *in, VMStream *out, size_t limit)
{
    size_t begin = out->used;

    if (!can_read(in, true))
        return;
    do {
        if (in->frame_size > room_for_copy(out, limit))
            perdure_stream_set_error(
                in, -EMSGSIZE, "record type 0x%x id %llu at offset %llu is more than fits into %zu bytes",
                in->type, (unsigned long long)in->id, (unsigned long long)in->frame_begin, limit);
        else
            vmstream_put_frames(out, in->frame, in->frame_size);
        if (out->err)
            vmstream_take_error(in, error_copy(out->err));
    } while (!in->err && in->more && next_frame(in, true));
    if (in->err && !out->err)
        out->used = out->frame_at = begin; /* no half record */
    in->body_left = 0;
    in->in_record = false;
}
