/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "net/net.h"

#include <assert.h>

/* An operation that a port does not have is the next port's. */
static NetPort *port_with(NetPort *p, bool has(const NetPort *p))
{
    while (!has(p)) {
        p = p->next;
        assert(p);
    }
    return p;
}

static bool has_send(const NetPort *p)
{
    return p->ops->send;
}

static bool has_receive(const NetPort *p)
{
    return p->ops->receive;
}

static bool has_set_offload(const NetPort *p)
{
    return p->ops->set_offload;
}

static bool has_poll_fd(const NetPort *p)
{
    return p->ops->poll_fd;
}

bool net_send(NetPort *p, const struct iovec *iov, int n)
{
    p = port_with(p, has_send);
    return p->ops->send(p, iov, n);
}

size_t net_receive(NetPort *p, void *buf, size_t size)
{
    size_t n;

    p = port_with(p, has_receive);
    n = p->ops->receive(p, buf, size);
    assert(n <= size);
    return n;
}

bool net_set_offload(NetPort *p, uint64_t guest_features, Error **errp)
{
    p = port_with(p, has_set_offload);
    return p->ops->set_offload(p, guest_features, errp);
}

int net_poll_fd(NetPort *p)
{
    p = port_with(p, has_poll_fd);
    return p->ops->poll_fd(p);
}

void net_close(NetPort *p)
{
    if (p)
        p->ops->close(p);
}
