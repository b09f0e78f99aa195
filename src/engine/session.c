/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/session.h"

#include <stdio.h>
#include <stdlib.h>

static bool set_main(struct session *s, Channel *ch, Error **errp)
{
    ch = link_wrap(&s->link, ch);
    if (ch)
        link_set(&s->link, &s->link.main, ch);
    s->in = ch ? vmstream_new_reader(ch) : NULL;
    s->out = ch ? vmstream_new_writer(ch) : NULL;
    if (!s->in || !s->out)
        error_setg(errp, "out of memory");
    if (!s->in || !s->out)
        link_down(&s->link, "out of memory");
    return s->in && s->out;
}

struct session *session_new(Engine *e, Channel *ch, const char *peer, const struct wire_hello *hello,
                            Error **errp)
{
    struct session *s = calloc(1, sizeof(*s));

    if (!s) {
        channel_close(ch);
        error_setg(errp, "out of memory");
        return NULL;
    }
    s->e = e;
    s->hello = *hello;
    snprintf(s->peer, sizeof(s->peer), "%s", peer);
    link_init(&s->link, hello->timeout_ns, engine_wake, e);
    s->arrived.number = hello->session;
    if (set_main(s, ch, errp))
        return s;
    session_free(s);
    return NULL;
}

bool session_relink(struct session *s, Channel *ch, Error **errp)
{
    link_reset(&s->link);
    if (engine_wishes(s->e).quit) /* whose end of the link was that of the old one */
        link_down(&s->link, "the engine was told to quit");
    perdure_stream_close(s->in);
    perdure_stream_close(s->out);
    return set_main(s, ch, errp);
}

static void close_arrived(struct session *s)
{
    for (unsigned i = 0; i < ARRIVALS; i++) {
        if (s->arrived.ch[i])
            channel_shutdown(s->arrived.ch[i]);
        channel_close(s->arrived.ch[i]);
        s->arrived.ch[i] = NULL;
    }
}

void session_free(struct session *s)
{
    if (!s)
        return;
    task_join(s->freer);
    link_close(&s->link);
    close_arrived(s);
    perdure_stream_close(s->in);
    perdure_stream_close(s->out);
    perdure_stream_close(s->last_devices);
    arbiter_free(s->arbiter);
    free(s);
}

bool session_link_broken(struct session *s)
{
    return link_is_down(&s->link) || perdure_stream_error(s->in, NULL) || perdure_stream_error(s->out, NULL);
}

void session_blame_link(struct session *s, Error **errp)
{
    char why[256];

    if (!*errp || !link_reason(&s->link, NULL, why, sizeof(why)))
        return;
    error_free(*errp);
    *errp = NULL;
    error_setg(errp, "the link to %s was lost: %s", s->peer, why);
}

/* Lock held. The source has given up the link whose connections are being awaited. */
static bool comes_anew(const struct session *s, enum wire_kind kind)
{
    return kind != WIRE_KIND_RESUME && s->arrived.ch[WIRE_KIND_RESUME];
}

Channel *session_await(struct session *s, enum wire_kind kind, unsigned lane, int64_t until, Error **errp)
{
    Channel **at = &s->arrived.ch[session_arrival(kind, lane)], *ch;
    Engine *e = s->e;

    task_lock(&e->lock);
    while (!*at && !comes_anew(s, kind) && !e->wish.quit && task_wait_until(&e->changed, &e->lock, until))
        ;
    ch = comes_anew(s, kind) ? NULL : *at;
    if (ch)
        *at = NULL;
    task_unlock(&e->lock);
    if (!ch)
        error_setg(errp, "the other side did not open its %s connection", wire_kind_name(kind));
    return ch;
}

void session_set_limit(struct session *s, int64_t ns)
{
    channel_set_deadline(s->link.main, ns == TIME_NEVER ? TIME_NEVER : clock_now() + ns);
}

void session_linger(struct session *s, int64_t ns)
{
    uint8_t waste[4096];

    if (link_is_down(&s->link))
        return;
    session_set_limit(s, ns);
    while (channel_read(s->link.main, waste, sizeof(waste), NULL) > 0)
        ;
}

void session_mark_closing(struct session *s)
{
    task_lock(&s->e->lock);
    s->closing = true;
    task_unlock(&s->e->lock);
}

static void mark_ended(struct session *s)
{
    Engine *e = s->e;

    task_lock(&e->lock);
    e->session_ended = true;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
}

static bool runs_unprotected(Engine *e)
{
    bool yes;

    task_lock(&e->lock);
    yes = e->role == ENGINE_PRIMARY && e->state == ENGINE_UNPROTECTED && !e->wish.quit;
    task_unlock(&e->lock);
    return yes;
}

/* Nobody waits for connections any more. */
static void refuse_arrivals(struct session *s)
{
    task_lock(&s->e->lock);
    s->arrived.wanted = 0;
    task_unlock(&s->e->lock);
    close_arrived(s);
}

/* A primary that has followed its backup has another session than it began with. */
static struct session *current(Engine *e)
{
    struct session *s;

    task_lock(&e->lock);
    s = e->session;
    task_unlock(&e->lock);
    return s;
}

void session_run(void *session)
{
    struct session *s = session;
    Engine *e = s->e;

    while ((s->primary ? primary_run(s) : backup_run(s)) == SESSION_SWAPPED) {
        s = current(e);
        s->primary = !s->primary;
        s->swapped = true;
        s->hello.generation++;
        s->last_ack = 0;
    }
    s = current(e);
    link_down(&s->link, "the session ended");
    refuse_arrivals(s);
    if (s->vouch.given && runs_unprotected(e))
        session_ask_on(s);
    mark_ended(s);
}

bool session_mark_disks(struct session *s, enum guest_disk_role role, Error **errp)
{
    Guest *g = s->e->guest;
    struct guest_disk_mark mark = {
        .role = role,
        .vm = s->e->vm,
        .pair = s->hello.pair,
        .arbiter = s->hello.arbiter,
        .peer = s->peer,
        .generation = s->hello.generation,
    };

    task_lock(&s->e->lock);
    mark.epoch = s->e->epoch;
    task_unlock(&s->e->lock);
    return !g || !g->ops->mark_disks || g->ops->mark_disks(g, &mark, errp);
}

void session_try_mark_disks(struct session *s, enum guest_disk_role role)
{
    Error *err = NULL;

    if (!session_mark_disks(s, role, &err))
        engine_note_trouble(s->e, err);
    error_free(err);
}

bool session_hold_disks(struct session *s, enum guest_disk_hold how, Error **errp)
{
    Guest *g = s->e->guest;

    return !g->ops->hold_disks || g->ops->hold_disks(g, how, errp);
}
