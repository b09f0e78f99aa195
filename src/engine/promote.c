/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Taking over. The order keeps two promises: nothing that may send a frame happens before this side is
 * entitled to run; and what can fail happens before the permission of a swap is used up. After that the guest waits
 * until it can run protected (primary.c).
 */
#include "engine/backup.h"
#include "engine/state.h"
#include <perdure/replication.h>
#include <perdure/savevm.h>

#include <inttypes.h>

static bool load(struct backup *b, Error **errp)
{
    VMStream *f = vmstream_reopen_memory(b->last_devices);
    size_t size;
    bool ok;

    if (!f) {
        error_setg(errp, "out of memory");
        return false;
    }
    ok = perdure_loadvm_devices(f, errp);
    perdure_stream_close(f);
    perdure_stream_memory(b->last_devices, &size);
    if (ok)
        report_line(&b->s->report, "load", "%zu KiB of device state, memory is in place", size >> 10);
    return ok;
}

/* The guest had asked for something that its last epoch carried: it has its effect here. */
static bool carry_out(struct backup *b, enum guest_request *ret_request, Error **errp)
{
    Guest *g = b->e->guest;

    *ret_request = g->ops->request(g);
    if (*ret_request != GUEST_REQUEST_RESET)
        return true;
    report_note(&b->s->report, "request", "the guest had asked for a reset");
    return g->ops->reset(g, errp);
}

static void begin_generation(Engine *e, uint64_t generation)
{
    task_lock(&e->lock);
    e->generation = generation;
    e->epoch = 0;
    task_unlock(&e->lock);
}

static int64_t start(struct session *s)
{
    Engine *e = s->e;
    int64_t now;

    e->guest->ops->resume(e->guest);
    now = clock_now();
    report_line(&s->report, "first-instruction", "generation %" PRIu64, e->generation);
    task_lock(&e->lock);
    e->took_over_ns = now;
    e->guest_is_made = false;
    task_unlock(&e->lock);
    return now;
}

static void note_start(struct backup *b, int64_t now)
{
    Engine *e = b->e;

    task_lock(&e->lock);
    if (backup_is_destination(b) && !b->fetch.missing) {
        e->migration.outcome = ENGINE_MIGRATION_COMPLETED;
        e->migration.ended = now;
    }
    b->fetch.runs = true;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
}

static void announce(struct session *s, const char *output)
{
    Engine *e = s->e;

    e->guest->ops->announce(e->guest);
    report_line(&s->report, "announce", "network interfaces announced");
    if (output)
        report_note(&s->report, "output", "%s", output);
    engine_set_report(e, s->report.text);
}

static void tell_owner(Engine *e)
{
    if (e->owner.promoted)
        e->owner.promoted(e->owner.opaque, e->guest);
}

static void tell(struct backup *b)
{
    Engine *e = b->e;

    if (b->fetch.missing) /* first: to announce may take a page, and the link may be broken */
        engine_set_state(e, ENGINE_PRIMARY, ENGINE_POSTCOPY, "the guest runs here, and lacks memory");
    task_lock(&e->lock);
    b->fetch.told = true;
    task_unlock(&e->lock);
    announce(b->s, backup_is_destination(b)
                       ? NULL
                       : "nothing was held here; what the other side did not release is lost");
    if (!b->fetch.missing)
        engine_set_state(e, ENGINE_PRIMARY, ENGINE_UNPROTECTED, "the guest runs here");
    tell_owner(e);
}

/* Its user may do nothing with it yet. */
static void set_unstarted(struct session *s, bool unstarted)
{
    s->unstarted = unstarted;
    task_lock(&s->e->lock);
    s->e->unstarted = unstarted;
    task_unlock(&s->e->lock);
}

void promote_start(struct session *s, bool held)
{
    Guest *g = s->e->guest;
    Error *err = NULL;

    set_unstarted(s, false);
    if (!g->ops->take_over(g, &err)) /* nobody else may run it any more */
        engine_note_trouble(s->e, err);
    error_free(err);
    start(s);
    announce(s,
             held ? "held until an epoch with it is acknowledged" : "not held: the guest is not protected");
    tell_owner(s->e);
}

/* A swap: the guest is this side's. It runs when it can do so protected: the session's next role sees to that. */
static void take_charge(struct backup *b)
{
    struct session *s = b->s;

    begin_generation(b->e, s->hello.generation + 1);
    set_unstarted(s, true);
    engine_set_state(b->e, ENGINE_PRIMARY, ENGINE_SYNCING,
                     "the guest is this side's, the former primary stands by");
    wire_send(s->out, WIRE_RUNNING, s->hello.generation + 1, NULL); /* a broken link shows soon enough */
    b->end = SESSION_SWAPPED;
}

/* It was switched off: that is not a failure to be healed. */
static bool end_guest(struct backup *b, enum guest_request how)
{
    b->end = SESSION_GUEST_ENDED;
    report_line(&b->s->report, "request", "the guest had switched itself off: it is not started");
    engine_set_report(b->e, b->s->report.text);
    b->e->owner.guest_ended(b->e->owner.opaque, how);
    return true;
}

/* After a swap the former primary may claim the next generation as soon as it hears of it: this side's record must ask by then. */
static bool mark_disks(struct backup *b, bool armed, Error **errp)
{
    bool ok;

    if (!armed)
        return session_mark_disks(b->s, GUEST_DISKS_CLEAN, errp);
    b->s->hello.generation++;
    ok = session_mark_disks(b->s, GUEST_DISKS_PRIMARY, errp);
    b->s->hello.generation--;
    return ok;
}

bool backup_promote(struct backup *b, bool permitted, Error **errp)
{
    bool swap = permitted && !backup_is_destination(b), replicating = b->replicating;
    Guest *g = b->e->guest;
    enum guest_request request;

    engine_set_state(b->e, ENGINE_BACKUP, ENGINE_PROMOTING,
                     permitted ? "the other side hands over" : "granted");
    if ((!backup_is_destination(b) && !load(b, errp)) || !carry_out(b, &request, errp))
        return false;
    b->replicating = false; /* it reaches everyone, whatever they answer */
    b->unsettled = replicating && !replication_stop_all(true, errp);
    if (b->unsettled)
        return false;
    /* Nobody writes to them any more: the permission says so. */
    if (!session_hold_disks(b->s, GUEST_DISKS_HELD, errp))
        return false;
    /* All that was acknowledged is on this side's medium. Before that a claim would let this side die with it. */
    if (permitted && (!backup_begin_claim(b, errp) || !session_claim_permitted(b->s, errp)))
        return false;
    if (!mark_disks(b, swap && request != GUEST_REQUEST_POWEROFF && request != GUEST_REQUEST_PANIC, errp))
        return false;
    if (request == GUEST_REQUEST_POWEROFF || request == GUEST_REQUEST_PANIC)
        return end_guest(b, request);
    if (swap) {
        take_charge(b);
        return true;
    }
    if (!g->ops->take_over(g, errp))
        return false;
    begin_generation(b->e, b->s->hello.generation + 1);
    note_start(b, start(b->s));
    if (b->fetch.missing) { /* the session's own task, which has the link, does the rest */
        tell(b);
        return true;
    }
    if (permitted)
        wire_send(b->s->out, WIRE_RUNNING, b->s->hello.generation + 1,
                  NULL); /* a broken link shows soon enough */
    tell(b);
    b->end = backup_is_destination(b) ? SESSION_MIGRATED : SESSION_SWAPPED;
    return true;
}

void backup_drop(struct backup *b, bool superseded, const char *why)
{
    Engine *e = b->e;
    Guest *g = e->guest;
    enum engine_state state;
    Error *err = NULL;
    bool settled = !b->unsettled;

    session_mark_closing(b->s);
    if (b->replicating && !replication_stop_all(false, &err)) {
        engine_note_trouble(e, err);
        settled = false;
    }
    error_free(err);
    err = NULL;
    b->replicating = false;
    /* What lacks acknowledged epochs keeps the record that names their journal. */
    if (superseded && settled && (b->epoch || b->loaded))
        session_try_mark_disks(b->s, GUEST_DISKS_SUPERSEDED);
    if (g && e->guest_is_made) {
        e->owner.factory->destroy(e->owner.factory, g);
        e->guest = NULL;
        e->guest_is_made = false;
    } else if (g && !g->ops->clear(g, false, &err)) {
        engine_note_trouble(e, err);
    }
    error_free(err);
    task_lock(&e->lock);
    state = e->state;
    if (e->migration.outcome == ENGINE_MIGRATION_ACTIVE) {
        e->migration.outcome = ENGINE_MIGRATION_FAILED;
        e->migration.ended = clock_now();
    }
    task_unlock(&e->lock);
    if (state != ENGINE_LISTENING)
        engine_set_state(e, ENGINE_BACKUP, ENGINE_LISTENING, why);
}
