/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/doorman.h"
#include "base/log.h"
#include "base/task.h"

#include <stdlib.h>

#define AT_ONCE 64 /* as many wait in the kernel */

struct visitor {
    Doorman *d;
    Task *task; /* NULL: the place is free */
    Channel *ch;
    bool checked; /* ch is the result */
};

struct Doorman {
    Listener *listener;
    doorman_check *check;
    void *opaque;
    Task *task;
    struct task_mutex lock; /* all that follows */
    struct task_cond changed;
    struct visitor visitors[AT_ONCE];
    bool closed; /* the listener was shut down: no more visitors */
    bool ending; /* nobody will take those that are here */
};

static void check_run(void *arg)
{
    struct visitor *v = arg;
    Doorman *d = v->d;
    Error *err = NULL;
    Channel *ch = d->check(d->opaque, v->ch, &err);

    if (!ch)
        log_warn("%s", error_get_pretty(err));
    error_free(err);
    task_lock(&d->lock);
    v->ch = ch;
    v->checked = true;
    task_broadcast(&d->changed);
    task_unlock(&d->lock);
}

/* Lock held. */
static struct visitor *free_place(Doorman *d)
{
    for (int i = 0; i < AT_ONCE; i++)
        if (!d->visitors[i].task)
            return &d->visitors[i];
    return NULL;
}

/* Takes ch. The lock is held while the task starts, so that nobody sees half a visitor. */
static void let_in(Doorman *d, Channel *ch)
{
    Error *err = NULL;
    struct visitor *v;
    bool let_go;

    task_lock(&d->lock);
    while (!(v = free_place(d)) && !d->ending)
        task_wait(&d->changed, &d->lock);
    if (v) {
        *v = (struct visitor){.d = d, .ch = ch};
        v->task = task_start("handshake", check_run, v, &err);
    }
    let_go = !v || !v->task;
    task_unlock(&d->lock);
    if (err)
        log_warn("%s: %s", ch->peer, error_get_pretty(err));
    error_free(err);
    if (let_go)
        channel_close(ch);
}

static void doorman_run(void *arg)
{
    Doorman *d = arg;
    Channel *ch;

    while ((ch = listener_accept(d->listener, NULL)))
        let_in(d, ch);
    task_lock(&d->lock);
    d->closed = true;
    task_broadcast(&d->changed);
    task_unlock(&d->lock);
}

Doorman *doorman_new(Listener *listener, doorman_check *check, void *opaque, Error **errp)
{
    Doorman *d = calloc(1, sizeof(*d));

    if (!d) {
        error_setg(errp, "out of memory");
        return NULL;
    }
    d->listener = listener;
    d->check = check;
    d->opaque = opaque;
    task_mutex_init(&d->lock);
    task_cond_init(&d->changed);
    d->task = task_start("doorman", doorman_run, d, errp);
    if (d->task)
        return d;
    doorman_free(d);
    return NULL;
}

/* Lock held. */
static struct visitor *checked_one(Doorman *d)
{
    for (int i = 0; i < AT_ONCE; i++)
        if (d->visitors[i].task && d->visitors[i].checked)
            return &d->visitors[i];
    return NULL;
}

/* The next one whose check is over, its place free again. false: none, and there will be no more. */
static bool next_checked(Doorman *d, Channel **ret_ch)
{
    struct visitor *v, was = {0};

    task_lock(&d->lock);
    while (!(v = checked_one(d)) && !d->closed)
        task_wait(&d->changed, &d->lock);
    if (v) {
        was = *v;
        *v = (struct visitor){0};
        task_broadcast(&d->changed);
    }
    task_unlock(&d->lock);
    task_join(was.task);
    *ret_ch = was.ch;
    return v;
}

Channel *doorman_accept(Doorman *d, Error **errp)
{
    Channel *ch;

    while (next_checked(d, &ch))
        if (ch)
            return ch;
    error_setg(errp, "%s: nobody listens any more", listener_address(d->listener));
    return NULL;
}

void doorman_free(Doorman *d)
{
    if (!d)
        return;
    task_lock(&d->lock);
    d->ending = true;
    task_broadcast(&d->changed);
    task_unlock(&d->lock);
    task_join(d->task);
    for (int i = 0; i < AT_ONCE; i++) {
        if (!d->visitors[i].task)
            continue;
        task_join(d->visitors[i].task);
        channel_close(d->visitors[i].ch);
    }
    task_cond_destroy(&d->changed);
    task_mutex_destroy(&d->lock);
    free(d);
}
