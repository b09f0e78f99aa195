/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handover: a connection that one process accepted goes to another, by a Unix socket (SCM_RIGHTS). The
 * receiving end is a listener: listener_new("handover:PATH"), whose listener_accept() returns the connections
 * themselves. The socket has mode 0600: who may connect to it may hand over anything.
 */
#ifndef STREAM_HANDOVER_H
#define STREAM_HANDOVER_H

#include <perdure/error.h>
#include <stdint.h>

/* fd stays the caller's too. errno ENOENT or ECONNREFUSED: nobody listens there. */
bool handover_send(const char *path, int fd, int64_t deadline, Error **errp);
/* control: an accepted connection of the Unix socket, which is closed. -1: nothing came in time. */
int handover_receive(int control, int64_t deadline);

#endif
