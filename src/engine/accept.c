/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The accepting task of a backup: reads one greeting after the other, refuses with every reason, or makes a
 * session of it, or hands a further connection to the session that waits for it.
 */
#include "engine/session.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GREETING_LIMIT (5 * NS_PER_S)  /* a peer that says nothing keeps the others waiting */
#define CHECK_LIMIT    (60 * NS_PER_S) /* kernel and initrd come over, a machine is built */
#define ENDING_LIMIT   (5 * NS_PER_S)  /* for the session before to be out of the way: a machine is freed */

struct greeting {
    Engine *e;
    Channel *ch; /* NULL once it was handed on */
    VMStream *in, *out;
    struct wire_hello hello;
};

/* Every reason, one a line; empty: none. */
static void find_reasons(struct greeting *gr, char *text, size_t size)
{
    Engine *e = gr->e;
    size_t n = 0;

    text[0] = 0;
    task_lock(&e->lock);
    if (strcmp(gr->hello.vm, e->vm))
        n += (size_t)snprintf(text + n, size - n, "this standby is for '%s', not for '%s'\n", e->vm,
                              gr->hello.vm);
    if (e->only_arbiter[0] && strcmp(gr->hello.arbiter, e->only_arbiter))
        n +=
            (size_t)snprintf(text + n, size - n, "this standby accepts arbiter '%s' only, not '%s': %s\n",
                             e->only_arbiter, gr->hello.arbiter,
                             "its --arbiter says which, and without a key any but manual must be said there");
    if (e->role == ENGINE_PRIMARY)
        snprintf(text + n, size - n, "'%s' runs here as the primary (%s): it is no standby any more\n", e->vm,
                 engine_state_name(e->state));
    else if (e->state != ENGINE_LISTENING || (e->session && !e->session_ended))
        snprintf(text + n, size - n, "this standby is busy (%s) with the primary at %s\n",
                 engine_state_name(e->state), e->peer);
    task_unlock(&e->lock);
    n = strlen(text);
    if (n)
        text[n - 1] = 0;
}

static void refuse(struct greeting *gr, const char *text)
{
    log_warn("%s: refused %s: %s", gr->e->vm, gr->ch->peer, text);
    wire_send_text(gr->out, WIRE_REFUSE, text, NULL);
}

/* A session that is ending is not "busy", whatever its state is still called: the primary may be quick to
 * come again. */
static void wait_for_ending(Engine *e)
{
    int64_t until = clock_now() + ENDING_LIMIT;

    task_lock(&e->lock);
    while (e->session && !e->session_ended && e->session->closing && !e->wish.quit &&
           task_wait_until(&e->changed, &e->lock, until))
        ;
    task_unlock(&e->lock);
}

/* The primary of a protection that this side may still ask about says that it was granted to go on alone: the
 * session ends itself by that, unless it was granted before it heard of it (failover.c). */
static void hear_that_peer_went_on(struct greeting *gr)
{
    Engine *e = gr->e;
    struct session *s;

    task_lock(&e->lock);
    s = e->session;
    if (s && !e->session_ended && e->role == ENGINE_BACKUP &&
        !strcmp(gr->hello.went_on_pair, s->hello.pair) && gr->hello.went_on_generation == e->generation) {
        s->peer_went_on = s->closing = true;
        task_broadcast(&e->changed);
    }
    task_unlock(&e->lock);
}

static bool may_begin(struct greeting *gr)
{
    char text[WIRE_TEXT_MAX];

    hear_that_peer_went_on(gr);
    wait_for_ending(gr->e);
    find_reasons(gr, text, sizeof(text));
    if (text[0])
        refuse(gr, text);
    return !text[0];
}

static void begin_session(struct greeting *gr)
{
    Error *err = NULL;
    struct session *s;
    Arbiter *arbiter;

    if (!may_begin(gr))
        return;
    arbiter = arbiter_new(gr->hello.arbiter, &err);
    if (!arbiter) {
        error_prepend(&err, "on the standby: ");
        refuse(gr, error_get_pretty(err));
        error_free(err);
        return;
    }
    engine_reap_session(gr->e);
    channel_set_deadline(gr->ch, TIME_NEVER);
    s = session_new(gr->e, gr->ch, gr->ch->peer, &gr->hello, &err);
    if (s)
        s->arbiter = arbiter;
    else
        arbiter_free(arbiter);
    if (s)
        s->arrived.wanted = 1u << WIRE_KIND_HEARTBEAT | (unsigned)gr->hello.postcopy << WIRE_KIND_URGENT |
                            (unsigned)(gr->hello.lanes > 0) << WIRE_KIND_CHANNEL;
    if (s && wire_send(gr->out, WIRE_HELLO_OK, 0, &err))
        engine_start_session(gr->e, s, &err);
    else
        session_free(s);
    gr->ch = NULL;
    if (err)
        engine_note_error(gr->e, err);
    error_free(err);
}

/* The main connection of a further link of the same pair. */
static bool makes_anew(const struct wire_hello *h)
{
    return h->kind == WIRE_KIND_RESUME || h->kind == WIRE_KIND_FOLLOW;
}

static bool waits_for(Engine *e, const struct wire_hello *h)
{
    struct session *s = e->session;

    if (!s || e->session_ended || s->primary || s->swapped || !(s->arrived.wanted & 1u << h->kind) ||
        strcmp(s->hello.pair, h->pair))
        return false;
    if (makes_anew(h))
        return s->hello.generation == h->generation;
    return s->arrived.number == h->session && h->lane <= s->hello.lanes &&
           !s->arrived.ch[session_arrival(h->kind, h->lane)];
}

/* A primary that comes (again) means a new link: what arrived for another one is of no use. *ret_old: to be closed. */
static void take_locked(struct greeting *gr, Channel *ret_old[ARRIVALS])
{
    struct session *s = gr->e->session;

    if (makes_anew(&gr->hello)) {
        memcpy(ret_old, s->arrived.ch, sizeof(s->arrived.ch));
        memset(s->arrived.ch, 0, sizeof(s->arrived.ch));
        s->arrived.number = gr->hello.session;
    }
    s->arrived.ch[session_arrival(gr->hello.kind, gr->hello.lane)] = gr->ch;
    gr->ch = NULL;
    task_broadcast(&gr->e->changed);
}

/* A source that did not hear it says that it comes again. */
static bool was_fetched(struct greeting *gr)
{
    Engine *e = gr->e;
    bool yes;

    task_lock(&e->lock);
    yes = gr->hello.kind == WIRE_KIND_RESUME && !strcmp(gr->hello.pair, e->fetched_pair);
    task_unlock(&e->lock);
    return yes;
}

/* To the session that waits for this connection. */
static void hand_on(struct greeting *gr)
{
    Channel *old[ARRIVALS] = {NULL};
    Engine *e = gr->e;
    bool wanted;

    if (was_fetched(gr)) { /* also while its session lingers */
        wire_send(gr->out, WIRE_FETCHED, 0, NULL);
        return;
    }
    task_lock(&e->lock);
    wanted = waits_for(e, &gr->hello);
    task_unlock(&e->lock);
    if (!wanted) {
        refuse(gr, "no session waits here for this connection");
        return;
    }
    if (!wire_send(gr->out, WIRE_HELLO_OK, 0, NULL))
        return;
    channel_set_deadline(gr->ch, TIME_NEVER);
    task_lock(&e->lock);
    if (waits_for(e, &gr->hello))
        take_locked(gr, old);
    task_unlock(&e->lock);
    for (unsigned i = 0; i < ARRIVALS; i++)
        channel_close(old[i]);
}

/* `protect --check`: builds the machine, and lets it go again. */
static bool try_config(struct greeting *gr, Error **errp)
{
    struct guest_factory *gf = gr->e->owner.factory;
    void *config;
    VMStream *f;
    uint16_t type;
    uint64_t id;
    size_t size;
    Guest *g = NULL;
    bool ok;

    if (!wire_next(gr->in, &type, &id, errp))
        return false;
    if (type != WIRE_CONFIG)
        wire_unexpected(gr->in, type, "checking a configuration");
    if (perdure_stream_error(gr->in, errp) || !wire_get_config(gr->in, &config, &size, errp))
        return false;
    if (gr->e->guest) { /* a swap left it here, and a process holds one guest */
        ok = session_config_fits(gr->e->guest, config, size, errp);
        free(config);
        return ok;
    }
    f = perdure_stream_open_buffer(config, size);
    if (f)
        g = gf->create(gf, f, errp);
    else
        error_setg(errp, "out of memory");
    perdure_stream_close(f);
    free(config);
    ok = g && session_may_protect(g, errp);
    if (g)
        gf->destroy(gf, g);
    return ok;
}

/* engine_quit() may end ch from now on; NULL: not any more. */
static void set_checking(Engine *e, Channel *ch)
{
    task_lock(&e->lock);
    e->checking = ch;
    if (ch && e->wish.quit)
        channel_shutdown(ch);
    task_unlock(&e->lock);
}

static void check(struct greeting *gr)
{
    Error *err = NULL;

    if (!may_begin(gr))
        return;
    set_checking(gr->e, gr->ch);
    channel_set_deadline(gr->ch, clock_now() + CHECK_LIMIT);
    if (wire_send(gr->out, WIRE_HELLO_OK, 0, &err) && try_config(gr, &err))
        wire_send(gr->out, WIRE_CONFIG_OK, 0, NULL);
    set_checking(gr->e, NULL);
    if (err)
        refuse(gr, error_get_pretty(err));
    error_free(err);
}

static void answer(struct greeting *gr)
{
    Error *err = NULL;
    uint16_t type;
    uint64_t id;

    channel_set_deadline(gr->ch, clock_now() + GREETING_LIMIT);
    if (!wire_next(gr->in, &type, &id, &err)) {
        log_warn("%s: %s", gr->e->vm, error_get_pretty(err));
        error_free(err);
        return;
    }
    if (type != WIRE_HELLO)
        wire_unexpected(gr->in, type, "waiting for a greeting");
    if (perdure_stream_error(gr->in, &err) || !wire_get_hello(gr->in, &gr->hello, &err)) {
        refuse(gr, error_get_pretty(err));
        error_free(err);
        return;
    }
    if (gr->hello.kind == WIRE_KIND_MAIN || gr->hello.kind == WIRE_KIND_MIGRATE ||
        gr->hello.kind == WIRE_KIND_SUCCESSOR)
        begin_session(gr);
    else if (gr->hello.kind == WIRE_KIND_CHECK)
        check(gr);
    else
        hand_on(gr);
}

/* The refusal must reach the peer before the connection goes. */
static void close_after_reading(struct greeting *gr)
{
    char rest[512];

    if (!gr->ch)
        return;
    channel_set_deadline(gr->ch, clock_now() + NS_PER_S);
    while (!engine_wishes(gr->e).quit && channel_read(gr->ch, rest, sizeof(rest), NULL) > 0)
        ;
    channel_close(gr->ch);
}

void engine_accept_run(void *engine)
{
    Engine *e = engine;
    Channel *ch;

    while ((ch = e->transport->accept(e->transport, NULL))) {
        struct greeting gr = {.e = e, .ch = ch};

        gr.in = vmstream_new_reader(ch);
        gr.out = vmstream_new_writer(ch);
        if (gr.in && gr.out)
            answer(&gr);
        perdure_stream_close(gr.in);
        perdure_stream_close(gr.out);
        close_after_reading(&gr);
    }
}
