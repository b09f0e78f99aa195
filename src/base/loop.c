/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/loop_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define BATCH        32
#define POSTED_BEGIN 256

/* --- life --- */

static bool watch_own(Loop *l, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN}; /* no handler: one of ours */

    return fd >= 0 && epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev) == 0;
}

Loop *loop_new(Error **errp)
{
    Loop *l = calloc(1, sizeof(*l));

    if (!l) {
        error_setg_errno(errp, ENOMEM, "cannot make an I/O loop");
        return NULL;
    }
    task_mutex_init(&l->lock);
    task_mutex_init(&l->lists);
    task_cond_init(&l->unparked);
    l->posted_size = POSTED_BEGIN;
    l->posted = calloc(l->posted_size, sizeof(l->posted[0]));
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->timerfd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (l->posted && l->epoll >= 0 && watch_own(l, l->wake) && watch_own(l, l->timerfd))
        return l;
    error_setg_errno(errp, errno, "cannot make an I/O loop");
    loop_free(l);
    return NULL;
}

static void free_handlers(struct loop_handler *h)
{
    while (h) {
        struct loop_handler *next = h->next;

        free(h);
        h = next;
    }
}

static void wake_up(Loop *l)
{
    (void)!eventfd_write(l->wake, 1); /* can fail only when it is awake already */
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

void loop_free(Loop *l)
{
    if (!l)
        return;
    task_lock(&l->lock);
    l->stopping = true;
    task_broadcast(&l->unparked);
    task_unlock(&l->lock);
    wake_up(l);
    task_join(l->task);
    assert(!l->timers); /* they are freed before their loop */
    free_handlers(l->handlers);
    free_handlers(l->graveyard);
    free(l->posted);
    close_if_open(l->timerfd);
    close_if_open(l->wake);
    close_if_open(l->epoll);
    task_cond_destroy(&l->unparked);
    task_mutex_destroy(&l->lists);
    task_mutex_destroy(&l->lock);
    free(l);
}

/* --- the lock --- */

void loop_lock(Loop *l)
{
    task_lock(&l->lock);
}

void loop_unlock(Loop *l)
{
    task_unlock(&l->lock);
}

void loop_assert_locked(Loop *l)
{
    task_mutex_assert_held(&l->lock);
}

void loop_park(Loop *l)
{
    task_lock(&l->lock);
    assert(!l->parked);
    l->parked = true;
    task_unlock(&l->lock);
}

void loop_unpark(Loop *l)
{
    task_lock(&l->lock);
    assert(l->parked);
    l->parked = false;
    task_broadcast(&l->unparked);
    task_unlock(&l->lock);
}

/* The lock for a handler: not while parked. */
bool loop_lock_unparked(Loop *l)
{
    task_lock(&l->lock);
    while (l->parked && !l->stopping)
        task_wait(&l->unparked, &l->lock);
    return !l->stopping;
}

/* --- descriptors --- */

/* lists held. */
static struct loop_handler **find_handler(Loop *l, int fd)
{
    struct loop_handler **link = &l->handlers;

    while (*link && (*link)->fd != fd)
        link = &(*link)->next;
    return link;
}

static int set_events(Loop *l, struct loop_handler *h, uint32_t events)
{
    int op = !h->events ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    struct epoll_event ev = {.events = events, .data.ptr = h};

    if (events == h->events)
        return 0;
    if (epoll_ctl(l->epoll, op, h->fd, &ev))
        return errno;
    h->events = events;
    return 0;
}

bool loop_add_fd(Loop *l, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events), void *opaque,
                 Error **errp)
{
    struct loop_handler *h = calloc(1, sizeof(*h));
    int errnum = ENOMEM;

    if (h) {
        *h = (struct loop_handler){.fd = fd, .fn = fn, .opaque = opaque};
        task_lock(&l->lists);
        errnum = *find_handler(l, fd) ? EEXIST : set_events(l, h, events);
        if (!errnum) {
            h->next = l->handlers;
            l->handlers = h;
        }
        task_unlock(&l->lists);
    }
    if (!errnum)
        return true;
    free(h);
    error_setg_errno(errp, errnum, "cannot wait for events of file descriptor %d", fd);
    return false;
}

void loop_set_fd_events(Loop *l, int fd, uint32_t events)
{
    struct loop_handler *h;
    int errnum;

    task_lock(&l->lists);
    h = *find_handler(l, fd);
    assert(h);
    errnum = set_events(l, h, events);
    assert(!errnum);
    task_unlock(&l->lists);
}

void loop_remove_fd(Loop *l, int fd)
{
    struct loop_handler **link, *h;

    if (l->started)
        loop_assert_locked(l);
    task_lock(&l->lists);
    link = find_handler(l, fd);
    h = *link;
    if (h) {
        set_events(l, h, 0);
        h->removed = true;
        *link = h->next;
        h->next = l->graveyard;
        l->graveyard = h;
    }
    task_unlock(&l->lists);
}

/* What h still wants of the events that came; lock held. */
static uint32_t wanted(Loop *l, const struct loop_handler *h, uint32_t events)
{
    task_lock(&l->lists);
    events = h->removed || !h->events ? 0 : events & (h->events | EPOLLERR | EPOLLHUP);
    task_unlock(&l->lists);
    return events;
}

static void bury_removed(Loop *l)
{
    struct loop_handler *dead;

    task_lock(&l->lists);
    dead = l->graveyard;
    l->graveyard = NULL;
    task_unlock(&l->lists);
    free_handlers(dead);
}

/* --- posted functions --- */

/* lists held. */
static void grow_posted(Loop *l)
{
    struct loop_posted *ring = calloc(2 * l->posted_size, sizeof(ring[0]));

    assert(ring); /* what was posted cannot be dropped, and nobody could be told */
    for (size_t i = 0; i < l->posted_count; i++)
        ring[i] = l->posted[(l->posted_first + i) % l->posted_size];
    free(l->posted);
    l->posted = ring;
    l->posted_size *= 2;
    l->posted_first = 0;
}

void loop_post(Loop *l, void (*fn)(void *opaque), void *opaque)
{
    task_lock(&l->lists);
    if (l->posted_count == l->posted_size)
        grow_posted(l);
    l->posted[(l->posted_first + l->posted_count++) % l->posted_size] = (struct loop_posted){fn, opaque};
    task_unlock(&l->lists);
    wake_up(l);
}

static bool take_posted(Loop *l, struct loop_posted *ret_posted)
{
    bool any;

    task_lock(&l->lists);
    any = l->posted_count > 0;
    if (any) {
        *ret_posted = l->posted[l->posted_first];
        l->posted_first = (l->posted_first + 1) % l->posted_size;
        l->posted_count--;
    }
    task_unlock(&l->lists);
    return any;
}

static size_t count_posted(Loop *l)
{
    size_t n;

    task_lock(&l->lists);
    n = l->posted_count;
    task_unlock(&l->lists);
    return n;
}

/* What was there when it began: a function that posts itself again waits for the next round. */
static void run_posted(Loop *l)
{
    struct loop_posted p;

    for (size_t n = count_posted(l); n; n--) {
        if (loop_lock_unparked(l) && take_posted(l, &p))
            p.fn(p.opaque);
        task_unlock(&l->lock);
    }
}

/* --- the thread --- */

static void run_timers(Loop *l)
{
    if (loop_lock_unparked(l))
        loop_timers_run(l);
    task_unlock(&l->lock);
}

/* One handler a time under the lock, so that a vCPU need not wait for the whole batch. */
static void run_handler(Loop *l, struct loop_handler *h, uint32_t events)
{
    if (loop_lock_unparked(l)) {
        events = wanted(l, h, events);
        if (events)
            h->fn(h->opaque, events);
    }
    task_unlock(&l->lock);
}

static void drain_own(Loop *l)
{
    uint64_t count;

    (void)!read(l->wake, &count, sizeof(count));
    (void)!read(l->timerfd, &count, sizeof(count));
}

static bool stopping(Loop *l)
{
    bool s;

    task_lock(&l->lock);
    s = l->stopping;
    task_unlock(&l->lock);
    return s;
}

static void loop_main(void *opaque)
{
    struct epoll_event events[BATCH];
    Loop *l = opaque;
    bool more = false;

    loop_make_current(l);
    while (!stopping(l)) {
        int n = epoll_wait(l->epoll, events, BATCH, more ? 0 : -1);

        assert(n >= 0 || errno == EINTR);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) {
                run_handler(l, events[i].data.ptr, events[i].events);
                continue;
            }
            drain_own(l);
            run_timers(l);
            run_posted(l);
        }
        more = loop_run_deferred(l);
        bury_removed(l);
    }
}

bool loop_start(Loop *l, Error **errp)
{
    assert(!l->started);
    l->started = true;
    l->task = task_start("io-loop", loop_main, l, errp);
    return l->task;
}
