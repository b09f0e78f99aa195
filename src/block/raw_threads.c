/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine of a raw node without io_uring: a few threads that wait for the disk. With a loop, what is done
 * lies in a list until the loop's thread, woken through an eventfd, completes it.
 */
#include "block/raw_private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/task.h"

#define THREADS 4

struct threads {
    struct raw *raw;
    Task *tasks[THREADS];
    int wake; /* -1: no loop */

    struct task_mutex lock; /* protects what follows */
    struct task_cond changed;
    struct raw_list submitted, done;
    unsigned busy; /* submitted and not completed */
    bool stopping;
};

/* Lock not held. */
static void complete(struct threads *t, struct block_request *r, int error)
{
    block_complete(r, error);
    task_lock(&t->lock);
    t->busy--;
    task_broadcast(&t->changed);
    task_unlock(&t->lock);
}

static void hand_to_loop(struct threads *t, struct block_request *r, int error)
{
    r->error = error;
    task_lock(&t->lock);
    if (!t->done.first)
        (void)!eventfd_write(t->wake, 1);
    raw_list_put(&t->done, r);
    task_broadcast(&t->changed);
    task_unlock(&t->lock);
}

static struct block_request *next_submitted(struct threads *t)
{
    struct block_request *r;

    task_lock(&t->lock);
    while (!(r = raw_list_take(&t->submitted)) && !t->stopping)
        task_wait(&t->changed, &t->lock);
    task_unlock(&t->lock);
    return r;
}

static void work(void *arg)
{
    struct threads *t = arg;
    struct block_request *r;

    while ((r = next_submitted(t))) {
        int error = raw_carry_out(t->raw, r);

        if (t->wake >= 0)
            hand_to_loop(t, r, error);
        else
            complete(t, r, error);
    }
}

/* --- with a loop; its lock held --- */

static struct block_request *take_done(struct threads *t)
{
    struct block_request *r;

    task_lock(&t->lock);
    r = raw_list_take(&t->done);
    task_unlock(&t->lock);
    return r;
}

static void complete_done(struct threads *t)
{
    struct block_request *r;

    while ((r = take_done(t)))
        complete(t, r, r->error);
}

static void woken(void *opaque, uint32_t events)
{
    struct threads *t = opaque;
    eventfd_t count;

    (void)events;
    (void)!eventfd_read(t->wake, &count);
    complete_done(t);
}

/* --- the engine --- */

static void threads_submit(struct raw *raw, struct block_request *r)
{
    struct threads *t = raw->engine_state;

    task_lock(&t->lock);
    t->busy++;
    raw_list_put(&t->submitted, r);
    task_broadcast(&t->changed);
    task_unlock(&t->lock);
}

static void threads_drain(struct raw *raw)
{
    struct threads *t = raw->engine_state;

    task_lock(&t->lock);
    while (t->busy) {
        if (!t->done.first) {
            task_wait(&t->changed, &t->lock);
            continue;
        }
        task_unlock(&t->lock);
        complete_done(t);
        task_lock(&t->lock);
    }
    task_unlock(&t->lock);
}

static void threads_close(struct raw *raw)
{
    struct threads *t = raw->engine_state;

    task_lock(&t->lock);
    t->stopping = true;
    task_broadcast(&t->changed);
    task_unlock(&t->lock);
    for (unsigned i = 0; i < THREADS; i++)
        task_join(t->tasks[i]);
    if (t->wake >= 0) {
        loop_remove_fd(raw->loop, t->wake);
        close(t->wake);
    }
    task_cond_destroy(&t->changed);
    task_mutex_destroy(&t->lock);
    free(t);
    raw->engine_state = NULL;
}

static bool watch(struct threads *t, Error **errp)
{
    if (!t->raw->loop)
        return true;
    t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->wake < 0) {
        error_setg_errno(errp, errno, "disk %s: cannot make an eventfd", t->raw->block.id);
        return false;
    }
    return loop_add_fd(t->raw->loop, t->wake, EPOLLIN, woken, t, errp);
}

static bool threads_open(struct raw *raw, Error **errp)
{
    struct threads *t = calloc(1, sizeof(*t));
    bool ok;

    if (!t) {
        error_setg(errp, "disk %s: out of memory", raw->block.id);
        return false;
    }
    *t = (struct threads){.raw = raw, .wake = -1};
    raw->engine_state = t;
    task_mutex_init(&t->lock);
    task_cond_init(&t->changed);
    raw_list_init(&t->submitted);
    raw_list_init(&t->done);
    ok = watch(t, errp);
    for (unsigned i = 0; ok && i < THREADS; i++) {
        t->tasks[i] = task_start("disk", work, t, errp);
        ok = t->tasks[i];
    }
    if (!ok)
        threads_close(raw);
    return ok;
}

const struct raw_engine raw_threads = {.name = "threads",
                                       .open = threads_open,
                                       .submit = threads_submit,
                                       .drain = threads_drain,
                                       .close = threads_close};
