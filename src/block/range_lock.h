/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Range lock: no two holders of overlapping ranges at a time, in the order in which they asked.
 *
 *     r->granted = go_on;
 *     task_lock(&lock);
 *     held = range_lock_take(&ranges, r);
 *     task_unlock(&lock);
 *     if (held)
 *         go_on(r);                               // else it is called when those before it are done
 *     ...
 *     task_lock(&lock);
 *     ready = range_lock_drop(&ranges, r);
 *     task_unlock(&lock);
 *     range_lock_grant(ready);
 *
 * Nothing waits in here and nothing is locked: the caller's lock guards all of it, but range_lock_grant() is
 * called without. The ranges are the callers', as long as they hold or wait.
 */
#ifndef BLOCK_RANGE_LOCK_H
#define BLOCK_RANGE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

struct range {
    /* set by the caller */
    uint32_t disk;
    uint64_t offset, size;
    void (*granted)(struct range *r); /* may take and drop others */
    /* private */
    struct range *prev, *next;
    struct range *next_ready;
    unsigned blockers; /* ranges before it that overlap; 0: it holds */
};

struct range_lock {
    struct range *first, *last; /* in the order of asking */
};

/* true: held now. */
bool range_lock_take(struct range_lock *l, struct range *r);
/* r holds. What holds from now on, to be handed to range_lock_grant(). */
struct range *range_lock_drop(struct range_lock *l, struct range *r);
void range_lock_grant(struct range *ready);

#endif
