/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A list, looked through from end to end: it is as long as a disk's queue is deep.
 */
#include "block/range_lock.h"

#include <assert.h>
#include <stddef.h>

static bool overlap(const struct range *a, const struct range *b)
{
    return a->disk == b->disk && a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

bool range_lock_take(struct range_lock *l, struct range *r)
{
    r->blockers = 0;
    for (const struct range *before = l->first; before; before = before->next)
        r->blockers += overlap(before, r);
    r->prev = l->last;
    r->next = NULL;
    *(l->last ? &l->last->next : &l->first) = r;
    l->last = r;
    return !r->blockers;
}

struct range *range_lock_drop(struct range_lock *l, struct range *r)
{
    struct range *ready = NULL, **end = &ready;

    assert(!r->blockers);
    for (struct range *after = r->next; after; after = after->next) {
        if (!overlap(after, r) || --after->blockers)
            continue;
        after->next_ready = NULL;
        *end = after;
        end = &after->next_ready;
    }
    *(r->prev ? &r->prev->next : &l->first) = r->next;
    *(r->next ? &r->next->prev : &l->last) = r->prev;
    return ready;
}

void range_lock_grant(struct range *ready)
{
    while (ready) {
        struct range *next = ready->next_ready;

        ready->granted(ready);
        ready = next;
    }
}
