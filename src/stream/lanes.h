/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lanes: streams beside a main one, each with a task of its own: what is much to encode, or to take in, then uses several processors
 * and connections. What they carry is their user's; here is only who waits for whom.
 *
 * The main stream goes part by part, and both sides count the parts. A part is shared, and each lane carries one record of it
 * (PERDURE_RECORD_SECTION_SHARE, its id the number of the part; it may be empty), or it is not. A share is taken in when the part before
 * it is over on the main stream; a shared part is over when all its shares have been taken in. So nothing overtakes anything from one part
 * to the next, whatever connection it comes over, and within a part nothing may depend on order. Before a part is shared, what goes before
 * it must have left the main stream's buffer: shares wait for that at the other side, and may fill their connections until then.
 *
 *     l = lanes_new(channels, count, errp);                   // both sides; channels are borrowed
 *
 *     lanes_start(l, LANES_PUT, put, opaque, errp);           // writing side: put() fills a share
 *     for each part:
 *         lanes_share(l);                                     // all of them begin
 *         ... this task's own share goes into the main stream ...
 *         ok = lanes_join(l, errp);                           // and all have flushed; or lanes_skip(l, errp): not shared
 *
 *     lanes_start(l, LANES_TAKE, take, opaque, errp);         // reading side: take() reads a share to its end
 *     for each part, its own share being in place:
 *         ok = lanes_join(l, errp);                           // or lanes_skip(), which refuses if there was a share of it
 *     ok = lanes_end(l, errp);                                // no part follows, and no share of one has come
 *
 *     lanes_free(l);
 *
 * Errors: the first one of any lane is what lanes_join(), lanes_skip() and lanes_end() return from then on. On the reading side, where
 * somebody may be waiting for the main stream, `broken` is called as well, once, by the lane's task. A writing lane ends a wait at its
 * channel's deadline.
 *
 * Threads: all calls by the main stream's task; put and take by the lanes'.
 */
#ifndef STREAM_LANES_H
#define STREAM_LANES_H

#include "stream/channel.h"
#include <perdure/stream.h>

#define LANES_MAX 15

typedef struct Lanes Lanes;

enum lanes_direction { LANES_PUT, LANES_TAKE };

/* count: 1 to LANES_MAX. broken (NULL: nobody) may be called until lanes_end(). */
Lanes *lanes_new(Channel *const *channels, unsigned count, void (*broken)(void *opaque, const char *why),
                 void *opaque, Error **errp);
/* f: the open record. lane: 0 to count - 1. Once. */
bool lanes_start(Lanes *l, enum lanes_direction d, void (*work)(void *opaque, VMStream *f, unsigned lane),
                 void *opaque, Error **errp);
unsigned lanes_count(const Lanes *l); /* NULL: 0 */
void lanes_share(Lanes *l);
bool lanes_join(Lanes *l, Error **errp);
bool lanes_skip(Lanes *l, Error **errp);
/* What comes on a lane after this is refused by `broken`, the end of it is not. */
bool lanes_end(Lanes *l, Error **errp);
/* Shuts the channels down, and waits for the tasks. NULL is fine. */
void lanes_free(Lanes *l);

/* Writing side, between parts: what all of them have carried. NULL: 0. */
uint64_t lanes_bytes(const Lanes *l);

#endif
