/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream/channel.h"
#include "stream/address.h"
#include "stream/wait_fd.h"
#include "base/fd.h"
#include "base/task.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#define RETRY_NS (10 * NS_PER_MS)

/* 0 or an errno. */
static int connect_until(int fd, const struct sockaddr *sa, socklen_t length, int64_t deadline)
{
    int errnum;

    /* A Unix socket whose backlog is full says EAGAIN, and nothing tells when to come again. */
    while (connect(fd, sa, length) && errno == EAGAIN) {
        if (clock_now() >= deadline)
            return ETIMEDOUT;
        task_sleep_until(clock_now() + RETRY_NS);
        errno = 0;
    }
    if (!errno || errno == EISCONN)
        return 0;
    if (errno != EINPROGRESS && errno != EINTR)
        return errno;
    errnum = wait_fd(fd, POLLOUT, deadline, NULL);
    if (!errnum)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &(socklen_t){sizeof(errnum)});
    return errnum;
}

/* A connected socket; -1 with *ret_errnum. */
static int connect_one(const struct sockaddr *sa, socklen_t length, int64_t deadline, int *ret_errnum)
{
    int fd = fd_move_high(socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));

    if (fd < 0) {
        *ret_errnum = errno;
        return -1;
    }
    errno = 0;
    *ret_errnum = connect_until(fd, sa, length, deadline);
    if (*ret_errnum) {
        close(fd);
        return -1;
    }
    return fd;
}

Channel *channel_connect(const char *address, int64_t deadline, Error **errp)
{
    struct addrinfo *list = NULL;
    int fd = -1, errnum = 0;
    struct address a;
    Channel *ch;

    if (!address_parse(address, &a, errp))
        return NULL;
    if (a.is_unix) {
        fd = connect_one((struct sockaddr *)&a.path, sizeof(a.path), deadline, &errnum);
    } else {
        list = address_resolve(&a, address, 0, errp);
        if (!list)
            return NULL;
        for (struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next)
            fd = connect_one(ai->ai_addr, ai->ai_addrlen, deadline, &errnum);
        freeaddrinfo(list);
    }
    if (fd < 0) {
        error_setg_errno(errp, errnum, "cannot connect to %s", address);
        return NULL;
    }
    ch = channel_fd_new(fd, address);
    if (!ch)
        error_setg_errno(errp, ENOMEM, "cannot connect to %s", address);
    return ch;
}
