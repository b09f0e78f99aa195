/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A port without a cable: takes every frame, receives none.
 */
#include "net/net.h"

#include <stdlib.h>

static bool null_send(NetPort *p, const struct iovec *iov, int n)
{
    (void)p, (void)iov, (void)n;
    return true;
}

static size_t null_receive(NetPort *p, void *buf, size_t size)
{
    (void)p, (void)buf, (void)size;
    return 0;
}

static bool null_set_offload(NetPort *p, uint64_t guest_features, Error **errp)
{
    (void)p, (void)guest_features, (void)errp;
    return true;
}

static int null_poll_fd(NetPort *p)
{
    (void)p;
    return -1;
}

static void null_close(NetPort *p)
{
    free(p);
}

static const struct net_port_ops null_ops = {
    .send = null_send,
    .receive = null_receive,
    .set_offload = null_set_offload,
    .poll_fd = null_poll_fd,
    .close = null_close,
};

NetPort *net_null_open(const char *id)
{
    NetPort *p = calloc(1, sizeof(*p));

    if (p)
        *p = (NetPort){.ops = &null_ops, .id = id};
    return p;
}
