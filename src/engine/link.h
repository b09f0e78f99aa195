/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Link: the connections of a pair, and the sign of life that they share: main, heartbeat, in postcopy one for what is urgent, and in a
 * migration over several channels one for each of its lanes.
 *
 * Every byte that comes in on any connection counts as life. A read on one of them ends with ETIMEDOUT
 * once all have been silent for the timeout: so a task that waits for a record needs no watcher of its own.
 * One task keeps the heartbeat connection busy: one side pings every timeout/5, the other answers. The first
 * thing that breaks takes all connections down, for all tasks, and is remembered as the reason.
 *
 * Silence is what this side observed: time during which this process itself did not run (frozen, suspended,
 * starved) is not held against the peer. Whether something may be RELEASED after such a time is another
 * question, and epoch.c asks it by the clock alone.
 *
 * Calls: init, wrap and set each connection, start, ..., down, close; or reset after down, and the same again with new
 * connections. Any task may call link_down() and link_is_down().
 */
#ifndef ENGINE_LINK_H
#define ENGINE_LINK_H

#include "base/task.h"
#include "stream/channel.h"
#include "stream/lanes.h"

struct link {
    Channel *main, *beat, *urgent; /* wrapped; link_set() before start; urgent may stay NULL */
    Channel *lanes[LANES_MAX];     /* the same; those there are come first */

    /* private */
    struct task_mutex lock;
    struct task_cond changed;
    int64_t timeout;
    int64_t life; /* the last sign of it */
    bool watching;
    bool pings;
    bool down;
    int64_t down_at;
    char why[256];
    Task *task;
    void (*on_down)(void *opaque);
    void *opaque;
};

/* on_down: called once a link, by whichever task finds the link broken; must only wake somebody. */
void link_init(struct link *l, int64_t timeout, void (*on_down)(void *opaque), void *opaque);
/* Takes ch; NULL when memory is out. */
Channel *link_wrap(struct link *l, Channel *ch);
/* which: &l->main, &l->beat, &l->urgent or &l->lanes[i]. */
void link_set(struct link *l, Channel **which, Channel *ch);
unsigned link_lanes(const struct link *l);
/* Of every connection that memory goes over. */
void link_set_send_deadline(struct link *l, int64_t deadline);
/* From now on silence counts. pings: this side sends, the other answers. */
bool link_start(struct link *l, bool pings, Error **errp);
/* Takes all connections down; the first reason is kept. */
void link_down(struct link *l, const char *why);
bool link_is_down(struct link *l);
/* When and why; false while it is up. */
bool link_reason(struct link *l, int64_t *at, char *why, size_t size);
/* It is down, and nobody uses its connections any more: they are closed, and it is as after init. */
void link_reset(struct link *l);
/* Down, joined, freed. */
void link_close(struct link *l);

#endif
