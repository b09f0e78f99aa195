/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/primary.h"
#include "engine/state.h"
#include "base/crc32c.h"
#include "base/fault.h"
#include "guest/ram_state.h"
#include <perdure/checkpoint_device.h>
#include <perdure/replication.h>
#include <perdure/savevm.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_PAGES     256
#define DEVICES_RESERVE (1 << 20)
#define RETRY           (50 * NS_PER_MS)

/* --- tools for the steps --- */

bool primary_pause(struct primary *p, Error **errp)
{
    if (p->paused)
        return true;
    p->paused = p->g->ops->pause(p->g, errp);
    return p->paused;
}

void primary_resume(struct primary *p)
{
    if (p->s->unstarted)
        return;
    if (p->paused)
        p->g->ops->resume(p->g);
    p->paused = false;
}

/* Resumes it, also where a swap brought it and it has not run yet. */
static void start_guest(struct primary *p)
{
    if (p->s->unstarted) {
        promote_start(p->s, p->gated);
        p->paused = false;
    }
    primary_resume(p);
}

/* A record that is not what was waited for. */
static bool take_failure(struct primary *p, uint16_t type, const char *while_what, Error **errp)
{
    char text[WIRE_TEXT_MAX];

    if (type != WIRE_FAIL) {
        wire_unexpected(p->s->in, type, while_what);
        perdure_stream_error(p->s->in, errp);
    } else if (wire_get_text(p->s->in, text, errp)) {
        p->peer_failed = true;
        error_setg(errp, "the other side cannot go on: %s", text);
    }
    return false;
}

bool primary_take(struct primary *p, uint16_t type, enum wire_record want, Error **errp)
{
    return type == want || take_failure(p, type, "waiting for the backup's answer", errp);
}

bool primary_expect(struct primary *p, enum wire_record want, uint64_t *id, Error **errp)
{
    uint16_t type;

    return wire_next(p->s->in, &type, id, errp) && primary_take(p, type, want, errp);
}

bool primary_hear(struct primary *p, Error **errp)
{
    uint16_t type;
    uint64_t id;

    return !vmstream_has_begun(p->s->in) || (wire_next(p->s->in, &type, &id, errp) &&
                                             take_failure(p, type, "sending a machine's state", errp));
}

bool primary_may_go_on(struct primary *p)
{
    struct wishes w = engine_wishes(p->e);

    if (w.quit)
        p->end = SESSION_QUIT;
    else if (link_is_down(&p->s->link))
        p->end = SESSION_LINK_LOST;
    else if (w.unprotect)
        p->end = SESSION_GOODBYE;
    return p->end == SESSION_OPEN;
}

void primary_limit_send(struct primary *p)
{
    int64_t timeout = p->s->hello.timeout_ns;

    link_set_send_deadline(&p->s->link,
                           p->send_until ? p->send_until + timeout : clock_now() + PRIMARY_ANSWER_LIMIT);
}

/* While the link still takes something the backup is told in order that this does not work. */
static bool in_time(struct primary *p, Error **errp)
{
    if (!p->send_until || clock_now() <= p->send_until)
        return true;
    error_setg(
        errp,
        "an epoch changed so much memory that the link could not take it within the timeout of %" PRId64
        " ms: use a shorter --interval, a longer --timeout or a faster link",
        p->s->hello.timeout_ns / NS_PER_MS);
    return false;
}

bool primary_ship(struct primary *p, uint32_t *crc, Error **errp)
{
    size_t size;
    const void *frames;

    if (perdure_stream_error(p->batch, errp))
        return false;
    frames = perdure_stream_memory(p->batch, &size);
    *crc = crc32c(*crc, frames, size);
    primary_limit_send(p);
    perdure_stream_append(p->s->out, p->batch);
    return !perdure_stream_error(p->s->out, errp);
}

bool primary_send_staging(struct primary *p, enum wire_record type, uint64_t id, uint32_t *crc, Error **errp)
{
    size_t count = staging_count(p->staging);
    uint64_t kinds[PAGE_KINDS] = {0};

    for (size_t i = 0; i < count;) {
        size_t stop = count - i < BATCH_PAGES ? count : i + BATCH_PAGES;

        perdure_stream_rewind(p->batch);
        perdure_stream_begin(p->batch, (uint16_t)type, id);
        for (; i < stop; i++)
            kinds[page_encode(p->encoder, p->batch, staging_page(p->staging, i),
                              staging_data(p->staging, i))]++;
        perdure_stream_end(p->batch);
        if (!in_time(p, errp) || !primary_ship(p, crc, errp))
            return false;
    }
    task_lock(&p->e->lock);
    for (int k = 0; k < PAGE_KINDS; k++)
        p->e->figures.pages[k] += kinds[k];
    task_unlock(&p->e->lock);
    return true;
}

static void on_request(void *opaque)
{
    Engine *e = opaque;

    task_lock(&e->lock);
    e->guest_asks = true;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
}

static void on_output(void *opaque)
{
    Engine *e = opaque;

    task_lock(&e->lock);
    if (!e->output_since)
        e->output_since = clock_now();
    if (!e->output_waiting) {
        e->output_waiting = true;
        task_broadcast(&e->changed);
    }
    task_unlock(&e->lock);
}

/* --- the beginning --- */

static bool open_batch(struct primary *p, Error **errp)
{
    p->batch = perdure_stream_open_memory(BATCH_PAGES * (GUEST_PAGE_SIZE + 64));
    if (!p->batch)
        error_setg(errp, "out of memory");
    return p->batch;
}

/* What epochs need. */
static bool open_buffers(struct primary *p, Error **errp)
{
    GuestMemory *m = p->g->memory;

    p->capacity = staging_default_pages(m->size);
    p->staging = p->s->unstarted ? staging_new_quick(p->capacity, errp) : staging_new(p->capacity, errp);
    if (!p->staging)
        return false;
    p->encoder = page_encoder_new(m->page_count, p->s->hello.delta, !p->s->swapped, errp);
    if (!p->encoder)
        return false;
    p->devices = perdure_stream_open_memory(DEVICES_RESERVE);
    if (!p->devices)
        error_setg(errp, "out of memory");
    return p->devices;
}

struct large_buffers {
    PageEncoder *encoder;
    Staging *staging;
};

static void free_large(void *buffers)
{
    struct large_buffers *b = buffers;

    page_encoder_free(b->encoder);
    staging_free(b->staging);
    free(b);
}

/* That takes so long that nobody should wait for it while the guest stands still. */
static bool free_behind(struct primary *p)
{
    struct large_buffers *b = malloc(sizeof(*b));

    task_join(p->s->freer);
    p->s->freer = NULL;
    if (!b)
        return false;
    *b = (struct large_buffers){p->encoder, p->staging};
    p->s->freer = task_start("freer", free_large, b, NULL);
    if (!p->s->freer)
        free(b);
    return p->s->freer;
}

static void close_buffers(struct primary *p)
{
    perdure_stream_close(p->batch);
    perdure_stream_close(p->devices);
    if (p->end == SESSION_SWAPPED && free_behind(p))
        return;
    page_encoder_free(p->encoder);
    staging_free(p->staging);
}

/* Both machines stand still; the backup starts first. */
bool primary_start_replication(struct primary *p, Error **errp)
{
    uint64_t id;
    bool ok;

    if (!primary_pause(p, errp))
        return false;
    p->g->on_request_opaque = p->e;
    p->g->on_request = on_request;
    session_set_limit(p->s, primary_still_limit(p)); /* the guest stands still */
    ok = wire_send(p->s->out, WIRE_START, 0, errp) && primary_expect(p, WIRE_STARTED, &id, errp) &&
         wire_done(p->s->in, errp);
    session_set_limit(p->s, TIME_NEVER);
    p->replicating = ok && replication_start_all(REPLICATION_MODE_PRIMARY, errp);
    if (p->replicating)
        primary_feed_begin(p);
    primary_resume(p);
    return p->replicating;
}

static bool hold_output(struct primary *p, Error **errp)
{
    task_lock(&p->e->lock);
    p->e->output_since = 0;
    p->e->output_waiting = false;
    task_unlock(&p->e->lock);
    checkpoint_devices_set_listener(on_output, p->e);
    p->gated = true; /* also after a failure: some may be set up */
    return checkpoint_devices_setup_wait(errp);
}

/* --- the guest asks for something --- */

static bool carry_out_reset(struct primary *p, Error **errp)
{
    bool ok = primary_pause(p, errp) && p->g->ops->reset(p->g, errp);

    p->request = GUEST_REQUEST_NONE;
    primary_resume(p);
    return ok;
}

bool primary_request_before_epochs(struct primary *p, Error **errp)
{
    bool asks;

    task_lock(&p->e->lock);
    asks = p->e->guest_asks;
    p->e->guest_asks = false;
    task_unlock(&p->e->lock);
    if (!asks)
        return true;
    if (!primary_pause(p, errp))
        return false;
    p->request = p->g->ops->request(p->g);
    if (p->request == GUEST_REQUEST_RESET)
        return carry_out_reset(p, errp);
    primary_resume(p);
    if (p->request != GUEST_REQUEST_NONE)
        p->end = SESSION_GUEST_ENDED;
    return p->end == SESSION_OPEN;
}

/* The epoch that carries the request is acknowledged: now it may have its effect. */
static bool carry_out(struct primary *p, Error **errp)
{
    if (p->request == GUEST_REQUEST_RESET)
        return carry_out_reset(p, errp);
    if (p->request != GUEST_REQUEST_NONE)
        p->end = SESSION_GUEST_ENDED;
    return p->end == SESSION_OPEN;
}

/* --- the course of things --- */

static bool cycle(struct primary *p, Error **errp)
{
    while (primary_may_go_on(p)) {
        switch (epoch_wait(p, errp)) {
        case EPOCH_STOP:
            continue;
        case EPOCH_FAILED:
            return false;
        case EPOCH_SWAP:
            if (!primary_swap(p, errp) || p->end != SESSION_OPEN || !carry_out(p, errp))
                return p->end == SESSION_SWAPPED;
            continue;
        case EPOCH_DUE:
            if (!epoch_run(p, 0, errp) || !carry_out(p, errp) || !follow_step(p, errp))
                return false;
        }
    }
    return false;
}

static bool prepare(struct primary *p, Error **errp)
{
    /* The mark is there before the backup can claim. */
    return session_mark_disks(p->s, GUEST_DISKS_PRIMARY, errp) && primary_start_replication(p, errp) &&
           primary_sync(p, errp);
}

/* The other side has the same memory and the same disks, and its guest stands still, as ours does. */
static bool prepare_equal(struct primary *p, Error **errp)
{
    p->tracking = p->g->ops->tracking_start(p->g, true, errp);
    return p->tracking && primary_start_replication(p, errp) && primary_feed_equal(p, errp);
}

/* A guest that came by a swap runs only now: the backup holds the state that it begins with, all that it changes is
 * followed, and all that it says is held. */
static void protect(struct primary *p, Error **errp)
{
    struct session *s = p->s;

    if (s->unstarted && fault_point("engine.swap_runs_open"))
        start_guest(p);
    if (!open_buffers(p, errp) || !(s->swapped ? prepare_equal : prepare)(p, errp) || !hold_output(p, errp) ||
        !epoch_run(p, WIRE_END_FIRST, errp))
        return;
    start_guest(p);
    engine_set_state(p->e, ENGINE_PRIMARY, ENGINE_PROTECTED,
                     "the backup has loaded and compared the first epoch");
    if (carry_out(p, errp))
        cycle(p, errp);
}

static bool migrates(const struct primary *p)
{
    return p->s->hello.kind == WIRE_KIND_MIGRATE;
}

static void run(struct primary *p, Error **errp)
{
    if (!open_batch(p, errp))
        return;
    if (migrates(p))
        primary_migrate(p, errp);
    else
        protect(p, errp);
}

/* For query-migrate, and before the state says that it is over. */
static void note_outcome(struct primary *p, enum session_end end)
{
    enum engine_migration_outcome outcome = end == SESSION_MIGRATED  ? ENGINE_MIGRATION_COMPLETED
                                            : end == SESSION_GOODBYE ? ENGINE_MIGRATION_CANCELLED
                                                                     : ENGINE_MIGRATION_FAILED;

    task_lock(&p->e->lock);
    p->e->migration.outcome = outcome;
    p->e->migration.throttle = 0;
    task_unlock(&p->e->lock);
}

static enum session_end classify(struct primary *p)
{
    if (p->end == SESSION_SWAPPED || p->end == SESSION_MIGRATED)
        return p->end;
    if (engine_wishes(p->e).quit)
        return SESSION_QUIT;
    if (p->end != SESSION_OPEN)
        return p->end;
    if (p->peer_failed)
        return SESSION_PEER_FAILED;
    return session_link_broken(p->s) ? SESSION_LINK_LOST : SESSION_FAILED;
}

/* --- the end --- */

/* The backup's word that it will never claim. */
static bool part(struct primary *p, enum wire_record word, uint64_t id, enum wire_record answer,
                 const char *text)
{
    Error *err = NULL;
    bool ok;

    session_set_limit(p->s, PRIMARY_ANSWER_LIMIT);
    ok = word == WIRE_GOODBYE ? wire_send_text(p->s->out, word, text, &err)
                              : wire_send(p->s->out, word, id, &err);
    ok = ok && primary_expect(p, answer, &id, &err) && wire_done(p->s->in, &err);
    ok = ok || p->peer_failed; /* that says the same */
    if (!ok)
        link_down(&p->s->link, error_get_pretty(err));
    error_free(err);
    return ok;
}

/* Undoes everything but the pause. discard: as checkpoint_devices_teardown(). */
static void undo(struct primary *p, bool discard, bool failover)
{
    Error *err = NULL;

    p->g->on_request = NULL;
    checkpoint_devices_set_listener(NULL, NULL);
    primary_feed_end(p);
    if (p->throttled)
        p->g->ops->throttle(p->g, 0);
    if (p->gated)
        checkpoint_devices_teardown(discard);
    if (p->tracking)
        p->g->ops->tracking_stop(p->g);
    if (p->replicating && !replication_stop_all(failover, &err))
        engine_note_trouble(p->e, err);
    error_free(err);
    p->throttled = 0;
    p->gated = p->tracking = p->replicating = false;
}

/* Of a migration; after it memory is not followed any more, nor sent. */
static void end_saving(struct primary *p)
{
    postcopy_stop_answering(p);
    if (p->saving) {
        perdure_savevm_cleanup();
        ram_state_set_live(p->g, false);
    }
    precopy_free_lanes(p);
    p->saving = false;
}

void primary_step_down(struct primary *p)
{
    Error *err = NULL;

    if (!primary_pause(p, &err) && !primary_pause(p, NULL)) {
        engine_note_trouble(p->e, err);
        p->gated = false; /* it may run on: its gates stay shut for good */
    }
    error_free(err);
    undo(p, true, false);
}

void primary_give_away(struct primary *p)
{
    primary_step_down(p);
    session_try_mark_disks(p->s, GUEST_DISKS_SUPERSEDED);
    session_hold_disks(p->s, GUEST_DISKS_LEFT, NULL);
}

/* A new primary whose former one is gone before it greets was never more than that. */
static void become_unprotected(Engine *e, const char *why)
{
    bool is;

    task_lock(&e->lock);
    is = e->state == ENGINE_UNPROTECTED;
    task_unlock(&e->lock);
    if (!is)
        engine_set_state(e, ENGINE_PRIMARY, ENGINE_UNPROTECTED, why);
}

static bool wait_a_moment(Engine *e)
{
    int64_t until = clock_now() + RETRY;
    bool on;

    task_lock(&e->lock);
    while (!e->wish.quit && task_wait_until(&e->changed, &e->lock, until))
        ;
    on = !e->wish.quit;
    task_unlock(&e->lock);
    return on;
}

/* The other side may hold them until it has heard that it will not run; without them the guest stands still. false: this
 * process ends. */
static bool take_disks_back(struct primary *p)
{
    bool told = false;
    Error *err = NULL;

    while (!session_hold_disks(p->s, GUEST_DISKS_HELD, &err)) {
        error_prepend(&err, "the guest stands still until it has its disks again: ");
        if (!told)
            engine_note_trouble(p->e, err);
        told = true;
        error_free(err);
        err = NULL;
        if (!wait_a_moment(p->e))
            return false;
    }
    return true;
}

/* The guest goes on here, unprotected, with all its output. */
static void go_on(struct primary *p, enum session_end end, const char *why)
{
    enum guest_request request = GUEST_REQUEST_NONE;
    Error *err = NULL;

    /* Tried again: without it a guest that asked for something meanwhile would stand still for ever. */
    if (!primary_pause(p, &err) && !primary_pause(p, NULL) && !primary_pause(p, NULL))
        engine_note_trouble(p->e, err);
    error_free(err);
    err = NULL;
    end_saving(p);
    undo(p, false, end == SESSION_LINK_LOST);
    if (!take_disks_back(p))
        return;
    if (!p->s->vouch.given) /* a user's word is not the arbiter's: the mark stays until that comes */
        session_try_mark_disks(p->s, GUEST_DISKS_CLEAN);
    /* What it asked for while no epoch could carry it any more. */
    if (p->paused)
        request = p->g->ops->request(p->g);
    if (request == GUEST_REQUEST_RESET && !p->g->ops->reset(p->g, &err))
        engine_note_trouble(p->e, err);
    error_free(err);
    become_unprotected(p->e, why);
    start_guest(p);
    if (request == GUEST_REQUEST_POWEROFF || request == GUEST_REQUEST_PANIC)
        p->e->owner.guest_ended(p->e->owner.opaque, request);
}

static void go_on_alone(struct primary *p, const char *why)
{
    report_note(&p->s->report, "output", "held output released, the guest goes on unprotected");
    engine_set_report(p->e, p->s->report.text);
    go_on(p, SESSION_LINK_LOST, why);
}

static void be_denied(struct primary *p)
{
    primary_give_away(p);
    if (p->postcopy) { /* it needs what is here */
        engine_set_report(p->e, p->s->report.text);
        postcopy_serve_denied(p);
        return;
    }
    report_line(&p->s->report, "output",
                "discarded since the last acknowledged epoch; the guest stands still");
    engine_set_report(p->e, p->s->report.text);
    engine_set_state(p->e, ENGINE_PRIMARY, ENGINE_FENCED, "the arbiter denied: the other side runs");
}

/* The user says so. It counts when the destination does, too. false: it did not. */
static bool is_there(struct primary *p)
{
    bool fetched;

    if (!postcopy_reach(p, &fetched))
        return false;
    primary_give_away(p);
    postcopy_serve_reached(p, fetched);
    return true;
}

static enum verdict ask_until_decided(struct primary *p)
{
    enum verdict v;

    do
        v = session_ask(p->s, ARBITER_PRIMARY, p->permitted);
    while (v == VERDICT_THERE && !is_there(p));
    return v;
}

static void ask(struct primary *p)
{
    /* It may run on, its output held; not if the other side may run by our leave. */
    if (!p->permitted)
        primary_resume(p);
    engine_set_state(p->e, ENGINE_PRIMARY, ENGINE_ASKING, "the other side does not answer");
    switch (ask_until_decided(p)) {
    case VERDICT_GRANTED:
        session_remember_grant(p->s, p->s->hello.generation);
        go_on_alone(p, "the arbiter granted this side to go on alone");
        break;
    case VERDICT_VOUCHED:
        go_on_alone(p, "the user vouched that the other side does not run");
        break;
    case VERDICT_DENIED:
        be_denied(p);
        break;
    case VERDICT_THERE:
        break;
    case VERDICT_QUIT:
        primary_step_down(p);
    }
    if (p->end == SESSION_MIGRATED)
        precopy_end(p);
}

static void finish(struct primary *p, enum session_end end, const char *why)
{
    if (end == SESSION_QUIT) {
        link_down(&p->s->link, "the engine was told to quit");
        if (p->armed || p->permitted) /* the backup takes over: see engine_free() */
            primary_step_down(p);
        else
            go_on(p, SESSION_FAILED, "the engine was told to quit");
        return;
    }
    if (end == SESSION_LINK_LOST)
        link_down(&p->s->link, why);
    if ((end == SESSION_FAILED || end == SESSION_GOODBYE) && !part(p, WIRE_GOODBYE, 0, WIRE_GOODBYE_OK, why))
        end = SESSION_LINK_LOST;
    /* An end that the acknowledged state says needs no other word: a backup that misses it finds it there. */
    if (end == SESSION_GUEST_ENDED)
        part(p, p->armed ? WIRE_ENDED : WIRE_GOODBYE, p->request, p->armed ? WIRE_ENDED_OK : WIRE_GOODBYE_OK,
             why);
    if (end == SESSION_LINK_LOST && (p->armed || p->permitted))
        ask(p);
    else
        go_on(p, end, why);
}

static const char *reason(const struct primary *p, enum session_end end, const Error *err)
{
    if (err)
        return error_get_pretty(err);
    switch (end) {
    case SESSION_GOODBYE:
        return migrates(p) ? "cancelled" : "unprotect";
    case SESSION_GUEST_ENDED:
        return "the guest ended";
    default:
        return "the link was lost";
    }
}

enum session_end primary_run(struct session *s)
{
    /* The former primary of a swap is the standby already, and may claim. */
    struct primary p = {.s = s, .e = s->e, .g = s->e->guest, .paused = s->unstarted, .armed = s->swapped};
    enum session_end end;
    Error *err = NULL;

    run(&p, &err);
    follow_end(&p);
    end = classify(&p);
    if (end == SESSION_LINK_LOST)
        link_down(&p.s->link, reason(&p, end, err));
    if (!p.peer_failed) /* its own word says more */
        session_blame_link(p.s, &err);
    if (migrates(&p))
        note_outcome(&p, end);
    if (err && end != SESSION_QUIT)
        engine_note_error(p.e, err);
    if (end != SESSION_SWAPPED && end != SESSION_MIGRATED)
        finish(&p, end, reason(&p, end, err));
    error_free(err);
    end_saving(&p);
    close_buffers(&p);
    return end;
}
