/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The cycle. epoch_run() is one epoch, top to bottom:
 *
 *     guest    ...runs...| paused |........................ runs on: the next epoch .........................
 *     here               pause    resume -> send pages, devices, END -> ack, checked -> alive? -> release
 *     output   held in queue N    held in queue N+1                                      N leaves
 *
 * Between pause and resume nothing allocates, and nothing waits but for one permitted case: staging is full.
 */
#include "engine/primary.h"
#include "base/crc32c.h"
#include "base/fault.h"
#include <perdure/checkpoint_device.h>
#include <perdure/replication.h>
#include <perdure/replication_feed.h>
#include <perdure/savevm.h>

#include <inttypes.h>
#include <errno.h>

#define LOOK_AT_STAGING (20 * NS_PER_MS) /* how often a long epoch is asked how large it has become */

struct epoch {
    struct wire_end end;
    int64_t paused_at, pause_ns;
    int64_t output_since; /* when its first output came; 0: none */
    int64_t asked;        /* when the END, or the last probe, was sent: the backup was alive after that */
    uint64_t bytes;
    bool released;
};

/* --- waiting for the end of an epoch --- */

static bool staging_nearly_full(struct primary *p)
{
    return p->g->ops->changed_pages(p->g) >= p->capacity - p->capacity / 8;
}

/* Lock held. When the running epoch must end as things are. */
static int64_t due(const struct primary *p)
{
    const struct wire_hello *h = &p->s->hello;
    int64_t interval = h->interval_ns;

    if (p->e->guest_asks)
        return 0;
    if (p->e->output_waiting && h->min_epoch_ns < interval)
        interval = h->min_epoch_ns;
    return p->last_start + interval;
}

/* What epoch_wait() has to do next. */
enum step { STEP_STOP, STEP_SWAP, STEP_END, STEP_FEED, STEP_LOOK, STEP_WAIT };

/* Lock held. */
static enum step next_step(struct primary *p, int64_t look)
{
    Engine *e = p->e;
    int64_t now = clock_now();

    if (e->wish.quit || e->wish.unprotect || link_is_down(&p->s->link))
        return STEP_STOP;
    if (e->wish.swap || p->handover)
        return STEP_SWAP;
    if (now >= due(p))
        return STEP_END;
    if (e->feed_waiting)
        return STEP_FEED;
    return now >= look ? STEP_LOOK : STEP_WAIT;
}

/* The next step but waiting. */
static enum step wait_for_step(struct primary *p, int64_t look)
{
    Engine *e = p->e;
    enum step step;

    task_lock(&e->lock);
    while ((step = next_step(p, look)) == STEP_WAIT) {
        int64_t when = due(p);

        task_wait_until(&e->changed, &e->lock, when < look ? when : look);
    }
    task_unlock(&e->lock);
    return step;
}

enum epoch_cause epoch_wait(struct primary *p, Error **errp)
{
    int64_t look = clock_now() + LOOK_AT_STAGING;

    for (;;) {
        switch (wait_for_step(p, look)) {
        case STEP_STOP:
            return EPOCH_STOP;
        case STEP_SWAP:
            return EPOCH_SWAP;
        case STEP_FEED:
            if (!primary_feed(p, p->epoch + 1, &p->crc, errp) || !perdure_stream_flush(p->s->out, errp))
                return EPOCH_FAILED;
            if (replication_feeds_full())
                return EPOCH_DUE;
            break;
        case STEP_LOOK:
            if (staging_nearly_full(p))
                return EPOCH_DUE;
            look = clock_now() + LOOK_AT_STAGING;
            break;
        default:
            return EPOCH_DUE;
        }
    }
}

/* --- paused --- */

/* All output so far belongs to this epoch: nobody runs who could add to it. */
static void take_output_mark(struct primary *p, struct epoch *ep)
{
    Engine *e = p->e;

    task_lock(&e->lock);
    ep->output_since = e->output_since;
    e->output_since = 0;
    e->output_waiting = false;
    e->guest_asks = false;
    task_unlock(&e->lock);
}

static bool save_devices(struct primary *p, Error **errp)
{
    perdure_stream_rewind(p->devices);
    return perdure_savevm_devices(p->devices, errp);
}

/* Staging is full: the guest has to stand still while it is drained, but not for longer than a silence that
 * counts (primary_send_staging() looks). */
static bool drain(struct primary *p, struct epoch *ep, Error **errp)
{
    task_lock(&p->e->lock);
    p->e->figures.staging_full++;
    task_unlock(&p->e->lock);
    return primary_may_go_on(p) && primary_send_staging(p, WIRE_PAGES, ep->end.epoch, &ep->end.crc, errp);
}

static bool collect(struct primary *p, struct epoch *ep, Error **errp)
{
    bool more = true;

    staging_reset(p->staging);
    while (p->g->ops->collect(p->g, p->staging, false, &more, errp)) {
        ep->end.pages += staging_count(p->staging);
        if (!more)
            return true;
        if (!drain(p, ep, errp))
            return false;
        staging_reset(p->staging);
    }
    return false;
}

static bool is_verified(const struct primary *p, uint64_t epoch)
{
    uint32_t every = p->s->hello.verify_every;

    return every && epoch % every == 0;
}

/* After a swap the guest stands still for it: only for those who want to know. */
static bool is_hashed(const struct primary *p, const struct epoch *ep)
{
    if (ep->end.flags & WIRE_END_FIRST)
        return !p->s->swapped || p->s->hello.verify_every;
    return is_verified(p, ep->end.epoch);
}

static void take_hash(struct primary *p, struct epoch *ep)
{
    if (!is_hashed(p, ep))
        return;
    ep->end.flags |= WIRE_END_HASHED;
    ep->end.hash = guest_memory_hash(p->g->memory);
}

/* Pages are copied while the guest finds out what its state is. */
static bool take(struct primary *p, struct epoch *ep, Error **errp)
{
    const struct guest_ops *ops = p->g->ops;

    return (!ops->begin_save || ops->begin_save(p->g, errp)) &&
           checkpoint_devices_postsuspend(ep->end.epoch, errp) && collect(p, ep, errp) &&
           save_devices(p, errp);
}

static bool cut(struct primary *p, struct epoch *ep, Error **errp)
{
    bool ok;

    ep->paused_at = clock_now();
    if (!primary_pause(p, errp))
        return false;
    take_output_mark(p, ep);
    p->send_until = ep->paused_at + p->s->hello.timeout_ns;
    ep->end.request = (uint8_t)p->g->ops->request(p->g);
    ok = take(p, ep, errp);
    if (ok)
        take_hash(p, ep);
    ok = ok && checkpoint_devices_preresume(ep->end.epoch, errp);
    p->send_until = 0;
    if (!ok || !(ep->end.flags & WIRE_END_SWAP))
        primary_resume(p);
    p->last_start = clock_now();
    ep->pause_ns = p->last_start - ep->paused_at;
    return ok;
}

/* --- running --- */

static bool send(struct primary *p, struct epoch *ep, Error **errp)
{
    uint64_t before = perdure_stream_bytes(p->s->out);
    const void *devices;
    size_t size;

    if (!primary_feed(p, ep->end.epoch, &ep->end.crc, errp) ||
        !primary_send_staging(p, WIRE_PAGES, ep->end.epoch, &ep->end.crc, errp))
        return false;
    devices = perdure_stream_memory(p->devices, &size);
    ep->end.crc = crc32c(ep->end.crc, devices, size);
    primary_limit_send(p);
    perdure_stream_append(p->s->out, p->devices);
    p->armed = true;
    ep->asked = clock_now(); /* before: this host may stand still as soon as it is out */
    if (!wire_send_end(p->s->out, &ep->end, errp))
        return false;
    ep->bytes = perdure_stream_bytes(p->s->out) - before;
    return true;
}

static bool await_ack(struct primary *p, struct epoch *ep, Error **errp)
{
    struct wire_ack ack;
    bool ok;

    session_set_limit(p->s, p->s->unstarted && !(ep->end.flags & WIRE_END_HASHED) ? primary_still_limit(p)
                                                                                  : PRIMARY_ANSWER_LIMIT);
    ok = follow_expect_ack(p, &ack.epoch, errp) && wire_get_ack(p->s->in, &ack, errp);
    session_set_limit(p->s, TIME_NEVER);
    if (!ok)
        return false;
    if (ack.generation != ep->end.generation || ack.epoch != ep->end.epoch || ack.crc != ep->end.crc) {
        /* A peer that says such a thing holds nothing that can be relied upon: what it says no longer counts.
         */
        perdure_stream_set_error(p->s->in, -EBADMSG,
                                 "the backup acknowledged generation %" PRIu64 " epoch %" PRIu64
                                 " checksum %08x instead of %" PRIu64 ", %" PRIu64 ", %08x",
                                 ack.generation, ack.epoch, ack.crc, ep->end.generation, ep->end.epoch,
                                 ep->end.crc);
        perdure_stream_error(p->s->in, errp);
        return false;
    }
    p->handover |= (ack.flags & WIRE_ACK_HANDOVER) != 0;
    return true;
}

/* This host may have stood still after the ack was sent, and the backup gone on alone since: it never answers
 * again in a generation in which it claims. */
static bool prove_alive(struct primary *p, struct epoch *ep, Error **errp)
{
    uint64_t id;
    bool ok = true;

    while (ok && clock_now() - ep->asked > p->s->hello.timeout_ns) {
        ep->asked = clock_now();
        session_set_limit(p->s, PRIMARY_ANSWER_LIMIT);
        ok = wire_send(p->s->out, WIRE_PROBE, ep->end.epoch, errp) &&
             primary_expect(p, WIRE_PROBE_OK, &id, errp) && wire_done(p->s->in, errp);
        session_set_limit(p->s, TIME_NEVER);
    }
    return ok;
}

static bool release(struct epoch *ep, Error **errp)
{
    if (ep->released)
        return true;
    ep->released = true;
    return replication_get_error_all(errp) && replication_do_checkpoint_all(errp) &&
           checkpoint_devices_commit(ep->end.epoch, errp);
}

static void count(struct primary *p, const struct epoch *ep)
{
    int64_t now = clock_now();
    struct epoch_figures fig = {
        .pause_ns = ep->pause_ns,
        .ack_ns = now - ep->paused_at - ep->pause_ns,
        .held_ns = ep->output_since ? now - ep->output_since : 0,
        .pages = ep->end.pages,
        .bytes = ep->bytes,
    };
    Engine *e = p->e;

    p->s->last_ack = now;
    task_lock(&e->lock);
    e->epoch = ep->end.epoch;
    if (!(ep->end.flags & WIRE_END_FIRST)) /* that one hashes all memory: it would be the maximum for ever */
        figures_add(&e->figures, &fig, now);
    e->figures.verified += (ep->end.flags & WIRE_END_HASHED) != 0;
    task_unlock(&e->lock);
}

bool epoch_run(struct primary *p, uint8_t flags, Error **errp)
{
    struct epoch ep = {
        .end = {.generation = p->s->hello.generation, .epoch = ++p->epoch, .crc = p->crc, .flags = flags},
    };

    p->crc = 0;
    if (!cut(p, &ep, errp) || !send(p, &ep, errp))
        return false;
    if (fault_point("engine.release_before_ack") && !release(&ep, errp))
        return false;
    if (!await_ack(p, &ep, errp) || !prove_alive(p, &ep, errp) || !release(&ep, errp))
        return false;
    p->request = ep.end.request;
    count(p, &ep);
    if (is_verified(p, ep.end.epoch + 1))
        replication_feeds_verify();
    return true;
}
