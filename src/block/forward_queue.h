/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Forward queue: what a primary's disks were told and the backup was not, in order, each write with the epoch
 * in which it entered. Bounded, by letting a write in before it begins:
 *
 *     admit -> the local disk -> put -> [queue] -> pop -> the connection
 *
 * so that all that is admitted, queued or part of the running epoch stays below the limit, however slow the
 * connection is: a write for which there is no room waits, and nothing is dropped. One that is larger than
 * the limit is let in alone. What the first sync finds is put without asking: it comes as the connection asks
 * for it.
 *
 * Epoch 1 is the sync: it lasts as long as it lasts, and the backup writes it down as it comes. So only what
 * waits counts there.
 *
 * Nothing in here waits or locks: the caller's lock guards all of it; admitted() is called without it.
 */
#ifndef BLOCK_FORWARD_QUEUE_H
#define BLOCK_FORWARD_QUEUE_H

#include "block/epoch_writes.h"

struct admission {
    /* set by the caller */
    uint64_t bytes; /* forward_queue_cost() of what will be put */
    void (*admitted)(struct admission *a);
    /* private */
    struct admission *next;
};

struct forward_queue {
    uint64_t limit; /* bytes */
    uint64_t epoch; /* the running one */
    uint64_t queued, admitted, epoch_bytes;
    uint64_t throttled; /* admissions that had to wait, ever */
    struct disk_write *first, **end;
    struct admission *waiting, **waiting_end;
};

void forward_queue_init(struct forward_queue *q, uint64_t limit);
/* Epoch 1 begins with an empty queue. Writes that are admitted and not yet put stay admitted. */
void forward_queue_reset(struct forward_queue *q);

static inline uint64_t forward_queue_cost(uint64_t data_size)
{
    return sizeof(struct disk_write) + data_size;
}

/* true: admitted now; else a->admitted() will be called, in the order of asking. */
bool forward_queue_admit(struct forward_queue *q, struct admission *a);
/* Those that wait and have room now, or all; to be handed to forward_queue_let_in(). */
struct admission *forward_queue_room(struct forward_queue *q, bool all);
void forward_queue_let_in(struct admission *list);

/* Takes w; bytes: what was admitted for it, 0 if it did not ask. true: somebody should look (the queue was
 * empty, or the epoch should end). */
bool forward_queue_put(struct forward_queue *q, struct disk_write *w, uint64_t bytes);
/* Nothing will be put for what was admitted. */
void forward_queue_give_up(struct forward_queue *q, uint64_t bytes);
/* What is put from now on belongs to the next epoch. */
void forward_queue_end_epoch(struct forward_queue *q);
/* The running epoch should end: half of the limit is used, or something waits for room. */
bool forward_queue_full(const struct forward_queue *q);
/* The oldest, if its epoch is this one or before; the caller's from now on. NULL: none. */
struct disk_write *forward_queue_pop(struct forward_queue *q, uint64_t epoch);

#endif
