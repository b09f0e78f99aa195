/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptors of things that take the kernel long to take apart (guest RAM, the KVM machine) stand above all
 * others: when a process is killed, its descriptors close in ascending order, and the peer should hear of it
 * before the memory is gone, not after.
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
