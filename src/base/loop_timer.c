/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/loop_private.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/timerfd.h>

struct LoopTimer {
    LoopTimer *next;
    Loop *loop;
    int64_t deadline;
    uint64_t pass; /* in which it ran last */
    void (*fn)(void *opaque);
    void *opaque;
};

/* lists held. */
static void arm(Loop *l)
{
    struct itimerspec when = {0};
    int64_t first = TIME_NEVER;
    int r;

    for (LoopTimer *t = l->timers; t; t = t->next)
        first = t->deadline < first ? t->deadline : first;
    if (first < 1)
        first = 1; /* 0 would disarm it */
    if (first != TIME_NEVER)
        when.it_value = (struct timespec){.tv_sec = first / NS_PER_S, .tv_nsec = first % NS_PER_S};
    r = timerfd_settime(l->timerfd, TFD_TIMER_ABSTIME, &when, NULL);
    assert(r == 0);
}

LoopTimer *loop_timer_new(Loop *l, void (*fn)(void *opaque), void *opaque)
{
    LoopTimer *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    *t = (LoopTimer){.loop = l, .deadline = TIME_NEVER, .fn = fn, .opaque = opaque};
    task_lock(&l->lists);
    t->next = l->timers;
    l->timers = t;
    task_unlock(&l->lists);
    return t;
}

void loop_timer_set(LoopTimer *t, int64_t deadline)
{
    Loop *l = t->loop;

    loop_assert_locked(l);
    task_lock(&l->lists);
    t->deadline = deadline;
    arm(l);
    task_unlock(&l->lists);
}

void loop_timer_free(LoopTimer *t)
{
    LoopTimer **link;
    Loop *l;

    if (!t)
        return;
    l = t->loop;
    loop_assert_locked(l);
    task_lock(&l->lists);
    for (link = &l->timers; *link != t; link = &(*link)->next)
        ;
    *link = t->next;
    arm(l);
    task_unlock(&l->lists);
    free(t);
}

/* The earliest timer that is due and did not run in this pass, disarmed. */
static LoopTimer *take_due(Loop *l, int64_t now)
{
    LoopTimer *due = NULL;

    task_lock(&l->lists);
    for (LoopTimer *t = l->timers; t; t = t->next)
        if (t->deadline <= now && t->pass != l->pass && (!due || t->deadline < due->deadline))
            due = t;
    if (due) {
        due->deadline = TIME_NEVER;
        due->pass = l->pass;
    }
    arm(l);
    task_unlock(&l->lists);
    return due;
}

void loop_timers_run(Loop *l)
{
    int64_t now = clock_now();
    LoopTimer *t;

    l->pass++; /* a timer that sets itself to the past must not keep everyone else waiting */
    while ((t = take_due(l, now)))
        t->fn(t->opaque);
}
