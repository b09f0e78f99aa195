/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loop: the one I/O thread of a machine. epoll over file descriptors, and timers; each handler runs with the
 * loop lock held.
 *
 * The loop lock is the machine's device lock: a vCPU that touches a device takes it too. loop_park() waits
 * until no handler runs and lets none run until loop_unpark(): between the two nothing of the loop touches
 * guest RAM, rings or eventfds. Lock order: loop lock before any lock of a backend (net, output buffer,
 * console).
 *
 * Order of calls: loop_new, add what is there, loop_start, ..., timers freed, loop_free. A descriptor is
 * removed before it is closed. A handler that does not take away the reason for its call is called again at
 * once; while it cannot, it pauses its descriptor with loop_set_fd_events(l, fd, 0).
 *
 *     static void on_frame(void *opaque, uint32_t events)      // loop lock held
 *     {
 *         struct tap *t = opaque;
 *
 *         while (read(t->fd, ...) > 0)
 *             ...
 *     }
 *     ok = loop_add_fd(l, t->fd, EPOLLIN, on_frame, t, errp);
 *
 * Loops live in real time: there are none under the simulator.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <perdure/error.h>
#include <stdint.h>

typedef struct Loop Loop;
typedef struct LoopTimer LoopTimer;

Loop *loop_new(Error **errp);
bool loop_start(Loop *l, Error **errp); /* starts the thread */
void loop_free(Loop *l);                /* stops and joins it; NULL is fine */

/* Handlers get the EPOLL* events that came. fd is borrowed, and added once. May be called with or without the
 * lock, from any thread. */
bool loop_add_fd(Loop *l, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events), void *opaque,
                 Error **errp);
void loop_set_fd_events(Loop *l, int fd, uint32_t events); /* 0: paused */
/* Lock held, or loop not started: after it the handler is not called again. */
void loop_remove_fd(Loop *l, int fd);

/* One-shot at an absolute clock_now() time; TIME_NEVER disarms; fn may set it again. Lock held for set and
 * free. NULL: no memory. */
LoopTimer *loop_timer_new(Loop *l, void (*fn)(void *opaque), void *opaque);
void loop_timer_set(LoopTimer *t, int64_t deadline);
void loop_timer_free(LoopTimer *t);

/* Runs fn once a post on the loop's thread, soon, lock held, in the order of posts. Any thread, any lock.
 * What has not run when the loop is freed never runs. */
void loop_post(Loop *l, void (*fn)(void *opaque), void *opaque);

/* Work that belongs after what the loop's thread does now: d->fn runs on it once, soon, lock held, however
 * often it is deferred until then; so what several events need is done once, without a descriptor. From a
 * handler only (timers and posted functions too). d is the caller's; he removes it before he frees it. */
struct loop_deferred {
    void (*fn)(void *opaque);
    void *opaque;
    /* private */
    bool queued;
    struct loop_deferred *next;
};
void loop_defer(Loop *l, struct loop_deferred *d);
/* Lock held, or loop not started. */
void loop_undefer(Loop *l, struct loop_deferred *d);
/* Does this thread run l's handlers? In a handler it does. */
bool loop_is_current(const Loop *l);

void loop_lock(Loop *l);
void loop_unlock(Loop *l);
void loop_assert_locked(Loop *l);
/* Not nestable, not from a handler, lock not held. While parked anybody may still take the lock. */
void loop_park(Loop *l);
void loop_unpark(Loop *l);

#endif
