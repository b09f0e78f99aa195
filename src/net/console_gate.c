/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "net/console_gate.h"
#include "net/held_queue.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

struct ConsoleGate {
    CheckpointDevice device;
    struct held_queue *queue;
    atomic_bool draining; /* until the rest of the queue is written, nothing passes: the order stays */
    void (*write)(void *opaque, const void *buf, size_t n);
    size_t (*room)(void *opaque); /* NULL: no end of it */
    void *write_opaque;
    atomic_size_t held; /* bytes in the queue, or on their way out of it */
    void (*writable)(void *opaque);
    void *writable_opaque;
    uint8_t *message; /* HELD_MESSAGE_MAX: the engine's task's */
};

static atomic_bool unsafe_passthrough;

void console_gate_set_unsafe_passthrough(bool on)
{
    atomic_store(&unsafe_passthrough, on);
}

void console_gate_set_room(ConsoleGate *g, size_t (*room)(void *opaque))
{
    g->room = room;
}

/* How many of n bytes find a place at the end, after those that are held. */
static size_t fitting(ConsoleGate *g, size_t n)
{
    size_t room = g->room ? g->room(g->write_opaque) : SIZE_MAX, held = atomic_load(&g->held);

    if (room <= held)
        return 0;
    return n < room - held ? n : room - held;
}

size_t console_gate_put(ConsoleGate *g, const void *buf, size_t n)
{
    bool holding = held_queue_holding(g->queue) && !atomic_load(&unsafe_passthrough);
    struct iovec iov = {(void *)buf, fitting(g, n)};
    enum held_answer answer;

    if (holding) {
        size_t room = held_queue_room(g->queue);
        if (iov.iov_len > room)
            iov.iov_len = room;
        if (!iov.iov_len)
            return 0;
        atomic_fetch_add(&g->held, iov.iov_len);
        answer = held_queue_put(g->queue, &iov, 1);
        if (answer == HELD_TAKEN_FIRST)
            checkpoint_device_output_waiting(&g->device);
        if (answer == HELD_TAKEN || answer == HELD_TAKEN_FIRST)
            return iov.iov_len;
        atomic_fetch_sub(&g->held, iov.iov_len);
        if (answer == HELD_FULL)
            return 0;
    }
    if (atomic_load(&g->draining) || !iov.iov_len)
        return 0;
    g->write(g->write_opaque, buf, iov.iov_len);
    return iov.iov_len;
}

void console_gate_on_writable(ConsoleGate *g, void (*writable)(void *opaque), void *opaque)
{
    g->writable = writable;
    g->writable_opaque = opaque;
}

static void release(ConsoleGate *g, uint64_t epoch)
{
    size_t n;

    while ((n = held_queue_take(g->queue, epoch, g->message))) {
        g->write(g->write_opaque, g->message, n);
        atomic_fetch_sub(&g->held, n);
    }
    if (g->writable)
        g->writable(g->writable_opaque);
}

static void device_setup(CheckpointDevice *dev)
{
    ConsoleGate *g = dev->opaque;

    held_queue_hold(g->queue);
    checkpoint_device_setup_done(dev, CHECKPOINT_DEVICE_READY, NULL);
}

static bool device_postsuspend(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    ConsoleGate *g = dev->opaque;

    return held_queue_close_epoch(g->queue, epoch, errp);
}

static bool device_commit(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    ConsoleGate *g = dev->opaque;

    if (!held_queue_may_release(g->queue, epoch, errp))
        return false;
    release(g, epoch);
    return true;
}

static void device_teardown(CheckpointDevice *dev, bool discard)
{
    ConsoleGate *g = dev->opaque;

    atomic_store(&g->draining, true);
    held_queue_pass(g->queue, discard);
    if (discard)
        atomic_store(&g->held, 0);
    release(g, HELD_EVERYTHING);
    atomic_store(&g->draining, false);
    if (g->writable)
        g->writable(g->writable_opaque);
}

static const CheckpointDeviceOps device_ops = {
    .name = "console gate",
    .kind = CHECKPOINT_DEVICE_CONSOLE,
    .setup = device_setup,
    .teardown = device_teardown,
    .postsuspend = device_postsuspend,
    .commit = device_commit,
};

void console_gate_register(void)
{
    checkpoint_device_register_ops(&device_ops);
}

ConsoleGate *console_gate_new(const char *id, void (*write)(void *opaque, const void *buf, size_t n),
                              void *opaque, size_t limit, Error **errp)
{
    ConsoleGate *g = calloc(1, sizeof(*g));

    if (!g || !(g->message = malloc(HELD_MESSAGE_MAX))) {
        error_setg_errno(errp, ENOMEM, "console gate");
        free(g);
        return NULL;
    }
    g->queue = held_queue_new(limit, errp);
    g->write = write;
    g->write_opaque = opaque;
    g->device = (CheckpointDevice){.id = id, .kind = CHECKPOINT_DEVICE_CONSOLE, .opaque = g};
    if (!g->queue || !checkpoint_device_add(&g->device, errp)) {
        held_queue_free(g->queue);
        free(g->message);
        free(g);
        return NULL;
    }
    return g;
}

void console_gate_free(ConsoleGate *g)
{
    if (!g)
        return;
    checkpoint_device_remove(&g->device);
    held_queue_free(g->queue);
    free(g->message);
    free(g);
}
