/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "net/output_buffer.h"
#include "net/held_queue.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

struct output_buffer {
    NetPort port; /* first: a NetPort is what the NIC holds */
    CheckpointDevice device;
    struct held_queue *queue;
    /* Keeps the order at the change from holding to passing: until the rest of the queue is sent, nothing
     * passes. */
    atomic_bool draining;
    uint8_t *message; /* HELD_MESSAGE_MAX: one on its way out, the engine's task's */
};

static atomic_bool unsafe_passthrough;

void net_output_buffer_set_unsafe_passthrough(bool on)
{
    atomic_store(&unsafe_passthrough, on);
}

static bool buffer_send(NetPort *p, const struct iovec *iov, int n)
{
    struct output_buffer *b = (struct output_buffer *)p;

    if (atomic_load(&unsafe_passthrough))
        return net_send(p->next, iov, n);
    switch (held_queue_put(b->queue, iov, n)) {
    case HELD_NOT_HOLDING:
        return !atomic_load(&b->draining) && net_send(p->next, iov, n);
    case HELD_TAKEN_FIRST:
        checkpoint_device_output_waiting(&b->device);
        return true;
    case HELD_TAKEN:
        return true;
    case HELD_FULL:
        break;
    }
    return false;
}

static void buffer_free(struct output_buffer *b)
{
    held_queue_free(b->queue);
    free(b->message);
    free(b);
}

static void buffer_close(NetPort *p)
{
    struct output_buffer *b = (struct output_buffer *)p;

    checkpoint_device_remove(&b->device);
    net_close(p->next);
    buffer_free(b);
}

/* What it does not have is the next port's. */
static const struct net_port_ops buffer_ops = {
    .send = buffer_send,
    .close = buffer_close,
};

/* --- as a CheckpointDevice --- */

static void wake_sender(struct output_buffer *b)
{
    if (b->port.writable)
        b->port.writable(b->port.writable_opaque);
}

static void device_setup(CheckpointDevice *dev)
{
    struct output_buffer *b = dev->opaque;

    held_queue_hold(b->queue);
    checkpoint_device_setup_done(dev, CHECKPOINT_DEVICE_READY, NULL);
}

static bool device_postsuspend(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    struct output_buffer *b = dev->opaque;

    return held_queue_close_epoch(b->queue, epoch, errp);
}

/* The port behind takes every frame, or says that it lost it: a frame that it refuses is gone from the queue
 * all the same, since to send it again later would put it out of order. */
static void release(struct output_buffer *b, uint64_t epoch)
{
    struct iovec iov = {.iov_base = b->message};

    while ((iov.iov_len = held_queue_take(b->queue, epoch, b->message)))
        net_send(b->port.next, &iov, 1);
    wake_sender(b);
}

static bool device_commit(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    struct output_buffer *b = dev->opaque;

    if (!held_queue_may_release(b->queue, epoch, errp))
        return false;
    release(b, epoch);
    return true;
}

static void device_teardown(CheckpointDevice *dev, bool discard)
{
    struct output_buffer *b = dev->opaque;

    atomic_store(&b->draining, true);
    held_queue_pass(b->queue, discard);
    release(b, HELD_EVERYTHING);
    atomic_store(&b->draining, false);
    wake_sender(b);
}

static const CheckpointDeviceOps device_ops = {
    .name = "output buffer",
    .kind = CHECKPOINT_DEVICE_NIC,
    .setup = device_setup,
    .teardown = device_teardown,
    .postsuspend = device_postsuspend,
    .commit = device_commit,
};

void net_output_buffer_register(void)
{
    checkpoint_device_register_ops(&device_ops);
}

NetPort *net_output_buffer_new(NetPort *next, size_t limit, Error **errp)
{
    struct output_buffer *b = calloc(1, sizeof(*b));

    if (!b || !(b->message = malloc(HELD_MESSAGE_MAX))) {
        error_setg_errno(errp, ENOMEM, "output buffer of %s", next->id);
        free(b);
        net_close(next);
        return NULL;
    }
    b->queue = held_queue_new(limit, errp);
    b->port = (NetPort){.ops = &buffer_ops, .next = next, .id = next->id};
    b->device = (CheckpointDevice){.id = next->id, .kind = CHECKPOINT_DEVICE_NIC, .opaque = b};
    if (!b->queue || !checkpoint_device_add(&b->device, errp)) {
        buffer_free(b);
        net_close(next);
        return NULL;
    }
    return &b->port;
}
