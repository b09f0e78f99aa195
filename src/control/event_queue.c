/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/event_queue.h"
#include "base/task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS_MAX 256

struct event {
    char name[48];
    json_t *data;
};

struct EventQueue {
    int fd;
    struct task_mutex lock;
    struct event events[EVENTS_MAX];
    size_t first, count, dropped;
};

EventQueue *event_queue_new(Error **errp)
{
    EventQueue *q = calloc(1, sizeof(*q));

    if (q)
        q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!q || q->fd < 0) {
        error_setg_errno(errp, errno, "event queue");
        free(q);
        return NULL;
    }
    task_mutex_init(&q->lock);
    return q;
}

void event_queue_wake(EventQueue *q)
{
    uint64_t one = 1;

    /* A full counter is readable too: nothing is lost when this fails. */
    (void)!write(q->fd, &one, sizeof(one));
}

void event_queue_put(EventQueue *q, const char *event, json_t *data)
{
    task_lock(&q->lock);
    if (q->count == EVENTS_MAX) {
        q->dropped++;
        json_decref(data);
    } else {
        struct event *e = &q->events[(q->first + q->count++) % EVENTS_MAX];
        snprintf(e->name, sizeof(e->name), "%s", event);
        e->data = data;
    }
    task_unlock(&q->lock);
    event_queue_wake(q);
}

static bool take(EventQueue *q, struct event *e)
{
    bool taken = false;

    task_lock(&q->lock);
    if (q->count) {
        *e = q->events[q->first];
        q->first = (q->first + 1) % EVENTS_MAX;
        q->count--;
        taken = true;
    } else if (q->dropped) {
        snprintf(e->name, sizeof(e->name), "PERDURE_EVENTS_DROPPED");
        e->data = json_pack("{s:I}", "count", (json_int_t)q->dropped);
        q->dropped = 0;
        taken = true;
    }
    task_unlock(&q->lock);
    return taken;
}

void event_queue_drain(EventQueue *q, void (*fn)(void *opaque, const char *event, json_t *data), void *opaque)
{
    uint64_t count;
    struct event e;

    (void)!read(q->fd, &count, sizeof(count));
    while (take(q, &e)) {
        fn(opaque, e.name, e.data);
        json_decref(e.data);
    }
}

int event_queue_fd(const EventQueue *q)
{
    return q->fd;
}

void event_queue_free(EventQueue *q)
{
    if (!q)
        return;
    while (q->count) {
        json_decref(q->events[q->first].data);
        q->first = (q->first + 1) % EVENTS_MAX;
        q->count--;
    }
    close(q->fd);
    task_mutex_destroy(&q->lock);
    free(q);
}
