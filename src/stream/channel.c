/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream/channel.h"

#include <assert.h>
#include <errno.h>

/* The reader's task and the writer's may both look while a third one sets it. */
static int64_t deadline_of(Channel *ch)
{
    return __atomic_load_n(&ch->deadline, __ATOMIC_RELAXED);
}

void channel_set_deadline(Channel *ch, int64_t deadline)
{
    __atomic_store_n(&ch->deadline, deadline, __ATOMIC_RELAXED);
}

ssize_t channel_read(Channel *ch, void *buf, size_t n, Error **errp)
{
    assert(n > 0); /* 0 would look like the end of the stream */
    return ch->ops->read(ch, buf, n, deadline_of(ch), errp);
}

bool channel_read_full(Channel *ch, void *buf, size_t n, Error **errp)
{
    uint8_t *p = buf;

    while (n) {
        ssize_t r = channel_read(ch, p, n, errp);

        if (r < 0)
            return false;
        if (r == 0) {
            error_setg_errno(errp, ECONNRESET, "%s closed the connection", ch->peer);
            return false;
        }
        p += r;
        n -= (size_t)r;
    }
    return true;
}

bool channel_write(Channel *ch, const void *buf, size_t n, Error **errp)
{
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = n};

    return channel_writev(ch, &iov, 1, errp);
}

bool channel_writev(Channel *ch, const struct iovec *iov, int n, Error **errp)
{
    return ch->ops->write(ch, iov, n, deadline_of(ch), errp);
}

void channel_shutdown(Channel *ch)
{
    ch->ops->shutdown(ch);
}

void channel_close(Channel *ch)
{
    if (ch)
        ch->ops->close(ch);
}
