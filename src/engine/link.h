/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Link: the connections of a pair, and the sign of life that they share: main, heartbeat, and in postcopy a third one for
 * what is urgent.
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

struct link {
    Channel *main, *beat, *urgent; /* wrapped; link_set() before start; urgent may stay NULL */

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
/* which: &l->main, &l->beat or &l->urgent. */
void link_set(struct link *l, Channel **which, Channel *ch);
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
