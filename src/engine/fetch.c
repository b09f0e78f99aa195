/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Postcopy, the destination's half: the guest runs here while part of its memory is still at the source.
 *
 * Tasks: one hears who touches what is missing, and asks for it; one a link takes the answers, on the urgent connection; the
 * session's own takes what the source sends by itself. The takeover has a task as well: it may touch what is missing, and wait for it while
 * the link is broken and the session makes a new one.
 *
 * A link that breaks before this side claims the guest ends it all: nothing runs, and whoever waits is let go
 * (missing_abandon). From the claim on nothing is given up: who needs a missing page waits until the source is back.
 */
#include "engine/backup.h"
#include "engine/state.h"
#include "guest/page_codec.h"
#include "guest/ram_state.h"
#include <perdure/savevm.h>

#include <string.h>

#define LOOK NS_PER_MS
#define WAIT (50 * NS_PER_MS) /* and is the takeover still well? */

/* --- how far things have got --- */

struct outcome {
    bool runs, over, closing;
};

static struct outcome look(struct backup *b)
{
    struct outcome o;

    task_lock(&b->e->lock);
    o = (struct outcome){b->fetch.runs, b->fetch.over, b->fetch.closing};
    task_unlock(&b->e->lock);
    return o;
}

bool backup_begin_claim(struct backup *b, Error **errp)
{
    bool ok;

    task_lock(&b->e->lock);
    ok = !b->fetch.withdrawn;
    b->fetch.claims = ok;
    task_unlock(&b->e->lock);
    if (!ok)
        error_setg(errp, "the link broke before the guest was claimed");
    return ok;
}

static bool withdraw(struct backup *b)
{
    bool withdrawn;

    task_lock(&b->e->lock);
    withdrawn = b->fetch.withdrawn = !b->fetch.claims;
    task_unlock(&b->e->lock);
    return withdrawn;
}

/* The link is broken, or this side gives up. */
static void let_go(struct backup *b)
{
    if (withdraw(b))
        missing_abandon(b->fetch.missing);
}

/* --- questions and answers --- */

/* While the link is broken a question waits for the next one. */
static void ask(struct backup *b, uint64_t page)
{
    task_lock(&b->fetch.out_lock);
    if (b->fetch.out && !wire_send(b->fetch.out, WIRE_WANT, page, NULL))
        link_down(&b->s->link, "the source does not take questions for memory");
    task_unlock(&b->fetch.out_lock);
}

/* For as long as something may be touched that is not here, whatever the link does. */
static void ask_run(void *backup)
{
    struct backup *b = backup;
    uint64_t page;

    task_set_pace(TASK_HURRIED);
    while (missing_next(b->fetch.missing, &page))
        ask(b, page);
}

static bool take_next(struct backup *b, Error **errp)
{
    VMStream *in = b->fetch.in;
    uint16_t type;
    uint64_t page;

    if (!wire_next(in, &type, &page, errp))
        return false;
    if (type != WIRE_WANTED)
        wire_unexpected(in, type, "waiting for missing pages");
    else
        page_decode_missing(in, b->fetch.missing);
    return wire_done(in, errp);
}

static void take_run(void *backup)
{
    struct backup *b = backup;
    Error *err = NULL;

    task_set_pace(TASK_HURRIED);
    while (take_next(b, &err))
        ;
    if (!look(b).closing) {
        link_down(&b->s->link, error_get_pretty(err));
        let_go(b);
    }
    error_free(err);
}

static void set_out(struct backup *b, VMStream *out)
{
    task_lock(&b->fetch.out_lock);
    perdure_stream_close(b->fetch.out);
    b->fetch.out = out;
    task_unlock(&b->fetch.out_lock);
}

static void set_closing(struct backup *b)
{
    task_lock(&b->e->lock);
    b->fetch.closing = true;
    task_unlock(&b->e->lock);
}

/* The link is there. */
static bool open_urgent(struct backup *b, Error **errp)
{
    Channel *ch = b->s->link.urgent;
    VMStream *out = vmstream_new_writer(ch);

    b->fetch.in = vmstream_new_reader(ch);
    set_out(b, out);
    if (!b->fetch.in || !out) {
        error_setg(errp, "out of memory");
        return false;
    }
    missing_ask_again(b->fetch.missing);
    b->fetch.taker = task_start("take", take_run, b, errp);
    return b->fetch.taker;
}

static void close_urgent(struct backup *b)
{
    if (b->s->link.urgent)
        channel_shutdown(b->s->link.urgent);
    task_join(b->fetch.taker);
    b->fetch.taker = NULL;
    perdure_stream_close(b->fetch.in);
    b->fetch.in = NULL;
    set_out(b, NULL);
}

bool fetch_start(struct backup *b, Error **errp)
{
    if (!b->s->hello.postcopy) {
        error_setg(errp, "the source did not say that memory would be missing");
        return false;
    }
    task_mutex_init(&b->fetch.out_lock);
    b->fetch.missing = ram_postcopy_missing(b->e->guest);
    b->fetch.asker = task_start("ask", ask_run, b, errp);
    return b->fetch.asker && open_urgent(b, errp);
}

static void stop_asking(struct backup *b)
{
    missing_shutdown(b->fetch.missing);
    task_join(b->fetch.asker);
    b->fetch.asker = NULL;
    task_mutex_destroy(&b->fetch.out_lock);
}

/* Before anybody could read a page that never came: a guest that cannot be held is waited for, to the end of the process. */
static void hold_guest(struct backup *b)
{
    Guest *g = b->e->guest;

    while (look(b).runs && !g->ops->pause(g, NULL))
        task_sleep_until(clock_now() + WAIT);
}

void fetch_stop(struct backup *b)
{
    if (!b->fetch.missing)
        return;
    set_closing(b);
    close_urgent(b);
    let_go(b);
    task_join(b->fetch.starter);
    b->fetch.starter = NULL;
    hold_guest(b);
    stop_asking(b);
    error_free(b->fetch.failure);
    b->fetch.failure = NULL;
    b->fetch.missing = NULL;
}

/* --- the takeover --- */

static void start_run(void *backup)
{
    struct backup *b = backup;
    Error *err = NULL;

    backup_promote(b, true, &err);
    task_lock(&b->e->lock);
    b->fetch.failure = err;
    b->fetch.over = true;
    task_broadcast(&b->e->changed);
    task_unlock(&b->e->lock);
}

/* The link's end wakes it, too, unless it came just before: so not for long. */
static struct outcome wait_for_change(struct backup *b)
{
    Engine *e = b->e;

    task_lock(&e->lock);
    if (!b->fetch.runs && !b->fetch.over)
        task_wait_until(&e->changed, &e->lock, clock_now() + WAIT);
    task_unlock(&e->lock);
    return look(b);
}

bool fetch_run(struct backup *b, Error **errp)
{
    struct outcome o = {0};

    task_lock(&b->e->lock);
    b->s->arrived.wanted = 1u << WIRE_KIND_HEARTBEAT | 1u << WIRE_KIND_URGENT | 1u << WIRE_KIND_RESUME;
    b->s->hello.lanes = 0; /* of a link that is made anew */
    task_unlock(&b->e->lock);
    b->fetch.starter = task_start("take-over", start_run, b, errp);
    if (!b->fetch.starter)
        return false;
    while (!o.runs && !o.over && !link_is_down(&b->s->link))
        o = wait_for_change(b);
    if (o.over && !o.runs && b->fetch.failure) {
        error_propagate(errp, b->fetch.failure);
        b->fetch.failure = NULL;
        return false;
    }
    task_set_pace(TASK_BEHIND); /* what is pushed takes the guest's time from here on */
    return !o.runs || wire_send(b->s->out, WIRE_RUNNING, b->s->hello.generation + 1, errp);
}

/* --- until all of it is here --- */

void fetch_await_pages(struct backup *b)
{
    while (missing_left(b->fetch.missing) && !link_is_down(&b->s->link))
        task_sleep_until(clock_now() + LOOK);
}

/* It will never run here. */
static bool has_failed(struct backup *b)
{
    struct outcome o = look(b);

    return o.over && !o.runs;
}

static void fail(struct backup *b, Error **errp)
{
    b->end = SESSION_PEER_FAILED;
    error_propagate(errp, b->fetch.failure);
    b->fetch.failure = NULL;
}

static void note_fetched(struct backup *b)
{
    Engine *e = b->e;

    task_lock(&e->lock);
    e->migration.outcome = ENGINE_MIGRATION_COMPLETED;
    e->migration.ended = clock_now();
    memcpy(e->fetched_pair, b->s->hello.pair, sizeof(e->fetched_pair));
    task_unlock(&e->lock);
    b->end = SESSION_MIGRATED;
    engine_set_state(e, ENGINE_PRIMARY, ENGINE_UNPROTECTED, "all memory is here");
}

/* Nothing is missing any more: the source may be told to go, whatever becomes of the link. false: the takeover failed. */
static bool end_load(struct backup *b, Error **errp)
{
    Error *err = NULL;

    task_join(b->fetch.starter); /* it may still touch what was never written, so the asker goes on */
    b->fetch.starter = NULL;
    if (has_failed(b)) {
        fail(b, errp);
        return false;
    }
    set_closing(b);
    close_urgent(b);
    stop_asking(b);
    if (!perdure_loadvm_cleanup(&err))
        engine_note_trouble(b->e, err);
    error_free(err);
    b->loading = false;
    b->fetch.missing = NULL;
    note_fetched(b);
    return true;
}

bool fetch_finish(struct backup *b, Error **errp)
{
    if (missing_left(b->fetch.missing)) {
        error_setg(errp, "the source says that all memory was sent, and some is missing");
        return false;
    }
    if (!perdure_loadvm_complete(errp) || !end_load(b, errp))
        return false;
    wire_send(b->s->out, WIRE_FETCHED, 0, NULL); /* it comes again if it does not hear it */
    return true;
}

static void say_paused(struct backup *b)
{
    bool told;

    task_lock(&b->e->lock);
    told = b->fetch.told && b->e->state == ENGINE_POSTCOPY;
    task_unlock(&b->e->lock);
    if (told)
        engine_set_state(b->e, ENGINE_PRIMARY, ENGINE_POSTCOPY_PAUSED, "the link was lost");
}

static void say_resumed(struct backup *b)
{
    bool paused;

    task_lock(&b->e->lock);
    paused = b->e->state == ENGINE_POSTCOPY_PAUSED;
    task_unlock(&b->e->lock);
    if (paused)
        engine_set_state(b->e, ENGINE_PRIMARY, ENGINE_POSTCOPY, "the source is back");
}

static bool send_lack(struct backup *b, Error **errp)
{
    perdure_stream_begin(b->s->out, WIRE_LACK, 0);
    ram_postcopy_put_missing(b->e->guest, b->s->out);
    perdure_stream_end(b->s->out);
    return perdure_stream_flush(b->s->out, errp);
}

static bool take_link(struct backup *b, Channel *ch, Error **errp)
{
    return session_relink(b->s, ch, errp) && backup_take_connections(b, errp) && send_lack(b, errp) &&
           open_urgent(b, errp);
}

/* false: that connection was of no use. */
static bool take_source(struct backup *b, Channel *ch)
{
    Error *err = NULL;

    if (take_link(b, ch, &err)) {
        say_resumed(b);
        return true;
    }
    link_down(&b->s->link, error_get_pretty(err));
    close_urgent(b);
    engine_note_error(b->e, err);
    error_free(err);
    return false;
}

/* false: the process ends, or the takeover failed. */
static bool await_source(struct backup *b)
{
    while (!engine_wishes(b->e).quit && !has_failed(b)) {
        Channel *ch;

        say_paused(b); /* as soon as the takeover says that it runs here */
        ch = session_await(b->s, WIRE_KIND_RESUME, 0, clock_now() + WAIT, NULL);
        if (ch && take_source(b, ch))
            return true;
    }
    return false;
}

static void note_broken(struct backup *b, Error **errp)
{
    link_down(&b->s->link, *errp ? error_get_pretty(*errp) : "the link was lost");
    session_blame_link(b->s, errp);
    close_urgent(b);
    if (*errp && !engine_wishes(b->e).quit)
        engine_note_error(b->e, *errp);
    error_free(*errp);
    *errp = NULL;
}

void fetch_go_on(struct backup *b, Error **errp)
{
    while (fetch_is_permitted(b) && b->end == SESSION_OPEN) {
        note_broken(b, errp);
        if (withdraw(b)) { /* by now the task that took the answers has let it go */
            error_setg(errp, "the link broke before the guest was claimed");
            return;
        }
        if (!missing_left(b->fetch.missing) && look(b).runs)
            end_load(b, errp);
        else if (await_source(b))
            backup_take_records(b, errp);
        else if (has_failed(b))
            fail(b, errp);
        else
            b->end = SESSION_QUIT;
    }
}
