/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Postcopy, the source's half. While the guest still runs here the destination is told what it will lack; in the pause
 * only what changed meanwhile, with the devices. Then the guest runs there, and this side sends the rest: what somebody
 * over there waits for at once, over a connection of its own, and everything else behind that, beginning next to what was
 * asked for last.
 *
 * What this side holds is nowhere else: a broken link stops nobody here, it is made anew until all has come.
 */
#include "engine/primary.h"
#include "engine/state.h"
#include "guest/ram_state.h"
#include <perdure/savevm.h>

#include <stdio.h>
#include <string.h>

#define TOLD_ENOUGH 128u /* pages that the pause may as well tell */
#define RETRY       (500 * NS_PER_MS)
#define TELL        (20 * NS_PER_MS)

/* --- before the switch --- */

static bool tell_missing(struct primary *p, Error **errp)
{
    return perdure_savevm_iterate(p->s->out, true, errp) >= 0 && perdure_stream_flush(p->s->out, errp);
}

bool postcopy_tell(struct primary *p, Error **errp)
{
    uint64_t told = UINT64_MAX, before;

    p->postcopy = true;
    if (!ram_postcopy_begin(p->g, errp))
        return false;
    do {
        before = told;
        if (!precopy_may_send(p, errp) || !tell_missing(p, errp) || !precopy_await_noted(p, errp))
            return false;
        precopy_free_lanes(p); /* all that they carried is in place */
        told = ram_postcopy_told(p->g);
    } while (told > TOLD_ENOUGH && told < before / 2);
    return true;
}

/* --- what somebody waits for --- */

static bool answer_one(struct primary *p, uint64_t page, Error **errp)
{
    VMStream *out = p->answer.out;

    perdure_stream_begin(out, WIRE_WANTED, page);
    if (!ram_postcopy_put(p->g, out, page, errp))
        return false;
    perdure_stream_end(out);
    task_lock(&p->e->lock);
    p->e->migration.asked++;
    task_unlock(&p->e->lock);
    return perdure_stream_flush(out, errp);
}

static bool answer_next(struct primary *p, Error **errp)
{
    VMStream *in = p->answer.in;
    uint16_t type;
    uint64_t page;

    if (!wire_next(in, &type, &page, errp))
        return false;
    if (type != WIRE_WANT)
        wire_unexpected(in, type, "waiting for what the destination lacks");
    return wire_done(in, errp) && answer_one(p, page, errp);
}

/* The other side closes it first, then. */
static bool is_over(struct primary *p)
{
    bool over;

    task_lock(&p->e->lock);
    over = p->answer.over;
    task_unlock(&p->e->lock);
    return over;
}

static void set_over(struct primary *p, bool over)
{
    task_lock(&p->e->lock);
    p->answer.over = over;
    task_unlock(&p->e->lock);
}

static void answer_run(void *primary)
{
    struct primary *p = primary;
    Error *err = NULL;

    task_set_pace(TASK_HURRIED);
    while (answer_next(p, &err))
        ;
    if (!is_over(p))
        link_down(&p->s->link, error_get_pretty(err));
    error_free(err);
}

static bool start_answering(struct primary *p, Error **errp)
{
    Channel *ch = p->s->link.urgent;

    set_over(p, false);
    p->answer.in = vmstream_new_reader(ch);
    p->answer.out = vmstream_new_writer(ch);
    if (p->answer.in && p->answer.out)
        p->answer.task = task_start("answer", answer_run, p, errp);
    else
        error_setg(errp, "out of memory");
    return p->answer.task;
}

void postcopy_stop_answering(struct primary *p)
{
    if (p->answer.task)
        channel_shutdown(p->s->link.urgent);
    task_join(p->answer.task);
    if (p->answer.out)
        p->sent_before += perdure_stream_bytes(p->answer.out);
    perdure_stream_close(p->answer.in);
    perdure_stream_close(p->answer.out);
    p->answer.task = NULL;
    p->answer.in = p->answer.out = NULL;
}

bool postcopy_tell_last(struct primary *p, Error **errp)
{
    if (!tell_missing(p, errp))
        return false;
    ram_postcopy_push(p->g);
    return start_answering(p, errp); /* the devices' load over there may touch what is missing */
}

/* --- after the switch --- */

/* Not after each part: of a large machine it takes longer than to send one. */
static void tell_left(struct primary *p)
{
    uint64_t precopy, any, postcopy;

    if (clock_now() - p->e->migration.looked < TELL)
        return;
    perdure_savevm_pending(p->s->out, 0, &precopy, &any, &postcopy);
    task_lock(&p->e->lock);
    p->e->migration.bytes_sent = p->sent_before + precopy_bytes(p);
    p->e->migration.bytes_left = precopy + any + postcopy;
    p->e->migration.looked = clock_now();
    task_unlock(&p->e->lock);
}

/* false: the user, or the end, wants something else. */
static bool may_push(struct primary *p)
{
    struct wishes w = engine_wishes(p->e);

    if (w.hold)
        link_down(&p->s->link, "paused by the user");
    return !w.quit && !link_is_down(&p->s->link);
}

static bool push(struct primary *p, Error **errp)
{
    int status = 0;

    while (!status) {
        struct part part = precopy_begin_part(p);

        if (!may_push(p))
            return false;
        primary_limit_send(p);
        status = perdure_savevm_iterate(p->s->out, true, errp);
        if (status < 0 || !perdure_stream_flush(p->s->out, errp))
            return false;
        precopy_end_part(p, &part);
        tell_left(p);
    }
    return true;
}

/* All that was sent on either connection has come; the sections end, and that is all. */
static bool finish_sections(struct primary *p, Error **errp)
{
    VMStream *out = p->s->out;
    uint64_t id;

    if (!precopy_await_noted(p, errp))
        return false;
    set_over(p, true);
    if (!perdure_savevm_complete_postcopy(out, errp))
        return false;
    perdure_stream_begin(out, PERDURE_RECORD_STATE_END, 0);
    perdure_stream_end(out);
    session_set_limit(p->s, PRIMARY_ANSWER_LIMIT);
    return perdure_stream_flush(out, errp) && primary_expect(p, WIRE_FETCHED, &id, errp) &&
           wire_done(p->s->in, errp);
}

/* What the destination lacks, by its own word. */
static bool read_lack(struct primary *p, Error **errp)
{
    struct MigrationState state = {.in = p->s->in};
    uint64_t id;
    bool ok;

    session_set_limit(p->s, PRIMARY_ANSWER_LIMIT);
    ok = primary_expect(p, WIRE_LACK, &id, errp) && perdure_savevm_resume_prepare(&state, errp) &&
         wire_done(p->s->in, errp);
    session_set_limit(p->s, TIME_NEVER);
    return ok;
}

static bool reconnect(struct primary *p, bool *ret_fetched, Error **errp)
{
    return session_reconnect(p->s, ret_fetched, errp) &&
           (*ret_fetched || (read_lack(p, errp) && start_answering(p, errp)));
}

/* Until the next attempt. false: it is all over. */
static bool wait_for_attempt(struct primary *p)
{
    Engine *e = p->e;
    int64_t until = clock_now() + RETRY;
    bool quit;

    task_lock(&e->lock);
    while (!e->wish.quit && !e->wish.resume &&
           task_wait_until(&e->changed, &e->lock, e->wish.hold ? TIME_NEVER : until))
        ;
    quit = e->wish.quit;
    task_unlock(&e->lock);
    return !quit;
}

/* Where the user said, this time. */
static void begin_attempt(struct primary *p)
{
    Engine *e = p->e;

    task_lock(&e->lock);
    e->wish.resume = false;
    e->attempting = true;
    if (e->recover_to[0])
        snprintf(p->s->peer, sizeof(p->s->peer), "%s", e->recover_to);
    e->recover_to[0] = 0;
    task_unlock(&e->lock);
}

/* An address that was of no use is forgotten. For who waits in engine_migrate_recover(). */
static void end_attempt(struct primary *p, bool ok, const char *old_peer)
{
    Engine *e = p->e;

    task_lock(&e->lock);
    e->wish.hold = e->wish.hold && !ok; /* who paused it goes on trying himself */
    if (ok)
        snprintf(e->peer, sizeof(e->peer), "%s", p->s->peer);
    else
        snprintf(p->s->peer, sizeof(p->s->peer), "%s", old_peer);
    e->attempting = false;
    e->attempts++;
    e->migration.resumed += ok;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
}

/* Told once, not twice a second. */
static void note_failure(struct primary *p, const Error *err)
{
    bool same;

    task_lock(&p->e->lock);
    same = !strcmp(p->e->last_error, error_get_pretty(err));
    task_unlock(&p->e->lock);
    if (!same)
        engine_note_error(p->e, err);
}

static bool reach(struct primary *p, bool *ret_fetched, Error **errp)
{
    if (p->postcopy)
        return reconnect(p, ret_fetched, errp);
    error_setg(
        errp,
        "all memory had been sent when the destination was told to run: there is nothing to be fetched");
    return false;
}

bool postcopy_reach(struct primary *p, bool *ret_fetched)
{
    char old_peer[sizeof(p->s->peer)];
    Error *err = NULL;
    bool ok;

    memcpy(old_peer, p->s->peer, sizeof(old_peer));
    begin_attempt(p);
    ok = reach(p, ret_fetched, &err);
    if (!ok) {
        link_down(&p->s->link, error_get_pretty(err));
        postcopy_stop_answering(p);
        note_failure(p, err);
    }
    error_free(err);
    end_attempt(p, ok, old_peer);
    return ok;
}

/* Until the link is back, or the destination says that it needs nothing more (*ret_fetched). false: it is all over. */
static bool resume(struct primary *p, bool *ret_fetched)
{
    while (wait_for_attempt(p))
        if (postcopy_reach(p, ret_fetched))
            return true;
    return false;
}

/* POSTCOPY, the link is up. */
static bool send_all(struct primary *p)
{
    Error *err = NULL;
    bool ok = push(p, &err) && finish_sections(p, &err);

    if (!ok)
        link_down(&p->s->link, err ? error_get_pretty(err) : "the link was lost");
    session_blame_link(p->s, &err);
    postcopy_stop_answering(p);
    if (!ok && err && !engine_wishes(p->e).quit)
        engine_note_error(p->e, err);
    error_free(err);
    return ok;
}

static void complete(struct primary *p)
{
    task_lock(&p->e->lock);
    p->e->migration.outcome = ENGINE_MIGRATION_COMPLETED;
    p->e->migration.bytes_left = 0;
    p->e->migration.ended = clock_now();
    task_unlock(&p->e->lock);
    p->end = SESSION_MIGRATED;
}

/* POSTCOPY_PAUSED. False: this process ends. */
static bool come_back(struct primary *p, bool *ret_fetched)
{
    if (!resume(p, ret_fetched))
        return false;
    if (!*ret_fetched)
        engine_set_state(p->e, ENGINE_PRIMARY, ENGINE_POSTCOPY, "the link is back");
    return true;
}

/* POSTCOPY, the link is up, or paused; until it has all, or this process ends. */
static void serve(struct primary *p, bool up, bool fetched)
{
    while (!fetched) {
        if (up && (fetched = send_all(p)))
            break;
        p->sent_before += perdure_stream_bytes(p->s->out);
        if (engine_wishes(p->e).quit) {
            p->end = SESSION_QUIT;
            return;
        }
        if (up)
            engine_set_state(p->e, ENGINE_PRIMARY, ENGINE_POSTCOPY_PAUSED, "the link was lost");
        up = come_back(p, &fetched);
    }
    complete(p);
}

static void begin_to_serve(struct primary *p)
{
    task_lock(&p->e->lock);
    p->e->serves = true;
    p->e->migration.outcome = ENGINE_MIGRATION_ACTIVE;
    task_broadcast(&p->e->changed);
    task_unlock(&p->e->lock);
}

void postcopy_serve(struct primary *p)
{
    begin_to_serve(p);
    engine_set_state(p->e, ENGINE_PRIMARY, ENGINE_POSTCOPY,
                     "the destination runs the guest, and fetches the rest");
    serve(p, true, false);
}

static void pause_first(struct primary *p)
{
    begin_to_serve(p);
    engine_set_state(p->e, ENGINE_PRIMARY, ENGINE_POSTCOPY_PAUSED,
                     "the destination runs the guest, and lacks memory");
}

void postcopy_serve_denied(struct primary *p)
{
    postcopy_stop_answering(p);
    pause_first(p);
    serve(p, false, false);
}

void postcopy_serve_reached(struct primary *p, bool fetched)
{
    pause_first(p);
    if (!fetched)
        engine_set_state(p->e, ENGINE_PRIMARY, ENGINE_POSTCOPY, "the link is back");
    serve(p, true, fetched);
}
