/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Held queue: messages (frames, stretches of console bytes) in order, each of the epoch that produced it,
 * until that epoch is acknowledged. What output_buffer.c and console_gate.c have in common.
 *
 * A ring of bytes, allocated once. Epochs close in order and are released in order. Off (not holding) it is
 * empty and takes nothing. Own lock, below every other: no callback is made with it held.
 */
#ifndef NET_HELD_QUEUE_H
#define NET_HELD_QUEUE_H

#include <perdure/checkpoint_device.h>
#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct held_queue;

/* limit: bytes, with 4 for each message. */
struct held_queue *held_queue_new(size_t limit, Error **errp);
void held_queue_free(struct held_queue *q); /* NULL is fine */

void held_queue_hold(struct held_queue *q);
bool held_queue_holding(struct held_queue *q);

enum held_answer {
    HELD_NOT_HOLDING, /* pass it on */
    HELD_TAKEN,
    HELD_TAKEN_FIRST, /* taken, and it is the first of the open epoch */
    HELD_FULL,
};
enum held_answer held_queue_put(struct held_queue *q, const struct iovec *iov, int n);
/* Bytes that a message may have now; 0 when full. */
size_t held_queue_room(struct held_queue *q);

/* Closes the open epoch under this number, which must be above the one before. */
bool held_queue_close_epoch(struct held_queue *q, uint64_t epoch, Error **errp);
/* Takes the oldest message of epochs up to and including this closed one: its size, 0 when there is none.
 * Copies to buf (at least HELD_MESSAGE_MAX bytes). */
#define HELD_MESSAGE_MAX (128u * 1024)
size_t held_queue_take(struct held_queue *q, uint64_t epoch, void *buf);
/* The end of holding: what is left can be taken with epoch HELD_EVERYTHING, or is forgotten. */
#define HELD_EVERYTHING UINT64_MAX
void held_queue_pass(struct held_queue *q, bool forget);
/* Commit of an epoch that was never closed, or is released already: refused, for the caller's errp. */
bool held_queue_may_release(struct held_queue *q, uint64_t epoch, Error **errp);

#endif
