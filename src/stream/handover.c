/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream/handover.h"
#include "base/fd.h"
#include "stream/wait_fd.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static int send_fd(int control, int fd)
{
    union control c = {.bytes = {0}};
    struct iovec byte = {.iov_base = (char[]){0}, .iov_len = 1};
    struct msghdr msg = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = c.bytes, .msg_controllen = sizeof(c.bytes)};
    struct cmsghdr *h = CMSG_FIRSTHDR(&msg);

    *h = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(h), &fd, sizeof(fd));
    return sendmsg(control, &msg, MSG_NOSIGNAL) == 1 ? 0 : errno;
}

/* Non-blocking: a receiver whose queue is full is one that is in trouble. */
static int try_send(const struct sockaddr_un *to, int fd, int64_t deadline)
{
    int control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), errnum = 0;

    if (control < 0 || connect(control, (const struct sockaddr *)to, sizeof(*to)) < 0)
        errnum = errno;
    if (!errnum)
        errnum = wait_fd(control, POLLOUT, deadline, NULL);
    if (!errnum)
        errnum = send_fd(control, fd);
    if (control >= 0)
        close(control);
    return errnum;
}

bool handover_send(const char *path, int fd, int64_t deadline, Error **errp)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int errnum = ENAMETOOLONG;

    if (strlen(path) < sizeof(to.sun_path)) {
        memcpy(to.sun_path, path, strlen(path) + 1);
        errnum = try_send(&to, fd, deadline);
    }
    if (errnum)
        error_setg_errno(errp, errnum, "cannot hand a connection over at %s", path);
    return !errnum;
}

/* The first descriptor of a message; others, which nobody should have sent, are closed. */
static int pick_fd(struct msghdr *msg)
{
    int picked = -1;

    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
            if (picked < 0)
                picked = fd;
            else
                close(fd);
        }
    }
    return picked;
}

int handover_receive(int control, int64_t deadline)
{
    union control c;
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.bytes, .msg_controllen = sizeof(c.bytes)};
    int fd = -1;

    if (!wait_fd(control, POLLIN, deadline, NULL) &&
        recvmsg(control, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) == 1)
        fd = fd_move_high(pick_fd(&msg));
    close(control);
    return fd;
}
