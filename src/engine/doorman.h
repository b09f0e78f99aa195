/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Doorman: lets the connections of a listener in, each authenticated on a task of its own, so that one that
 * stays silent (a port scan, a client of something else) keeps nobody else out.
 *
 *     d = doorman_new(listener, authenticate, ts, &err);
 *     while ((ch = doorman_accept(d, NULL)))     // one task
 *         serve(ch);
 *     doorman_free(d);                           // after listener_shutdown()
 */
#ifndef ENGINE_DOORMAN_H
#define ENGINE_DOORMAN_H

#include "stream/channel.h"

typedef struct Doorman Doorman;

/* On a task of the doorman's, several at once: takes ch; the channel to use, or NULL with errp. Must end
 * within bounds. */
typedef Channel *doorman_check(void *opaque, Channel *ch, Error **errp);

/* listener is borrowed. */
Doorman *doorman_new(Listener *listener, doorman_check *check, void *opaque, Error **errp);
/* The next one that passed; those that did not are logged. NULL with errp: the listener was shut down. */
Channel *doorman_accept(Doorman *d, Error **errp);
/* Waits for checks under way. NULL is fine. */
void doorman_free(Doorman *d);

#endif
