/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of Loop, shared by loop.c and loop_timer.c.
 */
#ifndef BASE_LOOP_PRIVATE_H
#define BASE_LOOP_PRIVATE_H

#include "base/loop.h"
#include "base/task.h"

#include <stddef.h>

struct loop_handler {
    struct loop_handler *next;
    int fd;
    uint32_t events; /* 0: paused, and not in the epoll set: there a hang-up would be reported for ever */
    bool removed;
    void (*fn)(void *opaque, uint32_t events);
    void *opaque;
};

struct loop_posted {
    void (*fn)(void *opaque);
    void *opaque;
};

/* Lock order: lock before lists. Handlers, timers and posted functions run with lock held and lists free. */
struct Loop {
    struct task_mutex lock;
    struct task_cond unparked;
    bool parked;
    bool started;
    bool stopping;
    Task *task;
    struct loop_deferred *deferred; /* first in, first out */

    int epoll;
    int wake;    /* eventfd */
    int timerfd; /* armed for the earliest timer */

    struct task_mutex lists; /* all that follows */
    struct loop_handler *handlers;
    struct loop_handler
        *graveyard; /* removed; the loop's thread may hold an event for them until its batch is done */
    LoopTimer *timers;
    uint64_t pass;              /* of loop_timers_run() */
    struct loop_posted *posted; /* ring */
    size_t posted_size, posted_first, posted_count;
};

/* Runs what is due; lock held. */
void loop_timers_run(Loop *l);

/* false (lock held all the same): stopping, run nothing. */
bool loop_lock_unparked(Loop *l);
/* The calling thread is l's. */
void loop_make_current(const Loop *l);
/* Lock not held. True: there is more. */
bool loop_run_deferred(Loop *l);

#endif
