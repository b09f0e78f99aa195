/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Event queue: what the machine and the engine have to tell, until the main task broadcasts it. Putting never
 * waits for anybody; when it is full the newest events are dropped, and their number is told.
 */
#ifndef CONTROL_EVENT_QUEUE_H
#define CONTROL_EVENT_QUEUE_H

#include <jansson.h>
#include <perdure/error.h>

typedef struct EventQueue EventQueue;

EventQueue *event_queue_new(Error **errp);
/* data is taken; NULL is fine. Any task. */
void event_queue_put(EventQueue *q, const char *event, json_t *data);
/* The next event: fn gets it (data borrowed, may be NULL). */
void event_queue_drain(EventQueue *q, void (*fn)(void *opaque, const char *event, json_t *data),
                       void *opaque);
/* Readable when there is something to drain, or after event_queue_wake(). */
int event_queue_fd(const EventQueue *q);
void event_queue_wake(EventQueue *q);
void event_queue_free(EventQueue *q);

#endif
