/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/console.h"
#include "base/task.h"
#include "device/wake.h"

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
    const char *option; /* as the user knows it: "--console" */
    struct console_device device;
    bool attached;
    /* of out and kept: the engine writes while the loop accepts; after the loop lock */
    struct task_mutex lock;
    int in, out, listener; /* -1: none */
    bool owns_out, stuck;
    char path[108];
    struct termios saved; /* of a terminal */
    bool raw;
    bool typed_all; /* the client types no more, but may listen on */
    uint8_t typed[PIECE];
    size_t typed_at, typed_count;
    /* Of a channel: what its client has not read yet. */
    uint8_t *kept; /* NULL: a console, which keeps nothing */
    size_t kept_limit, kept_count;
    struct wake flush; /* kept is not empty, and the loop should see to it */
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
    error_setg_errno(errp, errno, "%s file:%s", c->option, path);
    return false;
}

static bool open_socket(Console *c, const char *path, Error **errp)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(addr.sun_path)) {
        error_setg(errp, "%s unix:%s: a socket's path has at most %zu bytes", c->option, path,
                   sizeof(addr.sun_path) - 1);
        return false;
    }
    memcpy(addr.sun_path, path, strlen(path) + 1);
    unlink(path);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&addr, sizeof(addr)) ||
        listen(c->listener, 1)) {
        error_setg_errno(errp, errno, "%s unix:%s", c->option, path);
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
    error_setg(errp, "%s %s: stdio, file:PATH, unix:PATH or null", c->option, spec);
    return false;
}

Console *console_new(const char *option, const char *spec, Loop *loop, Error **errp)
{
    Console *c = calloc(1, sizeof(*c));

    if (!c) {
        error_setg_errno(errp, ENOMEM, "%s", option);
        return NULL;
    }
    c->option = option;
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
    if (!c->attached)
        return;
    if (c->in >= 0)
        loop_remove_fd(c->loop, c->in);
    if (is_socket(c))
        loop_remove_fd(c->loop, c->listener);
    c->attached = false;
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
    if (c->kept)
        wake_destroy(&c->flush);
    free(c->kept);
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

static void write_or_drop(Console *c, const uint8_t *p, size_t n)
{
    size_t done = 1;

    while (n && done) {
        done = write_piece(c, p, n);
        p += done;
        n -= done;
    }
}

/* Lock held. A client that is gone is found out by the loop. */
static void flush_kept(Console *c)
{
    size_t done = 0;
    ssize_t n = 1;

    while (done < c->kept_count && n > 0) {
        n = send(c->out, c->kept + done, c->kept_count - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        done += n > 0 ? (size_t)n : 0;
    }
    c->kept_count -= done;
    memmove(c->kept, c->kept + done, c->kept_count);
}

/* Lock held. The gate asked for room, and gives no more than there is. */
static void keep(Console *c, const uint8_t *p, size_t n)
{
    if (n > c->kept_limit - c->kept_count)
        n = c->kept_limit - c->kept_count;
    memcpy(c->kept + c->kept_count, p, n);
    c->kept_count += n;
    flush_kept(c);
    if (c->kept_count)
        wake_signal(&c->flush);
}

void console_write(void *opaque, const void *buf, size_t n)
{
    Console *c = opaque;

    task_lock(&c->lock);
    if (c->out >= 0 && c->kept)
        keep(c, buf, n);
    else if (c->out >= 0)
        write_or_drop(c, buf, n);
    task_unlock(&c->lock);
}

size_t console_room(void *opaque)
{
    Console *c = opaque;
    size_t room;

    task_lock(&c->lock);
    room = c->out < 0 ? SIZE_MAX : c->kept_limit - c->kept_count;
    task_unlock(&c->lock);
    return room;
}

void console_cut(void *opaque)
{
    Console *c = opaque;

    task_lock(&c->lock);
    if (is_socket(c) && c->out >= 0)
        shutdown(c->out, SHUT_RDWR);
    task_unlock(&c->lock);
}

/* --- input: everything below on the loop, its lock held --- */

/* What is of interest. Of a socket one thing always is, that the client is gone (EPOLLHUP, which always
 * comes); EPOLLPRI never does. */
static void choose_events(Console *c)
{
    uint32_t events = is_socket(c) ? EPOLLPRI : 0;

    if (!c->typed_count && !c->typed_all)
        events |= EPOLLIN;
    task_lock(&c->lock);
    if (c->kept_count)
        events |= EPOLLOUT;
    task_unlock(&c->lock);
    loop_set_fd_events(c->loop, c->in, events);
}

static void feed(Console *c)
{
    size_t taken = c->device.input(c->device.opaque, c->typed + c->typed_at, c->typed_count);

    c->typed_at += taken;
    c->typed_count -= taken;
    if (c->in >= 0)
        choose_events(c);
}

void console_feed(void *opaque)
{
    Console *c = opaque;

    if (c->attached && c->typed_count)
        feed(c);
}

static void drained(Console *c)
{
    if (c->device.drained)
        c->device.drained(c->device.opaque);
}

static void on_flush(void *opaque)
{
    Console *c = opaque;
    size_t before, after;

    if (!c->attached || c->in < 0)
        return;
    task_lock(&c->lock);
    before = c->kept_count;
    flush_kept(c);
    after = c->kept_count;
    task_unlock(&c->lock);
    choose_events(c);
    if (after < before)
        drained(c);
}

bool console_keep(Console *c, size_t limit, Error **errp)
{
    uint8_t *kept = malloc(limit);

    if (!kept || !wake_init(&c->flush, c->loop, on_flush, c, errp)) {
        if (!kept)
            error_setg_errno(errp, ENOMEM, "%s", c->option);
        free(kept);
        return false;
    }
    c->kept = kept;
    c->kept_limit = limit;
    return true;
}

static void tell_opened(Console *c, bool open)
{
    if (c->device.opened)
        c->device.opened(c->device.opaque, open);
}

static void end_client(Console *c)
{
    task_lock(&c->lock);
    close(c->out);
    c->out = -1;
    c->kept_count = 0;
    task_unlock(&c->lock);
    loop_set_fd_events(c->loop, c->listener, EPOLLIN);
    tell_opened(c, false);
    drained(c);
}

static void end_input(Console *c)
{
    loop_remove_fd(c->loop, c->in);
    c->in = -1;
    if (is_socket(c))
        end_client(c);
}

static void on_input(void *opaque, uint32_t events)
{
    Console *c = opaque;
    bool gone = events & (EPOLLHUP | EPOLLERR);
    ssize_t n = -1;

    if (events & EPOLLOUT)
        on_flush(c);
    errno = EAGAIN;
    if (!c->typed_count)
        n = read(c->in, c->typed, sizeof(c->typed));
    if (n > 0) {
        c->typed_at = 0;
        c->typed_count = (size_t)n;
        feed(c);
        return;
    }
    if (n == 0 && is_socket(c) && !gone) {
        c->typed_all = true;
        choose_events(c);
    } else if (n == 0 || gone || (errno != EAGAIN && errno != EINTR)) {
        end_input(c);
    }
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
    c->typed_all = false;
    task_lock(&c->lock);
    c->out = fd;
    c->stuck = false;
    task_unlock(&c->lock);
    tell_opened(c, true);
}

bool console_attach(Console *c, const struct console_device *device, Error **errp)
{
    Error *err = NULL;

    if (is_socket(c) && !loop_add_fd(c->loop, c->listener, EPOLLIN, on_client, c, errp))
        return false;
    c->device = *device;
    c->attached = true;
    if (c->in >= 0 && !loop_add_fd(c->loop, c->in, EPOLLIN, on_input, c, &err)) {
        c->in = -1; /* a plain file cannot be waited for: a console without a keyboard */
        error_free(err);
    }
    return true;
}
