/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VMStream: a framed, checksummed byte stream of machine state, to a file, a socket or memory
 * (docs/wire-format.md).
 *
 * The stream is a sequence of records {type, flags, length, id, CRC32C}. A writer opens a record, puts bytes,
 * closes it; a body larger than PERDURE_STREAM_CHUNK travels as several frames of one record. A reader takes
 * the next record, gets bytes and closes it; getting past the end of a record or leaving bytes behind is an
 * error. Errors are sticky: the first one is kept, after it puts do nothing and gets return zeroes; a reader
 * checks perdure_stream_error() before it trusts what it got, above all a length.
 *
 *     VMStream *f = perdure_stream_open_fd(fd, "w", errp);
 *
 *     perdure_stream_begin(f, TYPE, id);
 *     perdure_stream_put_u32(f, count);
 *     perdure_stream_put_buffer(f, data, size);
 *     perdure_stream_end(f);
 *     ok = perdure_stream_flush(f, errp);
 *     perdure_stream_close(f);
 *
 * and on the other side:
 *
 *     while (perdure_stream_next(f, &type, &id)) {
 *         if (type != TYPE) {
 *             perdure_stream_skip(f);
 *             continue;
 *         }
 *         count = perdure_stream_get_u32(f);
 *         if (perdure_stream_error(f, NULL) || count > LIMIT)
 *             break;                                   // no number is trusted before this
 *         perdure_stream_get_buffer(f, data, count);
 *         perdure_stream_done(f);
 *     }
 *     failed = perdure_stream_error(f, errp) != 0;
 *
 * Order of calls: writer begin, put..., end, again; then flush, close. Reader next, get..., done or skip,
 * again; then close. What breaks the order sets the sticky error -EINVAL. The functions that open return NULL
 * only for lack of memory (open_fd: or a bad mode, with errp). Nothing allocates after the opening, but for
 * memory streams that grow and for errors.
 *
 * A reader takes nothing from the medium beyond the record it returned. A writer gathers up to half a
 * megabyte: flush before you wait for an answer. Threads: one thread at a time. All numbers little-endian.
 *
 * Errors, as negative errno: -EBADMSG the stream is damaged or not what the reader expects; -ECONNRESET the
 * peer is gone in the middle of it; -EINVAL calls in the wrong order; -ENOMEM; whatever the channel or
 * descriptor said.
 */
#ifndef PERDURE_STREAM_H
#define PERDURE_STREAM_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

typedef struct VMStream VMStream;

#define PERDURE_STREAM_CHUNK    (256 * 1024) /* largest body of one frame */
#define PERDURE_RECORD_OPTIONAL 0x8000u      /* in a type: a reader that does not know it may skip it */

/* The descriptor is borrowed, and left in the mode it is in. mode: "r" or "w". */
VMStream *perdure_stream_open_fd(int fd, const char *mode, Error **errp);
/* Writes to memory that the stream owns; grows, beginning with reserve bytes. */
VMStream *perdure_stream_open_memory(size_t reserve);
/* Reads size bytes at data (borrowed until close). */
VMStream *perdure_stream_open_buffer(const void *data, size_t size);
/* What a memory stream holds (complete frames); borrowed until the next put. */
const void *perdure_stream_memory(const VMStream *f, size_t *size);
/* Empties a memory stream, its error too, keeps its allocation: no allocation on the next use up to the size
 * it had. */
void perdure_stream_rewind(VMStream *f);
/* Flushes a writer; false with the sticky error. */
bool perdure_stream_flush(VMStream *f, Error **errp);
/* Frees, and does not flush: only flush can say whether all of it arrived. NULL is fine. */
void perdure_stream_close(VMStream *f);

/* --- records --- */
void perdure_stream_begin(VMStream *f, uint16_t type, uint64_t id);
void perdure_stream_end(VMStream *f);
/* Next record: false at a clean end of the stream (no error set) or on an error (perdure_stream_error). Skips
 * unknown optional records only when the caller closes them with perdure_stream_skip(). */
bool perdure_stream_next(VMStream *f, uint16_t *type, uint64_t *id);
/* Reader: closes the record; bytes left in it are an error. */
void perdure_stream_done(VMStream *f);
/* Reader: closes the record, whatever is left in it; that is checked all the same. */
void perdure_stream_skip(VMStream *f);
/* Appends all frames of memory stream src, verbatim. */
void perdure_stream_append(VMStream *f, const VMStream *src);

/* --- contents --- */
void perdure_stream_put_buffer(VMStream *f, const void *data, size_t size);
void perdure_stream_put_u8(VMStream *f, uint8_t v);
void perdure_stream_put_u16(VMStream *f, uint16_t v);
void perdure_stream_put_u32(VMStream *f, uint32_t v);
void perdure_stream_put_u64(VMStream *f, uint64_t v);
/* u16 length and bytes; at most 65535. */
void perdure_stream_put_string(VMStream *f, const char *s);
/* false (and size zero bytes) when there are fewer. */
bool perdure_stream_get_buffer(VMStream *f, void *data, size_t size);
uint8_t perdure_stream_get_u8(VMStream *f);
uint16_t perdure_stream_get_u16(VMStream *f);
uint32_t perdure_stream_get_u32(VMStream *f);
uint64_t perdure_stream_get_u64(VMStream *f);
/* Fills buf (NUL-terminated); a string of size bytes or more, or one with a NUL inside, is an error. */
bool perdure_stream_get_string(VMStream *f, char *buf, size_t size);
/* Bytes not yet read of the current frame chain; SIZE_MAX while later frames of the record are still to come.
 */
size_t perdure_stream_left(const VMStream *f);

/* --- errors and figures --- */
/* 0, or the negative errno of the first error, a copy of which goes to errp. */
int perdure_stream_error(const VMStream *f, Error **errp);
/* errnum negative; kept only if it is the first. */
void perdure_stream_set_error(VMStream *f, int errnum, const char *fmt, ...) PERDURE_PRINTF(3, 4);
/* Bytes put on, or taken from, the medium so far, frames included. */
uint64_t perdure_stream_bytes(const VMStream *f);

#endif
