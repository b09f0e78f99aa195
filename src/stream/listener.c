/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/fd.h"
#include "stream/channel.h"
#include "stream/address.h"
#include "stream/handover.h"
#include "stream/wait_fd.h"
#include "base/log.h"
#include "base/task.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG       64
#define NO_FDS_PAUSE  (100 * NS_PER_MS)
#define HANDOVER_TIME (1 * NS_PER_S)

struct Listener {
    int fd;
    bool handover; /* what comes in are connections of others */
    struct canceller cancel;
    char address[128];
    /* Of a Unix one: what to remove at the end, if it is still ours. */
    struct sockaddr_un path;
    dev_t dev;
    ino_t ino;
};

static bool bind_unix(Listener *l, const struct address *a, Error **errp)
{
    struct stat st;

    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* bind() gives the file the socket's mode: at no moment can others connect. */
    if (l->fd < 0 || fchmod(l->fd, 0600) || bind(l->fd, (struct sockaddr *)&a->path, sizeof(a->path)) ||
        listen(l->fd, BACKLOG)) {
        error_setg_errno(errp, errno, "cannot listen on unix:%s", a->path.sun_path);
        return false;
    }
    if (!stat(a->path.sun_path, &st)) {
        l->path = a->path;
        l->dev = st.st_dev;
        l->ino = st.st_ino;
    }
    snprintf(l->address, sizeof(l->address), "unix:%s", a->path.sun_path);
    return true;
}

static int bind_one(const struct addrinfo *ai)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1, errnum;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (!bind(fd, ai->ai_addr, ai->ai_addrlen) && !listen(fd, BACKLOG))
        return fd;
    errnum = errno;
    close(fd);
    errno = errnum;
    return -1;
}

static bool bind_tcp(Listener *l, const struct address *a, const char *text, Error **errp)
{
    struct addrinfo *list = address_resolve(a, text, AI_PASSIVE, errp);
    struct sockaddr_storage bound;
    socklen_t length = sizeof(bound);

    if (!list)
        return false;
    for (struct addrinfo *ai = list; ai && l->fd < 0; ai = ai->ai_next)
        l->fd = bind_one(ai);
    if (l->fd < 0)
        error_setg_errno(errp, errno, "cannot listen on %s", text);
    freeaddrinfo(list);
    if (l->fd < 0)
        return false;
    getsockname(l->fd, (struct sockaddr *)&bound, &length);
    address_format((struct sockaddr *)&bound, length, l->address, sizeof(l->address));
    return true;
}

static bool adopt_fd(Listener *l, const char *number, const char *text, Error **errp)
{
    int listens = 0;
    char *end;
    long fd = strtol(number, &end, 10);

    if (end == number || *end || fd < 0 || fd > INT_MAX ||
        getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &(socklen_t){sizeof(listens)}) || !listens) {
        error_setg(errp, "%s: descriptor %s is no socket that listens", text, number);
        return false;
    }
    l->fd = fd_move_high((int)fd);
    fcntl(l->fd, F_SETFL, fcntl(l->fd, F_GETFL) | O_NONBLOCK);
    snprintf(l->address, sizeof(l->address), "%s", text);
    return true;
}

/* A socket that nobody answers is left from a process that was killed. */
static void remove_stale(const struct sockaddr_un *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0 && connect(fd, (const struct sockaddr *)path, sizeof(*path)) < 0 && errno == ECONNREFUSED)
        unlink(path->sun_path);
    if (fd >= 0)
        close(fd);
}

static bool bind_handover(Listener *l, const char *path, Error **errp)
{
    char text[sizeof("unix:") + sizeof(l->path.sun_path)];
    struct address a;

    if ((size_t)snprintf(text, sizeof(text), "unix:%s", path) >= sizeof(text)) {
        error_setg(errp, "handover:%s: the path is too long", path);
        return false;
    }
    if (!address_parse(text, &a, errp))
        return false;
    remove_stale(&a.path);
    l->handover = true;
    return bind_unix(l, &a, errp);
}

static bool bind_any(Listener *l, const char *address, Error **errp)
{
    struct address a;

    if (!strncmp(address, "fd:", 3))
        return adopt_fd(l, address + 3, address, errp);
    if (!strncmp(address, "handover:", 9))
        return bind_handover(l, address + 9, errp);
    return address_parse(address, &a, errp) &&
           (a.is_unix ? bind_unix(l, &a, errp) : bind_tcp(l, &a, address, errp));
}

Listener *listener_new(const char *address, Error **errp)
{
    Listener *l;

    l = calloc(1, sizeof(*l));
    if (!l) {
        error_setg_errno(errp, ENOMEM, "cannot listen on %s", address);
        return NULL;
    }
    l->fd = -1;
    canceller_init(&l->cancel);
    if (bind_any(l, address, errp))
        return l;
    listener_close(l);
    return NULL;
}

/* Is errnum the trouble of one connection, which is gone, or of the listener? */
static bool passes(int errnum)
{
    switch (errnum) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        log_warn("cannot accept a connection, trying again: %s", strerrordesc_np(errnum));
        task_sleep_until(clock_now() + NO_FDS_PAUSE);
        return true;
    case EAGAIN:
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return true;
    default:
        return false;
    }
}

/* One that was handed over: its peer is its own. */
static int unwrap(int control, struct sockaddr *sa, socklen_t *length)
{
    int fd = handover_receive(control, clock_now() + HANDOVER_TIME);

    /* One whose peer is not known any more must not pass for one of this host. */
    if (fd >= 0 && !getpeername(fd, sa, length))
        return fd;
    if (fd >= 0)
        close(fd);
    errno = EPROTO;
    return -1;
}

static int accept_connection(const Listener *l, struct sockaddr *sa, socklen_t *length)
{
    socklen_t room = *length;
    int fd = fd_move_high(accept4(l->fd, sa, length, SOCK_CLOEXEC | SOCK_NONBLOCK));

    if (fd < 0 || !l->handover)
        return fd;
    *length = room;
    return unwrap(fd, sa, length);
}

Channel *listener_accept(Listener *l, Error **errp)
{
    struct sockaddr_storage sa;
    socklen_t length;
    Channel *ch;
    char peer[sizeof(ch->peer)];
    int fd, errnum;

    for (;;) {
        errnum = wait_fd(l->fd, POLLIN, TIME_NEVER, &l->cancel);
        length = sizeof(sa);
        fd = errnum ? -1 : accept_connection(l, (struct sockaddr *)&sa, &length);
        if (fd >= 0) {
            address_format((struct sockaddr *)&sa, length, peer, sizeof(peer));
            ch = channel_fd_new(fd, peer);
            if (ch)
                return ch;
            errno = ENOMEM;
        }
        errnum = errnum ?: errno;
        if (canceller_raised(&l->cancel)) {
            error_setg_errno(errp, ECANCELED, "no longer listening on %s", l->address);
            return NULL;
        }
        if (!passes(errnum)) {
            error_setg_errno(errp, errnum, "cannot accept connections on %s", l->address);
            return NULL;
        }
    }
}

const char *listener_address(const Listener *l)
{
    return l->address;
}

void listener_shutdown(Listener *l)
{
    canceller_raise(&l->cancel);
    shutdown(l->fd, SHUT_RDWR); /* whoever connects from now on is refused */
}

void listener_close(Listener *l)
{
    struct stat st;

    if (!l)
        return;
    if (l->path.sun_path[0] && !stat(l->path.sun_path, &st) && st.st_dev == l->dev && st.st_ino == l->ino)
        unlink(l->path.sun_path);
    if (l->fd >= 0)
        close(l->fd);
    canceller_close(&l->cancel);
    free(l);
}
