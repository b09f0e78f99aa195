/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of VMStream, shared by vmstream.c (life and errors), vmstream_writer.c and vmstream_reader.c.
 */
#ifndef STREAM_VMSTREAM_PRIVATE_H
#define STREAM_VMSTREAM_PRIVATE_H

#include "stream/frame.h"
#include "stream/vmstream.h"

enum vmstream_kind {
    VMSTREAM_WRITER, /* over ch */
    VMSTREAM_MEMORY, /* writer into buf, which grows */
    VMSTREAM_READER, /* over ch, through buf */
    VMSTREAM_BUFFER, /* reader of data */
};

struct VMStream {
    enum vmstream_kind kind;
    Error *err; /* the first one; sticky */
    bool in_record;
    uint16_t type; /* of the open record */
    uint64_t id;

    Channel *ch;
    bool owns_channel; /* made here over a borrowed descriptor */

    uint8_t *buf; /* writers: frames; channel readers: one frame, header and body */
    size_t capacity;

    /* Writers. */
    size_t used;      /* of buf */
    size_t frame_at;  /* where the open frame begins, == used while there is none */
    uint64_t flushed; /* bytes that have left buf */
    int64_t waited;   /* ns, for the channel to take them */
    bool continued;   /* the open record has frames before the open one */

    /* Readers. */
    size_t ahead;        /* bytes of the next frame that buf has already */
    const uint8_t *data; /* VMSTREAM_BUFFER: borrowed */
    size_t data_size;
    uint64_t offset;      /* of the medium: behind the open frame */
    uint64_t frame_begin; /* of the medium: where the open frame begins; for messages */
    const uint8_t *frame; /* header and body, checked */
    size_t frame_size;
    const uint8_t *body; /* next byte to be got */
    size_t body_left;
    bool more; /* another frame of the record follows */
};

/* Of the largest frame. */
#define FRAME_MAX_SIZE (FRAME_HEADER_SIZE + (size_t)PERDURE_STREAM_CHUNK)

VMStream *vmstream_alloc(enum vmstream_kind kind, size_t capacity);
static inline bool vmstream_is_writer(const VMStream *f)
{
    return f->kind == VMSTREAM_WRITER || f->kind == VMSTREAM_MEMORY;
}
/* Appends whole frames to a writer that has no record open. */
void vmstream_put_frames(VMStream *f, const void *frames, size_t size);

#endif
