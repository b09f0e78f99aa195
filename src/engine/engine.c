/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of an Engine, and what its parts share. What the user asks for is in requests.c.
 */
#include "engine/session.h"
#include "engine/state.h"
#include "engine/successor.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void engine_params_default(struct engine_params *p)
{
    *p = (struct engine_params){
        .interval_ns = 10 * NS_PER_MS,
        .min_epoch_ns = NS_PER_MS,
        .timeout_ns = NS_PER_S,
        .delta = true,
        .arbiter = "manual",
    };
}

void engine_migrate_params_default(struct engine_migrate_params *p)
{
    *p = (struct engine_migrate_params){
        .downtime_ns = 20 * NS_PER_MS,
        .on_slow = ENGINE_SLOW_THROTTLE,
        .channels = 1,
        .timeout_ns = NS_PER_S,
        .arbiter = "manual",
    };
}

void engine_migrate_params_change(struct engine_migrate_params *p, const struct engine_migrate_change *c)
{
    if (c->downtime_ns >= 0)
        p->downtime_ns = c->downtime_ns;
    if (c->deadline_ns >= 0)
        p->deadline_ns = c->deadline_ns;
    if (c->max_bandwidth >= 0)
        p->max_bandwidth = (uint64_t)c->max_bandwidth;
    if (c->on_slow >= 0)
        p->on_slow = (enum engine_on_slow)c->on_slow;
}

Engine *engine_new(const char *vm_name, Guest *guest, struct transport *t, const struct engine_owner *owner,
                   Error **errp)
{
    Engine *e = calloc(1, sizeof(*e));

    if (!e) {
        error_setg(errp, "out of memory");
        return NULL;
    }
    if (strlen(vm_name) >= sizeof(e->vm)) {
        error_setg(errp, "a name has at most %zu characters: '%s'", sizeof(e->vm) - 1, vm_name);
        free(e);
        return NULL;
    }
    snprintf(e->vm, sizeof(e->vm), "%s", vm_name);
    e->guest = guest;
    e->transport = t;
    e->owner = *owner;
    e->role = guest ? ENGINE_PRIMARY : ENGINE_BACKUP;
    e->state = guest ? ENGINE_UNPROTECTED : ENGINE_LISTENING;
    task_mutex_init(&e->lock);
    task_cond_init(&e->changed);
    engine_migrate_params_default(&e->migrate_next);
    return e;
}

/* A request that goes on meanwhile must not reap the session under us. */
void engine_take_link_down(Engine *e, const char *why)
{
    struct session *s;

    task_lock(&e->lock);
    while (e->taking_down)
        task_wait(&e->changed, &e->lock);
    s = e->session;
    e->taking_down = s != NULL;
    task_unlock(&e->lock);
    if (!s)
        return;
    link_down(&s->link, why);
    task_lock(&e->lock);
    e->taking_down = false;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
}

void engine_quit(Engine *e)
{
    task_lock(&e->lock);
    e->wish.quit = true;
    if (e->checking)
        channel_shutdown(e->checking);
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
    engine_take_link_down(e, "the engine was told to quit");
}

void engine_free(Engine *e)
{
    if (!e)
        return;
    engine_quit(e);
    if (e->accept_task) {
        e->transport->shutdown(e->transport);
        task_join(e->accept_task);
    }
    engine_take_link_down(e, "the engine was told to quit"); /* of a session that began meanwhile */
    task_join(e->session_task);
    session_free(e->session);
    successor_reap(e);
    if (e->guest_is_made)
        e->owner.factory->destroy(e->owner.factory, e->guest);
    task_cond_destroy(&e->changed);
    task_mutex_destroy(&e->lock);
    free(e);
}

bool engine_listen(Engine *e, const char *arbiter, Error **errp)
{
    if (e->accept_task) {
        error_setg(errp, "'%s' is listening already", e->vm);
        return false;
    }
    if (!e->owner.factory) {
        error_setg(errp, "'%s' cannot be a standby: it has no factory for its guest", e->vm);
        return false;
    }
    snprintf(e->only_arbiter, sizeof(e->only_arbiter), "%s", arbiter ? arbiter : "");
    e->accept_task = task_start("accept", engine_accept_run, e, errp);
    return e->accept_task;
}

/* --- what the parts share --- */

void engine_event(Engine *e, const char *name, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_info("%s: %s", e->vm, text);
    if (e->owner.event)
        e->owner.event(e->owner.opaque, name, text);
}

void engine_note_error(Engine *e, const Error *err)
{
    task_lock(&e->lock);
    snprintf(e->last_error, sizeof(e->last_error), "%s", error_get_pretty(err));
    task_unlock(&e->lock);
    engine_event(e, "PERDURE_ERROR", "%s", error_get_pretty(err));
}

void engine_note_trouble(Engine *e, const Error *err)
{
    task_lock(&e->lock);
    if (!e->last_error[0])
        snprintf(e->last_error, sizeof(e->last_error), "%s", error_get_pretty(err));
    task_unlock(&e->lock);
    engine_event(e, "PERDURE_ERROR", "%s", error_get_pretty(err));
}

void engine_set_report(Engine *e, const char *text)
{
    task_lock(&e->lock);
    snprintf(e->report, sizeof(e->report), "%s", text);
    task_unlock(&e->lock);
    engine_event(e, "PERDURE_REPORT", "%s", text);
}

void engine_wake(void *engine)
{
    Engine *e = engine;

    task_lock(&e->lock);
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
}

struct wishes engine_wishes(Engine *e)
{
    struct wishes w;

    task_lock(&e->lock);
    w = e->wish;
    task_unlock(&e->lock);
    return w;
}

bool engine_start_session(Engine *e, struct session *s, Error **errp)
{
    bool started;

    task_lock(&e->lock);
    e->session = s;
    e->session_ended = false;
    e->session_number++;
    e->session_task = task_start(s->primary ? "primary" : "backup", session_run, s, errp);
    started = e->session_task != NULL;
    if (!started)
        e->session = NULL;
    task_unlock(&e->lock);
    if (!started)
        session_free(s);
    return started;
}

bool engine_reap_session(Engine *e)
{
    struct session *s;
    bool ended;

    task_lock(&e->lock);
    while (e->taking_down)
        task_wait(&e->changed, &e->lock);
    s = e->session;
    ended = e->session_ended;
    if (s && ended)
        e->session = NULL;
    task_unlock(&e->lock);
    if (!s)
        return true;
    if (!ended)
        return false;
    task_join(e->session_task);
    e->session_task = NULL;
    session_free(s);
    return true;
}

void engine_status(Engine *e, struct engine_status *ret_status)
{
    struct engine_status *s = ret_status;

    memset(s, 0, sizeof(*s));
    task_lock(&e->lock);
    s->role = e->role;
    s->state = e->state;
    s->generation = e->generation;
    s->epoch = e->epoch;
    s->interval_ns = e->interval_ns;
    snprintf(s->pair, sizeof(s->pair), "%s", e->pair);
    snprintf(s->peer, sizeof(s->peer), "%s", e->peer);
    snprintf(s->arbiter, sizeof(s->arbiter), "%s", e->arbiter);
    snprintf(s->last_error, sizeof(s->last_error), "%s", e->last_error);
    s->took_over_ns = e->took_over_ns;
    s->migration = e->migration;
    s->unstarted = e->unstarted && e->role == ENGINE_PRIMARY;
    s->elsewhere = e->state == ENGINE_FENCED || e->state == ENGINE_MIGRATED || e->serves;
    snprintf(s->report, sizeof(s->report), "%s", e->report);
    figures_fill(&e->figures, clock_now(), s);
    task_unlock(&e->lock);
}
