/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/console.h"
#include "base/task.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#define PATIENCE_MS 200  /* how long a peer that stopped reading is waited for, once */
#define PIECE       4096 /* what poll() promises to take of a pipe */

struct Console {
    Loop *loop;
    Device *serial;
    struct task_mutex lock; /* of out: the engine writes while the loop accepts; after the loop lock */
    int in, out, listener;  /* -1: none */
    bool owns_out, stuck;
    char path[108];
    struct termios saved; /* of a terminal */
    bool raw;
    uint8_t typed[256];
    size_t typed_at, typed_count;
};

static bool is_socket(const Console *c)
{
    return c->listener >= 0;
}

/* A terminal gives up single keys; signals (Ctrl-C) stay with the monitor. */
static void make_raw(Console *c)
{
    struct termios t;

    if (tcgetattr(STDIN_FILENO, &c->saved))
        return;
    t = c->saved;
    t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    t.c_iflag &= ~(tcflag_t)ICRNL;
    c->raw = !tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

static bool open_file(Console *c, const char *path, Error **errp)
{
    c->out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    c->owns_out = true;
    if (c->out >= 0)
        return true;
    error_setg_errno(errp, errno, "--console file:%s", path);
    return false;
}

static bool open_socket(Console *c, const char *path, Error **errp)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(addr.sun_path)) {
        error_setg(errp, "--console unix:%s: a socket's path has at most %zu bytes", path,
                   sizeof(addr.sun_path) - 1);
        return false;
    }
    memcpy(addr.sun_path, path, strlen(path) + 1);
    unlink(path);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&addr, sizeof(addr)) ||
        listen(c->listener, 1)) {
        error_setg_errno(errp, errno, "--console unix:%s", path);
        return false;
    }
    c->owns_out = true;
    memcpy(c->path, addr.sun_path, sizeof(c->path));
    return true;
}

static bool open_spec(Console *c, const char *spec, Error **errp)
{
    if (!strcmp(spec, "stdio")) {
        c->in = STDIN_FILENO;
        c->out = STDOUT_FILENO;
        if (isatty(STDIN_FILENO))
            make_raw(c);
        return true;
    }
    if (!strncmp(spec, "file:", 5))
        return open_file(c, spec + 5, errp);
    if (!strncmp(spec, "unix:", 5))
        return open_socket(c, spec + 5, errp);
    if (!strcmp(spec, "null") || !*spec)
        return true;
    error_setg(errp, "--console %s: stdio, file:PATH, unix:PATH or null", spec);
    return false;
}

Console *console_new(const char *spec, Loop *loop, Error **errp)
{
    Console *c = calloc(1, sizeof(*c));

    if (!c) {
        error_setg_errno(errp, ENOMEM, "console");
        return NULL;
    }
    c->loop = loop;
    c->in = c->out = c->listener = -1;
    task_mutex_init(&c->lock);
    if (open_spec(c, spec, errp))
        return c;
    console_free(c);
    return NULL;
}

void console_detach(Console *c)
{
    if (!c->serial)
        return;
    serial_on_room(c->serial, NULL, NULL);
    if (c->in >= 0)
        loop_remove_fd(c->loop, c->in);
    if (is_socket(c))
        loop_remove_fd(c->loop, c->listener);
    c->serial = NULL;
    c->in = -1;
}

void console_free(Console *c)
{
    if (!c)
        return;
    console_detach(c);
    if (c->raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &c->saved);
    if (c->owns_out && c->out >= 0)
        close(c->out);
    if (c->listener >= 0)
        close(c->listener);
    if (c->path[0])
        unlink(c->path);
    task_mutex_destroy(&c->lock);
    free(c);
}

/* --- output --- */

static size_t write_piece(Console *c, const uint8_t *p, size_t n)
{
    struct pollfd poll_out = {.fd = c->out, .events = POLLOUT};
    ssize_t done;

    if (poll(&poll_out, 1, c->stuck ? 0 : PATIENCE_MS) != 1 || !(poll_out.revents & POLLOUT)) {
        c->stuck = true;
        return 0;
    }
    c->stuck = false;
    if (n > PIECE)
        n = PIECE;
    done = is_socket(c) ? send(c->out, p, n, MSG_DONTWAIT | MSG_NOSIGNAL) : write(c->out, p, n);
    return done > 0 ? (size_t)done : 0;
}

void console_write(void *opaque, const void *buf, size_t n)
{
    Console *c = opaque;
    const uint8_t *p = buf;
    size_t done = 1;

    task_lock(&c->lock);
    while (c->out >= 0 && n && done) {
        done = write_piece(c, p, n);
        p += done;
        n -= done;
    }
    task_unlock(&c->lock);
}

/* --- input: everything below on the loop, its lock held --- */

/* Of the descriptor that is read while nothing of it can be taken. Of a socket one thing is still of
 * interest, that the client is gone (EPOLLHUP, which always comes); EPOLLPRI never does. */
static uint32_t closed_events(const Console *c)
{
    return is_socket(c) ? EPOLLPRI : 0;
}

static void feed(Console *c)
{
    size_t taken = serial_input(c->serial, c->typed + c->typed_at, c->typed_count);

    c->typed_at += taken;
    c->typed_count -= taken;
    if (c->in >= 0)
        loop_set_fd_events(c->loop, c->in, c->typed_count ? closed_events(c) : EPOLLIN);
}

static void on_room(void *opaque)
{
    Console *c = opaque;

    if (c->typed_count)
        feed(c);
}

static void end_input(Console *c)
{
    loop_remove_fd(c->loop, c->in);
    if (is_socket(c)) {
        task_lock(&c->lock);
        close(c->out);
        c->out = -1;
        task_unlock(&c->lock);
        loop_set_fd_events(c->loop, c->listener, EPOLLIN);
    }
    c->in = -1;
}

static void on_input(void *opaque, uint32_t events)
{
    Console *c = opaque;
    bool gone = events & (EPOLLHUP | EPOLLERR);
    ssize_t n = -1;

    errno = EAGAIN;
    if (!c->typed_count)
        n = read(c->in, c->typed, sizeof(c->typed));
    if (n > 0) {
        c->typed_at = 0;
        c->typed_count = (size_t)n;
        feed(c);
        return;
    }
    if (n == 0 && is_socket(c) && !gone) /* it types no more, but may listen on */
        loop_set_fd_events(c->loop, c->in, closed_events(c));
    else if (n == 0 || gone || (errno != EAGAIN && errno != EINTR))
        end_input(c);
}

static void on_client(void *opaque, uint32_t events)
{
    Console *c = opaque;
    int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd < 0)
        return;
    if (!loop_add_fd(c->loop, fd, EPOLLIN, on_input, c, NULL)) {
        close(fd);
        return;
    }
    loop_set_fd_events(c->loop, c->listener, 0); /* the next one waits until this one is gone */
    c->in = fd;
    c->typed_count = 0;
    task_lock(&c->lock);
    c->out = fd;
    c->stuck = false;
    task_unlock(&c->lock);
}

bool console_attach(Console *c, Device *serial, Error **errp)
{
    Error *err = NULL;

    if (is_socket(c) && !loop_add_fd(c->loop, c->listener, EPOLLIN, on_client, c, errp))
        return false;
    c->serial = serial;
    serial_on_room(serial, on_room, c);
    if (c->in >= 0 && !loop_add_fd(c->loop, c->in, EPOLLIN, on_input, c, &err)) {
        c->in = -1; /* a plain file cannot be waited for: a console without a keyboard */
        error_free(err);
    }
    return true;
}
