/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the replicating components (disks) have for their other halves: sent as it comes, in order, as part of
 * the epoch that runs; before the first epoch the sync's questions and replies go between.
 */
#include "engine/primary.h"
#include <perdure/replication_feed.h>

#include <limits.h>

#define BATCH           (1u << 20)
#define RUNNING_BATCHES 8

static void on_waiting(void *opaque)
{
    Engine *e = opaque;

    task_lock(&e->lock);
    if (!e->feed_waiting) {
        e->feed_waiting = true;
        task_broadcast(&e->changed);
    }
    task_unlock(&e->lock);
}

void primary_feed_begin(struct primary *p)
{
    task_lock(&p->e->lock);
    p->e->feed_waiting = false;
    task_unlock(&p->e->lock);
    replication_feeds_set_listener(on_waiting, p->e);
}

void primary_feed_end(struct primary *p)
{
    (void)p;
    replication_feeds_set_listener(NULL, NULL);
}

static void set_waiting(struct primary *p, bool waiting)
{
    task_lock(&p->e->lock);
    p->e->feed_waiting = waiting;
    task_unlock(&p->e->lock);
}

/* What waits of an epoch that is over cannot become more; of the running one it can, without end: so many
 * batches, then whoever waits for us has his turn. */
bool primary_feed(struct primary *p, uint64_t epoch, uint32_t *crc, Error **errp)
{
    bool runs = epoch > p->epoch;
    unsigned batches = runs ? RUNNING_BATCHES : UINT_MAX;

    if (runs)
        set_waiting(p, false); /* what comes from here on tells again */
    while (batches--) {
        perdure_stream_rewind(p->batch);
        if (!replication_feeds_next(epoch, p->batch, WIRE_FEED, epoch, BATCH))
            return !perdure_stream_error(p->batch, errp); /* a message that found no memory is lost */
        if (!primary_ship(p, crc, errp))
            return false;
    }
    set_waiting(p, true);
    return true;
}

/* *ret_asked false: there is nothing left to ask. */
static bool ask(struct primary *p, bool *ret_asked, Error **errp)
{
    perdure_stream_rewind(p->batch);
    return replication_feeds_ask(p->batch, WIRE_FEED, p->epoch + 1, ret_asked, errp) &&
           (!*ret_asked || (primary_ship(p, &p->crc, errp) && perdure_stream_flush(p->s->out, errp)));
}

static bool take_answer(struct primary *p, Error **errp)
{
    uint64_t id;
    bool ok;

    session_set_limit(p->s, PRIMARY_ANSWER_LIMIT);
    ok = primary_expect(p, WIRE_FEED_REPLY, &id, errp) && replication_feeds_answer(p->s->in, errp);
    session_set_limit(p->s, TIME_NEVER);
    return ok;
}

static void tell_left(struct primary *p)
{
    uint64_t left = replication_feeds_left();
    int64_t now = clock_now();

    task_lock(&p->e->lock);
    figures_sync(&p->e->figures, left, now);
    task_unlock(&p->e->lock);
}

bool primary_feed_equal(struct primary *p, Error **errp)
{
    replication_feeds_equal();
    return primary_feed(p, p->epoch + 1, &p->crc, errp) && perdure_stream_flush(p->s->out, errp);
}

bool primary_feed_sync(struct primary *p, Error **errp)
{
    bool asked = true;

    tell_left(p);
    while (asked) {
        if (!primary_may_go_on(p) || !primary_pace(p, errp) || !primary_request_before_epochs(p, errp) ||
            !primary_feed(p, p->epoch + 1, &p->crc, errp) || !ask(p, &asked, errp) ||
            (asked && !take_answer(p, errp)))
            return false;
        tell_left(p);
    }
    return true;
}
