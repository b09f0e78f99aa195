/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fiber: a stack and a place to go on, made known to the sanitizers.
 */
#ifndef SIM_FIBER_H
#define SIM_FIBER_H

typedef struct Fiber Fiber;

/* A fiber that begins with fn(arg), which must not return but switch away for ever. */
Fiber *fiber_new(void (*fn)(void *arg), void *arg);
/* Not the running one. */
void fiber_free(Fiber *f);
/* From the scheduler's stack into f, until f calls fiber_leave(). */
void fiber_enter(Fiber *f);
/* From the fiber that runs back to the scheduler. last: it will not be entered again. */
void fiber_leave(Fiber *f, int last);

#endif
