/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/backup.h"
#include "engine/state.h"
#include "base/fault.h"
#include <perdure/replication.h>
#include <perdure/savevm.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARRIVAL_LIMIT (10 * NS_PER_S) /* for the other connections of a link to come */

/* --- the beginning --- */

static bool take(struct backup *b, enum wire_kind kind, unsigned lane, Channel **which, Error **errp)
{
    Channel *ch = session_await(b->s, kind, lane, clock_now() + ARRIVAL_LIMIT, errp);

    if (!ch)
        return false;
    ch = link_wrap(&b->s->link, ch);
    if (ch)
        link_set(&b->s->link, which, ch);
    else
        error_setg(errp, "out of memory");
    return ch;
}

static bool take_channels(struct backup *b, Error **errp)
{
    bool ok = true;

    for (unsigned i = 1; i <= b->s->hello.lanes && ok; i++)
        ok = take(b, WIRE_KIND_CHANNEL, i, &b->s->link.lanes[i - 1], errp);
    return ok;
}

bool backup_take_connections(struct backup *b, Error **errp)
{
    struct link *l = &b->s->link;

    return take(b, WIRE_KIND_HEARTBEAT, 0, &l->beat, errp) &&
           (!b->s->hello.postcopy || take(b, WIRE_KIND_URGENT, 0, &l->urgent, errp)) &&
           take_channels(b, errp) && link_start(l, false, errp);
}

/* After a swap this side holds what the new primary begins with. */
static bool stand_by(struct backup *b, Error **errp)
{
    struct session *s = b->s;

    if (!s->last_devices) {
        error_setg(errp, "the former primary does not stand by%s",
                   engine_wishes(b->e).leave ? ": it was told to end" : "");
        return false;
    }
    perdure_stream_close(b->last_devices);
    b->last_devices = s->last_devices;
    s->last_devices = NULL;
    b->standby = true;
    return true;
}

/* Makes the guest, unless a swap left one here. */
static bool make_guest(struct backup *b, const void *config, size_t size, Error **errp)
{
    Engine *e = b->e;
    VMStream *f;

    if (e->guest)
        return session_config_fits(e->guest, config, size, errp);
    f = perdure_stream_open_buffer(config, size);
    if (!f) {
        error_setg(errp, "out of memory");
        return false;
    }
    e->guest = e->owner.factory->create(e->owner.factory, f, errp);
    e->guest_is_made = e->guest != NULL;
    perdure_stream_close(f);
    return e->guest;
}

/* Tried here, so that a source hears of it before it begins. */
static bool can_lack_memory(Guest *g, Error **errp)
{
    MissingPages *mp = g->ops->missing_new ? g->ops->missing_new(g, errp) : NULL;

    if (!g->ops->missing_new)
        error_setg(errp,
                   "this standby's machine cannot run while part of its memory is elsewhere (postcopy)");
    missing_free(mp);
    return mp;
}

static bool on_config(struct backup *b, Error **errp)
{
    Engine *e = b->e;
    void *config;
    size_t size;
    bool ok;

    if (b->replicating || e->state != ENGINE_LISTENING) {
        error_setg(errp, "the primary sent a second configuration");
        return false;
    }
    if (!wire_get_config(b->s->in, &config, &size, errp))
        return false;
    ok = make_guest(b, config, size, errp) &&
         (backup_is_destination(b) || session_may_protect(e->guest, errp));
    free(config);
    if (ok && e->guest->memory->size != b->s->hello.ram_size) {
        error_setg(errp,
                   "this standby's machine has %" PRIu64 " MiB of memory, the primary's %" PRIu64 " MiB",
                   e->guest->memory->size >> 20, b->s->hello.ram_size >> 20);
        ok = false;
    }
    if (!ok || (b->s->hello.postcopy && !can_lack_memory(e->guest, errp)))
        return false;
    task_lock(&e->lock);
    snprintf(e->pair, sizeof(e->pair), "%s", b->s->hello.pair);
    snprintf(e->peer, sizeof(e->peer), "%s", b->s->peer);
    snprintf(e->arbiter, sizeof(e->arbiter), "%s", b->s->hello.arbiter);
    e->generation = b->s->hello.generation;
    e->interval_ns = b->s->hello.interval_ns;
    e->epoch = 0;
    e->unknowns = 0;
    e->last_error[0] = 0;
    e->wish = (struct wishes){.quit = e->wish.quit}; /* they were for the protection before */
    memset(&e->figures, 0, sizeof(e->figures));
    e->migration = (struct engine_migration){0};
    if (backup_is_destination(b))
        e->migration = (struct engine_migration){.outcome = ENGINE_MIGRATION_ACTIVE, .began = clock_now()};
    task_unlock(&e->lock);
    if (backup_is_destination(b))
        engine_set_state(e, ENGINE_BACKUP, ENGINE_MIGRATING, "a guest is coming");
    else
        engine_set_state(e, ENGINE_BACKUP, ENGINE_SYNCING, "a primary begins to sync");
    return wire_send(b->s->out, WIRE_CONFIG_OK, 0, errp);
}

static bool on_start(struct backup *b, Error **errp)
{
    bool due = b->s->swapped ? !b->epoch : b->e->state == ENGINE_SYNCING || b->e->state == ENGINE_MIGRATING;

    if (!wire_done(b->s->in, errp))
        return false;
    if (!due || b->replicating) { /* a guest may be left here by a swap */
        error_setg(errp, "the primary started replication out of turn");
        return false;
    }
    b->replicating = session_mark_disks(b->s, GUEST_DISKS_SYNC_TARGET, errp) &&
                     replication_start_all(REPLICATION_MODE_SECONDARY, errp);
    if (!b->replicating || !wire_send(b->s->out, WIRE_STARTED, 0, errp))
        return false;
    if (b->s->swapped &&
        b->s->hello.verify_every) /* while the primary, whose guest stands still, does the same */
        b->hash = guest_memory_hash(b->e->guest->memory);
    return true;
}

void backup_become_standby(struct backup *b, const char *why)
{
    engine_set_state(b->e, ENGINE_BACKUP, ENGINE_STANDBY, why);
    b->standby = true;
}

/* --- the end in order --- */

static bool on_goodbye(struct backup *b, Error **errp)
{
    char text[WIRE_TEXT_MAX];

    if (!wire_get_text(b->s->in, text, errp))
        return false;
    if (fetch_is_permitted(b)) {
        error_setg(errp, "the source says good-bye to a guest that runs here, and lacks memory");
        return false;
    }
    b->end = SESSION_GOODBYE;
    session_mark_closing(b->s); /* before the primary's user can try again */
    engine_event(b->e, "PERDURE_GOODBYE", "the primary ended protection: %s", text);
    return wire_send(b->s->out, WIRE_GOODBYE_OK, 0, errp);
}

static bool on_ended(struct backup *b, uint64_t how, Error **errp)
{
    if (!wire_done(b->s->in, errp))
        return false;
    if (!b->standby || how != b->last_request ||
        (how != GUEST_REQUEST_POWEROFF && how != GUEST_REQUEST_PANIC)) {
        error_setg(errp, "the primary says out of turn that the guest ended (%" PRIu64 ")", how);
        return false;
    }
    b->end = SESSION_GUEST_ENDED;
    wire_send(b->s->out, WIRE_ENDED_OK, 0, NULL); /* it is as the primary says, heard or not */
    b->e->owner.guest_ended(b->e->owner.opaque, (enum guest_request)how);
    return true;
}

static bool ram_is_missing(const struct backup *b)
{
    return b->fetch.missing;
}

static bool may_be_permitted(const struct backup *b, uint64_t epoch)
{
    if (backup_is_destination(b))
        return b->loaded && !b->fetch.starter && epoch == 0;
    return b->standby && b->last_was_swap && epoch == b->epoch;
}

static bool on_run(struct backup *b, uint64_t epoch, Error **errp)
{
    bool moves = backup_is_destination(b);
    Error *err = NULL;

    if (!wire_done(b->s->in, errp))
        return false;
    if (!may_be_permitted(b, epoch)) {
        error_setg(errp, "the primary gave its permission to run out of turn");
        return false;
    }
    successor_stop(b);
    report_begin(&b->s->report, moves ? "live migration" : "planned change of roles",
                 moves ? "the source hands over" : "the primary hands over", clock_now(),
                 b->s->hello.generation, b->epoch, b->s->last_ack);
    if (ram_is_missing(b) ? fetch_run(b, &err) : backup_promote(b, true, &err))
        return true;
    if (ram_is_missing(b) && session_link_broken(b->s)) { /* nobody hears it */
        error_propagate(errp, err);
        return false;
    }
    /* Did not start, and never will in this generation: nothing is claimed after this end, and the source need not wait for its
     * disks. */
    b->end = SESSION_PEER_FAILED;
    engine_note_error(b->e, err);
    session_hold_disks(b->s, GUEST_DISKS_LEFT, NULL);
    wire_send_text(b->s->out, WIRE_NOT_STARTED, error_get_pretty(err), NULL);
    error_free(err);
    return true;
}

/* In postcopy the answer also says that all pages which were sent before are in place. */
static bool on_probe(struct backup *b, uint64_t id, Error **errp)
{
    if (!wire_done(b->s->in, errp))
        return false;
    if (fetch_is_permitted(b))
        fetch_await_pages(b);
    return wire_send(b->s->out, WIRE_PROBE_OK, id, errp);
}

/* --- record by record --- */

static bool unexpected(struct backup *b, uint16_t type, Error **errp)
{
    wire_unexpected(b->s->in, type,
                    backup_is_destination(b) ? "taking in a migration" : "serving as a backup");
    perdure_stream_error(b->s->in, errp);
    return false;
}

/* Of a protection only. */
static bool dispatch_epoch(struct backup *b, uint16_t type, uint64_t id, Error **errp)
{
    switch (type) {
    case WIRE_SYNC_PAGES:
        return intake_sync_pages(b, errp);
    case WIRE_PAGES:
        return intake_pages(b, id, errp);
    case PERDURE_RECORD_SECTION_FULL:
        return intake_device(b, errp);
    case WIRE_END:
        return intake_end(b, id, errp);
    case WIRE_ENDED:
        return on_ended(b, id, errp);
    case WIRE_MOVE:
        return successor_on_move(b, errp);
    case WIRE_LET_GO:
        return successor_on_let_go(b, errp);
    case WIRE_STAY:
        return successor_on_stay(b, errp);
    case WIRE_SUCCEED:
        return succeed(b, id, errp);
    default:
        return unexpected(b, type, errp);
    }
}

/* Of a migration only. */
static bool dispatch_incoming(struct backup *b, uint16_t type, uint64_t id, Error **errp)
{
    if (type >= PERDURE_RECORD_SECTION_START && type <= PERDURE_RECORD_SECTION_FULL)
        return incoming_section(b, type, id, errp);
    if (type == PERDURE_RECORD_STATE_END)
        return incoming_state_end(b, errp);
    return unexpected(b, type, errp);
}

static bool dispatch(struct backup *b, uint16_t type, uint64_t id, Error **errp)
{
    switch (type) {
    case WIRE_CONFIG:
        return on_config(b, errp);
    case WIRE_START:
        return on_start(b, errp);
    case WIRE_FEED:
        return intake_feed(b, id, errp);
    case WIRE_PROBE:
        return on_probe(b, id, errp);
    case WIRE_GOODBYE:
        return on_goodbye(b, errp);
    case WIRE_RUN:
        return on_run(b, id, errp);
    default:
        return backup_is_destination(b) ? dispatch_incoming(b, type, id, errp)
                                        : dispatch_epoch(b, type, id, errp);
    }
}

void backup_take_records(struct backup *b, Error **errp)
{
    uint16_t type;
    uint64_t id;

    while (b->end == SESSION_OPEN && wire_next(b->s->in, &type, &id, errp) && dispatch(b, type, id, errp))
        ;
}

static void run(struct backup *b, Error **errp)
{
    if (!intake_open(b, errp) || !(b->s->swapped ? stand_by(b, errp) : backup_take_connections(b, errp)))
        return;
    backup_take_records(b, errp);
    fetch_go_on(b, errp);
}

/* --- what follows --- */

static enum session_end classify(struct backup *b)
{
    if (b->end != SESSION_OPEN)
        return b->end;
    if (engine_wishes(b->e).quit)
        return SESSION_QUIT;
    return session_link_broken(b->s) ? SESSION_LINK_LOST : SESSION_FAILED;
}

/* Says so: nothing is claimed after this. */
static void give_up(struct backup *b, const char *why)
{
    if (!perdure_stream_error(b->s->out, NULL))
        wire_send_text(b->s->out, b->e->state == ENGINE_LISTENING ? WIRE_REFUSE : WIRE_FAIL, why, NULL);
}

/* Whoever knows already that he could not run it leaves the guest to the primary. */
static bool may_claim(struct backup *b)
{
    Error *err = NULL;

    if (replication_get_error_all(&err))
        return true;
    error_prepend(&err, "this side does not take over: ");
    engine_note_error(b->e, err);
    backup_drop(b, false, error_get_pretty(err));
    error_free(err);
    return false;
}

static void take_over(struct backup *b)
{
    Error *err = NULL;

    if (!may_claim(b))
        return;
    switch (session_ask(b->s, ARBITER_BACKUP, false)) {
    case VERDICT_GRANTED:
    case VERDICT_VOUCHED:
        if (!backup_promote(b, false, &err)) {
            error_prepend(&err, "TAKEOVER FAILED, the guest runs nowhere: ");
            engine_note_error(b->e, err);
            error_free(err);
            backup_drop(b, false, "the takeover failed");
        } else if (b->end == SESSION_GUEST_ENDED) {
            backup_drop(b, false, "the guest had ended");
        }
        break;
    case VERDICT_DENIED:
        report_note(&b->s->report, "output", "nothing was held here; the primary goes on");
        engine_set_report(b->e, b->s->report.text);
        backup_drop(b, true, "denied: the primary goes on");
        break;
    case VERDICT_THERE: /* of a source only */
    case VERDICT_QUIT:
        backup_drop(b, false, "the engine was told to quit");
    }
}

/* A planted bug: a successor was never told, and claims. */
static void claim_untold(struct backup *b)
{
    if (backup_is_successor(b) && b->epoch && fault_point("engine.successor_claims_untold"))
        backup_become_standby(b, "it holds what the backup does");
}

static void finish(struct backup *b, enum session_end end, const char *why)
{
    claim_untold(b);
    if (end == SESSION_LINK_LOST && b->standby) {
        link_down(&b->s->link, why);
        engine_set_state(b->e, ENGINE_BACKUP, ENGINE_ASKING, why);
        take_over(b);
        return;
    }
    session_mark_closing(b->s);
    /* Also when what came made no sense: the primary's user should read why. */
    if (end == SESSION_FAILED || end == SESSION_LINK_LOST)
        give_up(b, why);
    incoming_free_lanes(b); /* not before that was said: a source that finds one broken looks for it */
    session_linger(b->s, SESSION_LINGER);
    link_down(&b->s->link, why);
    backup_drop(b, end != SESSION_QUIT, why);
}

static const char *reason(enum session_end end, bool moved, const Error *err)
{
    if (err)
        return error_get_pretty(err);
    switch (end) {
    case SESSION_GOODBYE:
        return moved ? "the backup has moved to another host" : "the primary ended protection";
    case SESSION_GUEST_ENDED:
        return "the guest ended";
    case SESSION_PEER_FAILED:
        return "the takeover did not start";
    default:
        return "the session ended";
    }
}

enum session_end backup_run(struct session *s)
{
    struct backup b = {.s = s, .e = s->e};
    enum session_end end;
    Error *err = NULL;

    run(&b, &err);
    end = classify(&b);
    successor_stop(&b); /* nobody is brought up to date by a side that may have to take over */
    session_blame_link(s, &err);
    if (err && end != SESSION_QUIT)
        engine_note_error(s->e, err);
    /* The source would take the end of the urgent connection for a broken link, if it had not read of it yet. */
    if (end == SESSION_PEER_FAILED && ram_is_missing(&b)) {
        session_mark_closing(s);
        session_linger(s, SESSION_LINGER);
    }
    incoming_close(&b);
    if (end == SESSION_MIGRATED)
        session_linger(s, SESSION_LINGER); /* the source may still have to read that it runs here */
    else if (end != SESSION_SWAPPED && !b.fetch.runs) /* else this was no backup any more */
        finish(&b, end, reason(end, b.moved, err));
    if (b.moved && !s->e->accept_task && s->e->owner.migrated) /* nobody can protect to it again */
        s->e->owner.migrated(s->e->owner.opaque);
    error_free(err);
    incoming_free_lanes(&b);
    intake_close(&b);
    return end;
}
