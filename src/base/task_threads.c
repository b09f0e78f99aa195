/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/task_threads.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define NAME_SIZE 16 /* of the kernel, with the NUL */
/* Longer waits end early, as a spurious wake-up; so no addition of times can overflow. */
#define LONGEST_WAIT (INT64_C(24) * 3600 * NS_PER_S)

struct Task {
    pthread_t thread;
    char name[NAME_SIZE];
    void (*fn)(void *arg);
    void *arg;
};

static int64_t read_clock(clockid_t id)
{
    struct timespec ts;
    int r = clock_gettime(id, &ts);

    assert(r == 0);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static int64_t threads_now(void)
{
    return read_clock(CLOCK_BOOTTIME);
}

static void *thread_main(void *opaque)
{
    Task *t = opaque;

    pthread_setname_np(pthread_self(), t->name);
    t->fn(t->arg);
    return NULL;
}

static Task *threads_start(const char *name, void (*fn)(void *arg), void *arg, Error **errp)
{
    Task *t = malloc(sizeof(*t));
    int r = ENOMEM;

    if (t) {
        *t = (Task){.fn = fn, .arg = arg};
        snprintf(t->name, sizeof(t->name), "%s", name);
        r = pthread_create(&t->thread, NULL, thread_main, t);
    }
    if (r) {
        error_setg_errno(errp, r, "cannot start thread %s", name);
        free(t);
        return NULL;
    }
    return t;
}

static void threads_join(Task *t)
{
    int r = pthread_join(t->thread, NULL);

    assert(r == 0);
    free(t);
}

static void threads_mutex_init(struct task_mutex *m)
{
    pthread_mutex_init(&m->pthread, NULL);
    m->owner = NULL;
}

static void threads_mutex_destroy(struct task_mutex *m)
{
    int r = pthread_mutex_destroy(&m->pthread);

    assert(r == 0);
}

/* The owner is read by threads that do not hold the mutex, but only to find that it is not them. */
static void set_owner(struct task_mutex *m, void *owner)
{
    __atomic_store_n(&m->owner, owner, __ATOMIC_RELAXED);
}

static void *self(void)
{
    return (void *)pthread_self();
}

bool task_threads_holds(struct task_mutex *m)
{
    return __atomic_load_n(&m->owner, __ATOMIC_RELAXED) == self();
}

static void threads_lock(struct task_mutex *m)
{
    int r;

    assert(!task_threads_holds(m)); /* it would never end */
    r = pthread_mutex_lock(&m->pthread);
    assert(r == 0);
    set_owner(m, self());
}

static void threads_unlock(struct task_mutex *m)
{
    int r;

    assert(task_threads_holds(m));
    set_owner(m, NULL);
    r = pthread_mutex_unlock(&m->pthread);
    assert(r == 0);
}

static void threads_cond_init(struct task_cond *c)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* pthread knows no CLOCK_BOOTTIME */
    pthread_cond_init(&c->pthread, &attr);
    pthread_condattr_destroy(&attr);
    c->waiters = NULL;
}

static void threads_cond_destroy(struct task_cond *c)
{
    pthread_cond_destroy(&c->pthread);
}

/* The CLOCK_MONOTONIC time as far away as the CLOCK_BOOTTIME deadline is now. */
static struct timespec to_monotonic(int64_t deadline)
{
    int64_t now = threads_now();
    int64_t end = read_clock(CLOCK_MONOTONIC);

    if (deadline > now + LONGEST_WAIT)
        end += LONGEST_WAIT;
    else if (deadline > now)
        end += deadline - now;
    return (struct timespec){.tv_sec = end / NS_PER_S, .tv_nsec = end % NS_PER_S};
}

static bool threads_wait_until(struct task_cond *c, struct task_mutex *m, int64_t deadline)
{
    struct timespec end;
    int r;

    assert(task_threads_holds(m));
    set_owner(m, NULL);
    if (deadline == TIME_NEVER) {
        r = pthread_cond_wait(&c->pthread, &m->pthread);
    } else {
        end = to_monotonic(deadline);
        r = pthread_cond_timedwait(&c->pthread, &m->pthread, &end);
    }
    assert(r == 0 || r == ETIMEDOUT);
    set_owner(m, self());
    return r == 0 || threads_now() < deadline;
}

static void threads_broadcast(struct task_cond *c)
{
    pthread_cond_broadcast(&c->pthread);
}

const struct task_runtime task_runtime_threads = {
    .now = threads_now,
    .start = threads_start,
    .join = threads_join,
    .mutex_init = threads_mutex_init,
    .mutex_destroy = threads_mutex_destroy,
    .lock = threads_lock,
    .unlock = threads_unlock,
    .cond_init = threads_cond_init,
    .cond_destroy = threads_cond_destroy,
    .wait_until = threads_wait_until,
    .broadcast = threads_broadcast,
};
