/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of VMStream for the layers above: streams over a channel, and whole records from one stream to
 * another.
 *
 * A stream's waits end by the channel's deadline or shutdown; the sticky error then has the channel's errno
 * (-ETIMEDOUT, -ECANCELED). After a stream is closed the channel can go on under another one: readers take no
 * byte beyond their last record.
 */
#ifndef STREAM_VMSTREAM_H
#define STREAM_VMSTREAM_H

#include <perdure/stream.h>
#include "stream/channel.h"

/* ch is borrowed. writable and readable streams over one channel are two VMStreams; one task may write while
 * another reads. NULL: no memory. */
VMStream *vmstream_new_writer(Channel *ch);
VMStream *vmstream_new_reader(Channel *ch);
/* Reader over a channel, between records: something of the next one, or the stream's end or error, is there to be read. Never
 * waits. The stream keeps what it has read for that: until that record was read the channel cannot go on under another stream. */
bool vmstream_has_begun(VMStream *f);
/* Reader, in a record: its next size bytes where they are, until the next call on f; NULL: they are not all in the frame at hand, and
 * nothing was taken. */
const void *vmstream_get_in_place(VMStream *f, size_t size);
/* How many bytes could be had so. */
size_t vmstream_left_in_place(const VMStream *f);
/* Reads the next whole record of in (checked), which perdure_stream_next() has just opened, and appends it
 * verbatim to the memory stream out; closes it. Refused with a sticky error on in when out would grow beyond
 * limit bytes. */
void vmstream_copy_record(VMStream *in, VMStream *out, size_t limit);
/* Writer: how long it has waited for its channel to take what it had, ns. */
int64_t vmstream_waited(const VMStream *f);
/* Writer: takes back the open record, into which at most PERDURE_STREAM_CHUNK bytes were put. */
void vmstream_cancel(VMStream *f);
/* Takes err as the sticky error, if it is the first. */
void vmstream_take_error(VMStream *f, Error *err);
/* The frames of memory stream src from that octet on, which begins a record, verbatim. */
void vmstream_append_from(VMStream *f, const VMStream *src, size_t from);
/* A second look at a memory stream's frames: a reader over them (borrowed). */
VMStream *vmstream_reopen_memory(const VMStream *mem);

#endif
