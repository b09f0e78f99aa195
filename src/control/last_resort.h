/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Last resort: once the process has begun to end it ends, whatever hangs (a file system, a peer, a command
 * under way): at a second signal at once, and LAST_RESORT_LIMIT after the state was saved in any case. What
 * is not done by then is left undone. That is safe: a process that is gone is a dead side, and everything
 * that it held goes with it.
 *
 * An end that a signal began has had its first. Any other (the guest powered off, `quit`) has not: a service manager
 * that has asked for it in its way sends SIGTERM as well.
 *
 *     r = last_resort_new(signal_fd, by_signal, name);   // the end begins: saving the state may take its time
 *     last_resort_limit(r);                              // from here on there is a limit
 *     last_resort_free(r);                               // it has ended in order
 */
#ifndef CONTROL_LAST_RESORT_H
#define CONTROL_LAST_RESORT_H

#include <perdure/error.h>

#define LAST_RESORT_LIMIT_MS 30000

typedef struct LastResort LastResort;

/* signal_fd: a signalfd of the signals that end a process, nonblocking; borrowed. by_signal: one of them was the
 * cause. NULL: no memory or no task, and then no last resort. */
LastResort *last_resort_new(int signal_fd, bool by_signal, const char *name);
void last_resort_limit(LastResort *r); /* NULL is fine, here and below */
void last_resort_free(LastResort *r);

#endif
