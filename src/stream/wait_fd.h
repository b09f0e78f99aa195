/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting for a descriptor with a deadline, so that another task can end the wait. Inside of the descriptor
 * channels and listeners.
 */
#ifndef STREAM_WAIT_FD_H
#define STREAM_WAIT_FD_H

#include <stdbool.h>
#include <stdint.h>

/* A flag that wakes whoever waits. Once raised it stays raised. */
struct canceller {
    int eventfd; /* -1: there was no descriptor left; waits on sockets still end by shutdown(2) */
    bool raised;
};

void canceller_init(struct canceller *c);
void canceller_raise(struct canceller *c); /* any task, any number of times */
bool canceller_raised(const struct canceller *c);
void canceller_close(struct canceller *c);

/* 0: one of events (POLLIN, POLLOUT) or an error or hang-up is there; ETIMEDOUT; ECANCELED; another errno of
 * ppoll(2). c may be NULL. */
int wait_fd(int fd, short events, int64_t deadline, const struct canceller *c);

#endif
