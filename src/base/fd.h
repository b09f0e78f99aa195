/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptors that must close early stand above all others. When a process is killed, the kernel lets go of
 * its descriptors from the highest number down, and takes long for guest RAM and the KVM machine: the peer
 * should hear of the end before that, not after.
 */
#ifndef BASE_FD_H
#define BASE_FD_H

#include <fcntl.h>
#include <unistd.h>

#define FD_HIGH 512

/* The same description under a number of at least FD_HIGH, close-on-exec; fd itself where there is no such
 * number free. -1 stays -1. */
static inline int fd_move_high(int fd)
{
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FD_HIGH);

    if (high < 0)
        return fd;
    close(fd);
    return high;
}

#endif
