/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/loop_private.h"

#include <assert.h>

/* What deferred functions defer in turn runs at once so many times; then descriptors have their turn. */
#define ROUNDS 8

static __thread const Loop *current;

void loop_make_current(const Loop *l)
{
    current = l;
}

bool loop_is_current(const Loop *l)
{
    return current == l;
}

static struct loop_deferred **end(Loop *l)
{
    struct loop_deferred **link = &l->deferred;

    while (*link)
        link = &(*link)->next;
    return link;
}

/* Lists are short: a few a disk. */
void loop_defer(Loop *l, struct loop_deferred *d)
{
    assert(loop_is_current(l));
    if (d->queued)
        return;
    d->queued = true;
    d->next = NULL;
    *end(l) = d;
}

void loop_undefer(Loop *l, struct loop_deferred *d)
{
    struct loop_deferred **link = &l->deferred;

    if (l->started)
        loop_assert_locked(l);
    if (!d->queued)
        return;
    while (*link != d)
        link = &(*link)->next;
    *link = d->next;
    d->queued = false;
}

static unsigned count(const Loop *l)
{
    unsigned n = 0;

    for (const struct loop_deferred *d = l->deferred; d; d = d->next)
        n++;
    return n;
}

static void run_first(Loop *l)
{
    struct loop_deferred *d = l->deferred;

    if (!d)
        return; /* one before it removed it */
    l->deferred = d->next;
    d->queued = false;
    d->fn(d->opaque);
}

bool loop_run_deferred(Loop *l)
{
    unsigned n = 1;

    for (unsigned round = 0; n && round < ROUNDS; round++) {
        if (loop_lock_unparked(l)) {
            for (n = count(l); n; n--)
                run_first(l);
            n = count(l);
        } else {
            n = 0;
        }
        task_unlock(&l->lock);
    }
    return n;
}
