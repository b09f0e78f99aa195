/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/successor_private.h"
#include "base/bitmap.h"
#include "base/crc32c.h"
#include "base/fault.h"
#include "base/random.h"
#include <perdure/replication_feed.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- how far it has got --- */

static bool has_failed(struct successor *su)
{
    bool yes;

    task_lock(&su->e->lock);
    yes = su->failure;
    task_unlock(&su->e->lock);
    return yes;
}

static bool has_ended(struct successor *su)
{
    bool yes;

    task_lock(&su->e->lock);
    yes = su->ended;
    task_unlock(&su->e->lock);
    return yes;
}

static Error *take_failure(struct successor *su)
{
    Error *err;

    task_lock(&su->e->lock);
    err = su->failure;
    su->failure = NULL;
    task_unlock(&su->e->lock);
    return err;
}

/* --- beginning and end --- */

static void free_successor(struct successor *su)
{
    task_join(su->task);
    if (su->copies)
        replication_feeds_copy_end();
    session_free(su->s);
    page_encoder_free(su->encoder);
    perdure_stream_close(su->batch);
    task_mutex_destroy(&su->lock);
    error_free(su->failure);
    free(su->changed);
    free(su->taken);
    free(su);
}

static struct successor *new_successor(struct backup *b, const char *to, bool asked, Error **errp)
{
    struct successor *su = calloc(1, sizeof(*su));
    GuestMemory *m = b->e->guest->memory;

    if (!su) {
        error_setg(errp, "out of memory");
        return NULL;
    }
    task_mutex_init(&su->lock);
    su->e = b->e;
    su->guest = b->e->guest;
    su->asked = asked;
    su->hello = b->s->hello;
    su->hello.kind = WIRE_KIND_SUCCESSOR;
    random_bytes(&su->hello.session, sizeof(su->hello.session));
    snprintf(su->to, sizeof(su->to), "%s", to);
    su->changed = calloc(1, bitmap_bytes(m->page_count));
    su->taken = calloc(1, bitmap_bytes(m->page_count));
    su->encoder = page_encoder_new(m->page_count, false, true, errp);
    su->batch = perdure_stream_open_memory(SUCCESSOR_BATCH_PAGES * (GUEST_PAGE_SIZE + 64));
    if (su->changed && su->taken && su->encoder && su->batch) {
        guest_memory_populated(m, su->changed);
        return su;
    }
    if (su->encoder)
        error_setg(errp, "out of memory");
    free_successor(su);
    return NULL;
}

static void note_begin(Engine *e)
{
    task_lock(&e->lock);
    e->migration = (struct engine_migration){.outcome = ENGINE_MIGRATION_SETUP, .began = clock_now()};
    task_unlock(&e->lock);
}

static void note_outcome(Engine *e, enum engine_migration_outcome outcome, const char *why)
{
    task_lock(&e->lock);
    e->migration.outcome = outcome;
    e->migration.ended = clock_now();
    e->migration.bytes_left = outcome == ENGINE_MIGRATION_COMPLETED ? 0 : e->migration.bytes_left;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
    engine_event(e, "MIGRATION", "%s", why);
}

/* By the user, if he said so. It may be told to move again as soon as this is known. */
static void note_given_up(Engine *e, const char *why)
{
    enum engine_migration_outcome outcome;
    bool under_way;

    task_lock(&e->lock);
    outcome = e->wish.stay ? ENGINE_MIGRATION_CANCELLED : ENGINE_MIGRATION_FAILED;
    under_way =
        e->migration.outcome == ENGINE_MIGRATION_SETUP || e->migration.outcome == ENGINE_MIGRATION_ACTIVE;
    if (under_way)
        snprintf(e->last_error, sizeof(e->last_error), "%s", why);
    task_unlock(&e->lock);
    if (under_way)
        note_outcome(e, outcome, why);
}

/* The last one, which may still have been connecting when it was given up. */
static bool is_reaped(Engine *e)
{
    bool ended;

    task_lock(&e->lock);
    ended = !e->leaving || e->leaving->ended;
    task_unlock(&e->lock);
    if (ended)
        successor_reap(e);
    return ended;
}

void successor_reap(Engine *e)
{
    if (e->leaving)
        free_successor(e->leaving);
    e->leaving = NULL;
}

bool successor_begin(struct backup *b, const char *to, bool asked, Error **errp)
{
    struct successor *su;

    if (b->successor || !is_reaped(b->e)) {
        error_setg(errp, "this backup is on its way to another host already");
        return false;
    }
    su = new_successor(b, to, asked, errp);
    if (!su)
        return false;
    note_begin(b->e);
    su->until = TIME_NEVER;
    su->task = task_start("successor", successor_run, su, errp);
    if (su->task) {
        b->successor = su;
        return true;
    }
    free_successor(su);
    note_given_up(b->e, "no task could be started");
    return false;
}

/* While it is being connected to its task cannot be ended: it ends by itself, and touches nothing. */
static bool leave(Engine *e, struct successor *su)
{
    struct session *s;
    bool connects;

    task_lock(&e->lock);
    s = su->s;
    su->cancelled = true;
    connects = !su->reached && !su->ended;
    if (connects)
        e->leaving = su;
    task_unlock(&e->lock);
    if (s)
        link_down(&s->link, "the backup does not move");
    return connects;
}

static void stop(struct backup *b)
{
    struct successor *su = b->successor;

    b->successor = NULL;
    if (su && !leave(b->e, su))
        free_successor(su);
}

void successor_stop(struct backup *b)
{
    if (!b->successor)
        return;
    stop(b);
    note_given_up(b->e, "protection ended before the backup had moved");
}

/* It stays where it is. Takes err. */
static void give_up(struct backup *b, Error *err)
{
    error_prepend(&err, "the backup does not move: ");
    engine_note_error(b->e, err);
    if (b->successor && b->successor->asked)
        snprintf(b->not_moved, sizeof(b->not_moved), "%s", error_get_pretty(err));
    stop(b);
    note_given_up(b->e, error_get_pretty(err));
    error_free(err);
}

/* --- epochs --- */

void successor_lock(struct backup *b)
{
    if (b->successor)
        task_lock(&b->successor->lock);
}

static void mark(struct successor *su, const VMStream *pages)
{
    VMStream *f = vmstream_reopen_memory(pages);
    uint16_t type;
    uint64_t id;

    if (!f) {
        bitmap_set_range(su->changed, 0, su->guest->memory->page_count); /* then all of it again */
        return;
    }
    while (perdure_stream_next(f, &type, &id) &&
           page_list_all(f, su->guest->memory->page_count, su->changed) >= 0)
        perdure_stream_done(f);
    perdure_stream_close(f);
}

void successor_unlock(struct backup *b, const VMStream *pages)
{
    struct successor *su = b->successor;

    if (!su)
        return;
    if (!su->holds && !fault_point("engine.successor_misses_epochs"))
        mark(su, pages);
    task_unlock(&su->lock);
}

static bool takes_epochs(const struct backup *b)
{
    return b->successor && b->successor->holds && !has_failed(b->successor);
}

void successor_pass(struct backup *b, const VMStream *f, size_t from)
{
    if (!takes_epochs(b))
        return;
    session_set_limit(b->successor->s, SUCCESSOR_ANSWER_LIMIT);
    vmstream_append_from(b->successor->s->out, f, from);
}

static bool await_ack(struct successor *su, const struct wire_end *end, Error **errp)
{
    struct wire_ack ack;

    session_set_limit(su->s, SUCCESSOR_ANSWER_LIMIT);
    if (!successor_expect(su, WIRE_ACK, &ack.epoch, errp) || !wire_get_ack(su->s->in, &ack, errp))
        return false;
    session_set_limit(su->s, TIME_NEVER);
    if (ack.generation == end->generation && ack.epoch == end->epoch && ack.crc == end->crc)
        return true;
    error_setg(errp, "it acknowledged epoch %" PRIu64 " checksum %08x instead of %" PRIu64 ", %08x",
               ack.epoch, ack.crc, end->epoch, end->crc);
    return false;
}

void successor_pass_end(struct backup *b, const struct wire_end *end)
{
    Error *err = NULL;

    if (!takes_epochs(b))
        return;
    session_set_limit(b->successor->s, SUCCESSOR_ANSWER_LIMIT);
    b->successor->passed =
        wire_send_end(b->successor->s->out, end, &err) && await_ack(b->successor, end, &err);
    if (err)
        successor_fail(b->successor, err);
}

/* The guest goes on, and there: a swap, or its own end, comes before the move. */
static bool may_move_now(const struct backup *b)
{
    return !b->last_was_swap && !engine_wishes(b->e).handover && b->last_request != GUEST_REQUEST_POWEROFF &&
           b->last_request != GUEST_REQUEST_PANIC;
}

bool successor_tell(struct backup *b, Error **errp)
{
    struct successor *su = b->successor;

    if (b->not_moved[0]) {
        if (!wire_send_text(b->s->out, WIRE_NOT_MOVED, b->not_moved, errp))
            return false;
        b->not_moved[0] = 0;
    }
    if (!takes_epochs(b) || !su->passed || su->told || !may_move_now(b))
        return true;
    su->told = true;
    return wire_send_text(b->s->out, WIRE_MOVED, su->to, errp);
}

/* All that is left of the last epoch, between it and the next. */
static bool send_rest(struct backup *b, struct successor *su, struct wire_end *end, Error **errp)
{
    const void *devices;
    size_t size;

    int64_t until = clock_now() + successor_last_round(su);

    if (!successor_send_last(su, &b->s->link, until, errp))
        return false;
    devices = perdure_stream_memory(b->last_devices, &size);
    end->crc = crc32c(su->crc, devices, size);
    channel_set_deadline(su->s->link.main, until);
    perdure_stream_append(su->s->out, b->last_devices);
    return wire_send_end(su->s->out, end, errp) && await_ack(su, end, errp);
}

static void complete(struct backup *b)
{
    struct successor *su = b->successor;
    struct wire_end end = {
        .generation = b->s->hello.generation,
        .epoch = b->epoch,
        .flags = WIRE_END_FIRST,
        .request = b->last_request,
    };
    Error *err = NULL;

    su->holds = send_rest(b, su, &end, &err);
    if (!su->holds)
        successor_fail(su, err);
    if (su->copies)
        replication_feeds_copy_end();
    su->copies = false;
}

/* The user at this side wants it. */
static bool take_wish(Engine *e, char to[256])
{
    bool wished;

    task_lock(&e->lock);
    wished = e->wish.move;
    e->wish.move = false;
    memcpy(to, e->move_to, sizeof(e->move_to));
    task_unlock(&e->lock);
    return wished;
}

/* The primary may have been faster: then that is the move. */
static void begin_if_wished(struct backup *b)
{
    char to[256];
    Error *err = NULL;

    if (take_wish(b->e, to) && !b->successor && !successor_begin(b, to, false, &err))
        give_up(b, err);
}

static void fail_if_cancelled(struct backup *b)
{
    Error *err = NULL;

    if (!engine_wishes(b->e).stay)
        return;
    error_setg(&err, "cancelled");
    successor_fail(b->successor, err);
}

void successor_step(struct backup *b)
{
    begin_if_wished(b);
    if (!b->successor || b->successor->told) /* then the primary decides */
        return;
    fail_if_cancelled(b);
    if (has_ended(b->successor) && !b->successor->holds && !has_failed(b->successor) && may_move_now(b))
        complete(b);
    if (has_failed(b->successor))
        give_up(b, take_failure(b->successor));
}

/* --- what the primary says --- */

bool successor_on_move(struct backup *b, Error **errp)
{
    char to[WIRE_TEXT_MAX];
    Error *err = NULL;

    if (!wire_get_text(b->s->in, to, errp))
        return false;
    if (!b->standby || !b->epoch) {
        error_setg(errp, "the primary asked its backup to move out of turn");
        return false;
    }
    if (strlen(to) >= sizeof(b->e->move_to))
        error_setg(&err, "the address has more than %zu octets", sizeof(b->e->move_to) - 1);
    else if (successor_begin(b, to, true, &err))
        return true;
    snprintf(b->not_moved, sizeof(b->not_moved), "the backup does not move: %s", error_get_pretty(err));
    error_free(err);
    return true;
}

/* This side is the backup still: nothing was handed over. */
static bool refuse_to_go(struct backup *b, Error **errp)
{
    Error *err = b->successor ? take_failure(b->successor) : NULL;
    bool ok;

    if (!err)
        error_setg(&err, "the successor was lost");
    ok = wire_send_text(b->s->out, WIRE_NOT_MOVED, error_get_pretty(err), errp);
    if (b->successor)
        b->successor->asked = false; /* it was told */
    give_up(b, err);
    return ok;
}

/* What the successor made of its right. */
enum succession { SUCCESSION_TAKEN, SUCCESSION_REFUSED, SUCCESSION_UNKNOWN };

static enum succession pass_right_on(struct successor *su, uint64_t epoch, Error **errp)
{
    uint16_t type;
    uint64_t id;

    session_set_limit(su->s, SUCCESSOR_ANSWER_LIMIT);
    if (!wire_send(su->s->out, WIRE_SUCCEED, epoch, errp) || !wire_next(su->s->in, &type, &id, errp))
        return SUCCESSION_UNKNOWN;
    if (type == WIRE_SUCCEEDED && wire_done(su->s->in, errp))
        return SUCCESSION_TAKEN;
    if (type != WIRE_SUCCEEDED)
        session_greeted(su->s->in, type, WIRE_SUCCEEDED, errp);
    return type == WIRE_FAIL ? SUCCESSION_REFUSED
                             : SUCCESSION_UNKNOWN; /* and will never claim: as of any backup */
}

/* Never claims from here on, and its disks say so, whether anybody hears it or not. */
static void step_back(struct backup *b, bool moved, Error *err)
{
    if (!fault_point("engine.claim_after_let_go"))
        b->end = SESSION_GOODBYE;
    b->moved = moved;
    session_mark_closing(b->s);
    session_try_mark_disks(b->s, GUEST_DISKS_SUPERSEDED);
    wire_send(b->s->out, WIRE_SUCCEEDED, b->epoch, NULL); /* that is: this side is none any more */
    if (!moved) {
        error_prepend(&err, "the successor was told to be the backup, and did not answer: ");
        engine_note_error(b->e, err);
    }
    note_outcome(b->e, moved ? ENGINE_MIGRATION_COMPLETED : ENGINE_MIGRATION_FAILED,
                 moved ? "the backup has moved" : error_get_pretty(err));
    error_free(err);
}

static bool hand_over(struct backup *b, Error **errp)
{
    Error *err = NULL;
    enum succession how = pass_right_on(b->successor, b->epoch, &err);

    if (how == SUCCESSION_REFUSED) {
        successor_fail(b->successor, err);
        return refuse_to_go(b, errp);
    }
    step_back(b, how == SUCCESSION_TAKEN, err);
    return true;
}

bool successor_on_let_go(struct backup *b, Error **errp)
{
    struct successor *su = b->successor;

    if (!wire_done(b->s->in, errp))
        return false;
    if (!b->standby) {
        error_setg(errp, "the primary let its backup go out of turn");
        return false;
    }
    if (!takes_epochs(b) || !su->told || link_is_down(&su->s->link) ||
        !perdure_stream_flush(su->s->out, NULL))
        return refuse_to_go(b, errp);
    return hand_over(b, errp);
}

bool successor_on_stay(struct backup *b, Error **errp)
{
    char text[WIRE_TEXT_MAX];
    Error *err = NULL;

    if (!wire_get_text(b->s->in, text, errp))
        return false;
    if (!b->successor || !b->successor->told) {
        error_setg(errp, "the primary says out of turn that its backup stays");
        return false;
    }
    b->successor->asked = false; /* it knows */
    error_setg(&err, "the primary cannot go there: %s", text);
    give_up(b, err);
    return true;
}
