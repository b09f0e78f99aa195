/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/forward_queue.h"
#include "base/fault.h"

#include <stdlib.h>

void forward_queue_init(struct forward_queue *q, uint64_t limit)
{
    *q = (struct forward_queue){.limit = limit, .epoch = 1};
    q->end = &q->first;
    q->waiting_end = &q->waiting;
}

void forward_queue_reset(struct forward_queue *q)
{
    while (q->first) {
        struct disk_write *w = q->first;

        q->first = w->next;
        free(w);
    }
    q->end = &q->first;
    q->epoch = 1;
    q->queued = q->epoch_bytes = 0;
}

/* What counts against the limit, but for what is on its way through the local disk. */
static uint64_t used(const struct forward_queue *q)
{
    return q->epoch > 1 && q->epoch_bytes > q->queued ? q->epoch_bytes : q->queued;
}

static bool has_room(const struct forward_queue *q, uint64_t bytes)
{
    uint64_t n = used(q) + q->admitted;

    return !n || (n < q->limit && bytes <= q->limit - n);
}

bool forward_queue_admit(struct forward_queue *q, struct admission *a)
{
    if (!q->waiting && has_room(q, a->bytes)) {
        q->admitted += a->bytes;
        return true;
    }
    a->next = NULL;
    *q->waiting_end = a;
    q->waiting_end = &a->next;
    q->throttled++;
    return false;
}

struct admission *forward_queue_room(struct forward_queue *q, bool all)
{
    struct admission *list = q->waiting, **end = &list;

    while (*end && (all || has_room(q, (*end)->bytes))) {
        q->admitted += (*end)->bytes;
        end = &(*end)->next;
    }
    q->waiting = *end;
    if (!q->waiting)
        q->waiting_end = &q->waiting;
    *end = NULL;
    return list;
}

void forward_queue_let_in(struct admission *list)
{
    while (list) {
        struct admission *next = list->next;

        list->admitted(list);
        list = next;
    }
}

bool forward_queue_put(struct forward_queue *q, struct disk_write *w, uint64_t bytes)
{
    uint64_t cost = forward_queue_cost(w->data_size);
    bool idle = !q->first, was_full = forward_queue_full(q);

    q->admitted -= bytes;
    q->queued += cost;
    q->epoch_bytes += cost;
    w->epoch = q->epoch;
    if (q->epoch > 1 && fault_point("disks.write_after_barrier_in_epoch"))
        w->epoch--;
    w->next = NULL;
    *q->end = w;
    q->end = &w->next;
    return idle || (!was_full && forward_queue_full(q));
}

void forward_queue_give_up(struct forward_queue *q, uint64_t bytes)
{
    q->admitted -= bytes;
}

void forward_queue_end_epoch(struct forward_queue *q)
{
    q->epoch++;
    q->epoch_bytes = 0;
}

bool forward_queue_full(const struct forward_queue *q)
{
    return q->epoch > 1 && (q->waiting || q->epoch_bytes > q->limit / 2);
}

struct disk_write *forward_queue_pop(struct forward_queue *q, uint64_t epoch)
{
    struct disk_write *w = q->first;

    if (!w || w->epoch > epoch)
        return NULL;
    q->first = w->next;
    if (!q->first)
        q->end = &q->first;
    q->queued -= forward_queue_cost(w->data_size);
    w->next = NULL;
    return w;
}
