/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/task.h"
#include "base/task_threads.h"

#include <assert.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct task_runtime *runtime = &task_runtime_threads;

void task_set_runtime(const struct task_runtime *rt)
{
    runtime = rt ? rt : &task_runtime_threads;
}

int64_t clock_now(void)
{
    return runtime->now();
}

void task_sleep_until(int64_t deadline)
{
    struct task_mutex m;
    struct task_cond c;

    task_mutex_init(&m);
    task_cond_init(&c);
    task_lock(&m);
    while (clock_now() < deadline)
        task_wait_until(&c, &m, deadline);
    task_unlock(&m);
    task_cond_destroy(&c);
    task_mutex_destroy(&m);
}

Task *task_start(const char *name, void (*fn)(void *arg), void *arg, Error **errp)
{
    return runtime->start(name, fn, arg, errp);
}

void task_join(Task *t)
{
    if (t)
        runtime->join(t);
}

void task_set_pace(enum task_pace pace)
{
    static const int more[] = {[TASK_BEHIND] = 5, [TASK_NORMAL] = 0, [TASK_HURRIED] = -15};

    if (runtime == &task_runtime_threads) /* nice, beside that of the process */
        setpriority(PRIO_PROCESS, (id_t)gettid(), getpriority(PRIO_PROCESS, (id_t)getpid()) + more[pace]);
}

void task_mutex_init(struct task_mutex *m)
{
    runtime->mutex_init(m);
}

void task_mutex_destroy(struct task_mutex *m)
{
    runtime->mutex_destroy(m);
}

void task_lock(struct task_mutex *m)
{
    runtime->lock(m);
}

void task_unlock(struct task_mutex *m)
{
    runtime->unlock(m);
}

void task_mutex_assert_held(struct task_mutex *m)
{
    if (runtime == &task_runtime_threads)
        assert(task_threads_holds(m));
    else
        assert(m->owner); /* fibers: whoever runs, somebody must hold it */
}

void task_cond_init(struct task_cond *c)
{
    runtime->cond_init(c);
}

void task_cond_destroy(struct task_cond *c)
{
    runtime->cond_destroy(c);
}

void task_wait(struct task_cond *c, struct task_mutex *m)
{
    runtime->wait_until(c, m, TIME_NEVER);
}

bool task_wait_until(struct task_cond *c, struct task_mutex *m, int64_t deadline)
{
    return runtime->wait_until(c, m, deadline);
}

void task_broadcast(struct task_cond *c)
{
    runtime->broadcast(c);
}
