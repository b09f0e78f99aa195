/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/wake.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void handle_event(void *opaque, uint32_t events)
{
    struct wake *w = opaque;
    eventfd_t count;

    (void)events;
    if (eventfd_read(w->fd, &count) == 0)
        w->fn(w->opaque);
}

bool wake_init(struct wake *w, Loop *loop, void (*fn)(void *opaque), void *opaque, Error **errp)
{
    *w = (struct wake){.loop = loop, .fn = fn, .opaque = opaque};
    w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->fd < 0) {
        error_setg_errno(errp, errno, "cannot create an event descriptor");
        return false;
    }
    if (!loop_add_fd(loop, w->fd, EPOLLIN, handle_event, w, errp)) {
        close(w->fd);
        return false;
    }
    return true;
}

void wake_signal(struct wake *w)
{
    /* It fails only when the counter is full, and then the handler is due anyway. */
    (void)!eventfd_write(w->fd, 1);
}

void wake_destroy(struct wake *w)
{
    loop_remove_fd(w->loop, w->fd);
    close(w->fd);
}
