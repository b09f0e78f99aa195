/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/link.h"
#include "engine/heartbeat.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLICES 8 /* of the timeout, for one look at the clock each */

struct link_channel {
    Channel ch;
    Channel *lower;
    struct link *link;
};

static void alive(struct link *l)
{
    task_lock(&l->lock);
    l->life = clock_now();
    task_unlock(&l->lock);
}

/* How long one wait may be, and whether the peer has been silent for too long. */
static int64_t next_look(struct link *l, int64_t now, bool *ret_silent)
{
    int64_t until = TIME_NEVER;

    task_lock(&l->lock);
    *ret_silent = l->watching && now - l->life > l->timeout;
    if (l->watching)
        until = now + l->timeout / SLICES;
    task_unlock(&l->lock);
    return until;
}

/* A wait that should have ended at `until` did so much later: this process stood still. */
static void forgive_stall(struct link *l, int64_t until, int64_t now)
{
    if (until == TIME_NEVER || now - until < l->timeout / SLICES)
        return;
    task_lock(&l->lock);
    l->life += now - until;
    if (l->life > now) /* the other connection's task forgave the same stall */
        l->life = now;
    task_unlock(&l->lock);
}

static void silence(struct link_channel *c, Error **errp)
{
    error_setg_errno(errp, ETIMEDOUT, "no sign of life from %s for %" PRId64 " ms", c->ch.peer,
                     c->link->timeout / NS_PER_MS);
}

static ssize_t link_read(Channel *ch, void *buf, size_t n, int64_t deadline, Error **errp)
{
    struct link_channel *c = (struct link_channel *)ch;
    int64_t now = clock_now();

    for (;;) {
        Error *err = NULL;
        bool silent;
        int64_t until = next_look(c->link, now, &silent);
        ssize_t r;

        if (deadline < until)
            until = deadline;
        r = c->lower->ops->read(c->lower, buf, n, silent ? now : until, &err);
        if (r > 0)
            alive(c->link);
        if (r >= 0)
            return r;
        now = clock_now();
        if (error_get_errno(err) != ETIMEDOUT || now >= deadline) {
            error_propagate(errp, err);
            return -1;
        }
        error_free(err);
        if (silent) { /* and what had come meanwhile has been looked at */
            silence(c, errp);
            return -1;
        }
        forgive_stall(c->link, until, now);
    }
}

static bool link_write(Channel *ch, const struct iovec *iov, int n, int64_t deadline, Error **errp)
{
    struct link_channel *c = (struct link_channel *)ch;

    return c->lower->ops->write(c->lower, iov, n, deadline, errp);
}

static void link_shutdown(Channel *ch)
{
    channel_shutdown(((struct link_channel *)ch)->lower);
}

static void link_channel_close(Channel *ch)
{
    struct link_channel *c = (struct link_channel *)ch;

    channel_close(c->lower);
    free(c);
}

static const struct channel_ops link_channel_ops = {
    .read = link_read,
    .write = link_write,
    .shutdown = link_shutdown,
    .close = link_channel_close,
};

Channel *link_wrap(struct link *l, Channel *ch)
{
    struct link_channel *c = calloc(1, sizeof(*c));

    if (!c) {
        channel_close(ch);
        return NULL;
    }
    c->ch.ops = &link_channel_ops;
    c->ch.deadline = ch->deadline;
    memcpy(c->ch.peer, ch->peer, sizeof(c->ch.peer));
    c->lower = ch;
    c->link = l;
    return &c->ch;
}

void link_set(struct link *l, Channel **which, Channel *ch)
{
    task_lock(&l->lock);
    *which = ch;
    if (l->down)
        channel_shutdown(ch);
    task_unlock(&l->lock);
}

void link_init(struct link *l, int64_t timeout, void (*on_down)(void *opaque), void *opaque)
{
    *l = (struct link){.timeout = timeout, .on_down = on_down, .opaque = opaque};
    task_mutex_init(&l->lock);
    task_cond_init(&l->changed);
}

unsigned link_lanes(const struct link *l)
{
    unsigned count = 0;

    while (count < LANES_MAX && l->lanes[count])
        count++;
    return count;
}

void link_set_send_deadline(struct link *l, int64_t deadline)
{
    channel_set_deadline(l->main, deadline);
    for (unsigned i = 0; i < link_lanes(l); i++)
        channel_set_deadline(l->lanes[i], deadline);
}

bool link_start(struct link *l, bool pings, Error **errp)
{
    if (link_is_down(l)) {
        error_setg(errp, "%s", l->why);
        return false;
    }
    task_lock(&l->lock);
    l->life = clock_now();
    l->watching = true;
    l->pings = pings;
    task_unlock(&l->lock);
    link_set_send_deadline(l, TIME_NEVER);
    channel_set_deadline(l->beat, TIME_NEVER);
    if (l->urgent)
        channel_set_deadline(l->urgent, TIME_NEVER);
    l->task = task_start(pings ? "ping" : "pong", heartbeat_run, l, errp);
    return l->task;
}

#define CONNECTIONS (3 + LANES_MAX)

static void all_connections(const struct link *l, Channel *ret[CONNECTIONS])
{
    ret[0] = l->main;
    ret[1] = l->beat;
    ret[2] = l->urgent;
    memcpy(ret + 3, l->lanes, sizeof(l->lanes));
}

/* Lock held, so that nobody resets the link, and frees them, meanwhile. */
static void shut_connections(struct link *l)
{
    Channel *all[CONNECTIONS];

    all_connections(l, all);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        if (all[i])
            channel_shutdown(all[i]);
}

void link_down(struct link *l, const char *why)
{
    bool first;

    task_lock(&l->lock);
    first = !l->down;
    if (first) {
        l->down = true;
        l->down_at = clock_now();
        snprintf(l->why, sizeof(l->why), "%s", why);
        shut_connections(l);
        task_broadcast(&l->changed);
    }
    task_unlock(&l->lock);
    if (first)
        l->on_down(l->opaque);
}

bool link_is_down(struct link *l)
{
    return link_reason(l, NULL, NULL, 0);
}

bool link_reason(struct link *l, int64_t *at, char *why, size_t size)
{
    bool down;

    task_lock(&l->lock);
    down = l->down;
    if (down && at)
        *at = l->down_at;
    if (down && why)
        snprintf(why, size, "%s", l->why);
    task_unlock(&l->lock);
    return down;
}

void link_reset(struct link *l)
{
    Channel *all[CONNECTIONS];

    task_join(l->task);
    task_lock(&l->lock);
    all_connections(l, all);
    l->main = l->beat = l->urgent = NULL;
    memset(l->lanes, 0, sizeof(l->lanes));
    l->task = NULL;
    l->down = l->watching = false;
    task_unlock(&l->lock);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        channel_close(all[i]);
}

void link_close(struct link *l)
{
    link_down(l, "the connection was closed here");
    link_reset(l);
    task_cond_destroy(&l->changed);
    task_mutex_destroy(&l->lock);
}
