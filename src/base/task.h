/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Task: everything that waits. Threads in the product, fibers on a simulated clock under the simulator
 * (tests/sim).
 *
 * Code above this header never calls time, sleep, pthread or a socket: it uses tasks, mutexes, conditions,
 * clock_now() and Channel. Then one seed of the simulator replays a whole failure. The runtime is chosen
 * once, before the first task, by task_set_runtime(); threads are the default.
 *
 * Times are nanoseconds of clock_now(): CLOCK_BOOTTIME, so that a frozen machine sees on its return how long
 * it was away.
 *
 *     task_lock(&q->mutex);
 *     while (!q->ready && !q->stopping)
 *         if (!task_wait_until(&q->changed, &q->mutex, deadline))
 *             break;                                    // the deadline passed
 *     ...
 *     task_unlock(&q->mutex);
 *
 * A task inherits the signal mask of its starter. Mutexes are not recursive, and a lock that the caller holds
 * already, an unlock of one that it does not, are assertion failures. A condition is waited for with one
 * mutex.
 */
#ifndef BASE_TASK_H
#define BASE_TASK_H

#include <perdure/error.h>
#include <pthread.h>
#include <stdint.h>

#define NS_PER_US  INT64_C(1000)
#define NS_PER_MS  INT64_C(1000000)
#define NS_PER_S   INT64_C(1000000000)
#define TIME_NEVER INT64_MAX

typedef struct Task Task;

/* Static initialisers are not needed: every mutex and condition is set up by its _init. */
struct task_mutex {
    pthread_mutex_t pthread; /* threads */
    void *owner;             /* fibers: holder; threads: for task_mutex_assert_held() */
};
struct task_cond {
    pthread_cond_t pthread;
    void *waiters;
};

struct task_runtime {
    int64_t (*now)(void);
    Task *(*start)(const char *name, void (*fn)(void *arg), void *arg, Error **errp);
    void (*join)(Task *t);
    void (*mutex_init)(struct task_mutex *m);
    void (*mutex_destroy)(struct task_mutex *m);
    void (*lock)(struct task_mutex *m);
    void (*unlock)(struct task_mutex *m);
    void (*cond_init)(struct task_cond *c);
    void (*cond_destroy)(struct task_cond *c);
    bool (*wait_until)(struct task_cond *c, struct task_mutex *m, int64_t deadline);
    void (*broadcast)(struct task_cond *c);
};

/* NULL: threads. */
void task_set_runtime(const struct task_runtime *rt);

int64_t clock_now(void);
void task_sleep_until(int64_t deadline);

/* name: at most 15 bytes are kept. Every task is joined exactly once. */
Task *task_start(const char *name, void (*fn)(void *arg), void *arg, Error **errp);
void task_join(Task *t); /* NULL is fine */
/* Of the calling task, and of those that it starts from then on, as far as the system lets it (CAP_SYS_NICE). Nothing happens
 * on fibers. */
enum task_pace {
    TASK_BEHIND, /* it has much to do, and no guest shall wait for that */
    TASK_NORMAL,
    TASK_HURRIED, /* a guest waits for it, and it does little each time */
};
void task_set_pace(enum task_pace pace);

void task_mutex_init(struct task_mutex *m);
void task_mutex_destroy(struct task_mutex *m);
void task_lock(struct task_mutex *m);
void task_unlock(struct task_mutex *m);
void task_mutex_assert_held(struct task_mutex *m);

void task_cond_init(struct task_cond *c);
void task_cond_destroy(struct task_cond *c);
void task_wait(struct task_cond *c, struct task_mutex *m);
/* false: the deadline passed. Spurious returns of true happen. */
bool task_wait_until(struct task_cond *c, struct task_mutex *m, int64_t deadline);
/* Wakes all. */
void task_broadcast(struct task_cond *c);

#endif
