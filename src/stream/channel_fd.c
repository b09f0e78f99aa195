/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A channel over a descriptor. It is non-blocking: every call tries first and waits only when the kernel says
 * EAGAIN, for the descriptor, the deadline or the canceller, whichever comes first.
 */
#include "stream/channel.h"
#include "stream/wait_fd.h"
#include "base/task.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_IOV 64 /* in one system call */

struct fd_channel {
    Channel ch;
    int fd;
    bool is_socket;
    bool borrowed;
    struct canceller cancel;
};

static void fail(struct fd_channel *f, int errnum, const char *what, Error **errp)
{
    if (canceller_raised(&f->cancel))
        errnum = ECANCELED; /* whatever the kernel called it */
    if (errnum == ETIMEDOUT)
        error_setg_errno(errp, errnum, "%s did not answer in time", f->ch.peer);
    else if (errnum == ECANCELED)
        error_setg_errno(errp, errnum, "the connection to %s was shut down here", f->ch.peer);
    else
        error_setg_errno(errp, errnum, "cannot %s %s", what, f->ch.peer);
}

/* After a call that failed with errnum: 0 when it should be tried again. */
static int wait_after(struct fd_channel *f, int errnum, short events, int64_t deadline)
{
    if (errnum == EINTR)
        return 0;
    if (errnum != EAGAIN)
        return errnum;
    return wait_fd(f->fd, events, deadline, &f->cancel);
}

static ssize_t fd_read(Channel *ch, void *buf, size_t n, int64_t deadline, Error **errp)
{
    struct fd_channel *f = (struct fd_channel *)ch;
    int errnum;

    do {
        if (canceller_raised(&f->cancel)) {
            errnum = ECANCELED;
            break;
        }
        ssize_t r = read(f->fd, buf, n);

        /* A shutdown of ours ends the read like one of the peer. */
        if (r > 0 || (r == 0 && !canceller_raised(&f->cancel)))
            return r;
        errnum = r == 0 ? ECANCELED : wait_after(f, errno, POLLIN, deadline);
    } while (!errnum);
    fail(f, errnum, "read from", errp);
    return -1;
}

static ssize_t send_some(struct fd_channel *f, struct iovec *iov, int n)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};

    return f->is_socket ? sendmsg(f->fd, &msg, MSG_NOSIGNAL) : writev(f->fd, iov, n);
}

/* Sends iov, which it uses up. */
static int send_all(struct fd_channel *f, struct iovec *iov, int n, int64_t deadline)
{
    int errnum = 0;

    for (;;) {
        while (n && !iov->iov_len) {
            iov++;
            n--;
        }
        if (!n)
            return 0;
        if (canceller_raised(&f->cancel))
            return ECANCELED;
        ssize_t r = send_some(f, iov, n);

        if (r < 0)
            errnum = wait_after(f, errno, POLLOUT, deadline);
        if (errnum)
            return errnum;
        for (int i = 0; r > 0 && i < n; i++) {
            size_t sent = (size_t)r < iov[i].iov_len ? (size_t)r : iov[i].iov_len;

            iov[i].iov_base = (uint8_t *)iov[i].iov_base + sent;
            iov[i].iov_len -= sent;
            r -= (ssize_t)sent;
        }
    }
}

static bool fd_write(Channel *ch, const struct iovec *iov, int n, int64_t deadline, Error **errp)
{
    struct fd_channel *f = (struct fd_channel *)ch;

    for (int done = 0; done < n;) {
        struct iovec part[MAX_IOV];
        int count = 0, errnum;

        while (count < MAX_IOV && done < n)
            part[count++] = iov[done++];
        errnum = send_all(f, part, count, deadline);
        if (errnum) {
            fail(f, errnum, "write to", errp);
            return false;
        }
    }
    return true;
}

static void fd_shutdown(Channel *ch)
{
    struct fd_channel *f = (struct fd_channel *)ch;

    canceller_raise(&f->cancel);
    if (f->is_socket)
        shutdown(f->fd, SHUT_RDWR); /* the peer learns of it at once, too */
}

static void fd_close(Channel *ch)
{
    struct fd_channel *f = (struct fd_channel *)ch;

    canceller_close(&f->cancel);
    if (!f->borrowed)
        close(f->fd);
    free(f);
}

static const struct channel_ops fd_ops = {
    .read = fd_read,
    .write = fd_write,
    .shutdown = fd_shutdown,
    .close = fd_close,
};

Channel *channel_fd_borrow(int fd, const char *peer)
{
    struct fd_channel *f = calloc(1, sizeof(*f));
    int type;

    if (!f)
        return NULL;
    f->ch.ops = &fd_ops;
    f->ch.deadline = TIME_NEVER;
    snprintf(f->ch.peer, sizeof(f->ch.peer), "%s", peer);
    f->fd = fd;
    f->is_socket = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof(type)}) == 0;
    f->borrowed = true;
    canceller_init(&f->cancel);
    return &f->ch;
}

int channel_fd_get(const Channel *ch)
{
    return ((const struct fd_channel *)ch)->fd;
}

Channel *channel_fd_new(int fd, const char *peer)
{
    Channel *ch = channel_fd_borrow(fd, peer);
    int one = 1;

    if (!ch) {
        close(fd);
        return NULL;
    }
    ((struct fd_channel *)ch)->borrowed = false;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    /* What waits for an answer must not wait for more to send. Not a TCP socket: refused, no matter. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return ch;
}
