/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-rng: the host's random bytes for the guest.
 *
 * Nothing of it waits: while the host's generator is not seeded yet (early in its boot) requests stay in the
 * ring and are looked at again later. A request gets at most REQUEST_MAX bytes, which the specification
 * allows, and a kick serves BATCH of them: a guest that asks for a gigabyte gets it in pieces.
 *
 * There is no state but the ring's. After a takeover the guest reads other bytes than it would have read on
 * the other side; those that it had read are in its RAM.
 */
#include "device/devices.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/task.h"
#include "device/virtio_pci.h"

#define REQUEST_MAX 1024u
#define BATCH       16
#define RETRY_NS    (100 * NS_PER_MS)

struct virtio_rng {
    Device device;
    struct virtio_pci transport;

    /* Not saved. */
    LoopTimer *retry;
    bool failed;           /* told the log already */
    struct vq_chain chain; /* scratch */
};

static struct virtio_rng *from_virtio(struct virtio_device *v)
{
    return (struct virtio_rng *)((char *)v - offsetof(struct virtio_rng, transport.virtio));
}

/* Bytes that the host has now, 0 when it has none. */
static size_t take_entropy(struct virtio_rng *r, void *buf, size_t n)
{
    ssize_t got;

    if (fault_point("rng-not-ready")) {
        got = -1;
        errno = EAGAIN;
    } else {
        got = getrandom(buf, n, GRND_NONBLOCK);
    }
    if (got > 0)
        return (size_t)got;
    if (got < 0 && errno != EAGAIN && errno != EINTR && !r->failed) {
        log_warn("device %s: the host gives no random bytes: %s", r->device.id, strerrordesc_np(errno));
        r->failed = true;
    }
    return 0;
}

/* False: the request is in the ring again, and is tried later. */
static bool serve(struct virtio_rng *r, struct virtqueue *q)
{
    size_t n = r->chain.in_bytes < REQUEST_MAX ? r->chain.in_bytes : REQUEST_MAX;
    uint8_t bytes[REQUEST_MAX];

    n = take_entropy(r, bytes, n);
    if (!n) {
        virtqueue_unpop(q, 1);
        loop_timer_set(r->retry, clock_now() + RETRY_NS);
        return false;
    }
    vq_chain_write(q, &r->chain, 0, bytes, n);
    virtqueue_push(q, r->chain.head, n);
    explicit_bzero(bytes, sizeof(bytes));
    return true;
}

static void rng_kick(struct virtio_device *v, unsigned queue)
{
    struct virtio_rng *r = from_virtio(v);
    struct virtqueue *q = &v->queues[queue];
    unsigned budget = BATCH;

    do {
        while (budget && virtqueue_pop(q, &r->chain)) {
            budget--;
            /* Nothing may be asked of this device but bytes. */
            if (r->chain.out_count) {
                q->broken = true;
                break;
            }
            if (!serve(r, q))
                goto out;
        }
    } while (budget && virtqueue_enable_kicks(q, 0));
    if (!budget)
        virtio_pci_kick_later(&r->transport, queue);
out:
    virtio_queue_done(v, queue);
}

static void try_again(void *opaque)
{
    struct virtio_rng *r = opaque;

    virtio_kick(&r->transport.virtio, 0);
}

static void rng_start(struct virtio_device *v)
{
    /* Chains are popped and pushed within one handler: what is in flight here was so on no side. */
    virtqueue_unpop(&v->queues[0], v->queues[0].inflight_count);
}

/* The timer may still come: it finds a device that does not run. */
static void rng_stop(struct virtio_device *v)
{
    (void)v;
}

static const struct virtio_ops rng_ops = {
    .device_id = VIRTIO_ID_RNG,
    .start = rng_start,
    .stop = rng_stop,
    .kick = rng_kick,
};

/* --- saved state --- */

static bool rng_post_load(void *opaque, int version, Error **errp)
{
    struct virtio_rng *r = opaque;

    (void)version;
    return virtio_pci_post_load(&r->transport, errp);
}

static const VMStateField rng_fields[] = {
    VMSTATE_STRUCT(struct virtio_rng, transport, &virtio_pci_vmstate, 1),
    VMSTATE_END,
};
static const VMStateDescription rng_vmstate = {.name = "virtio-rng",
                                               .version = 1,
                                               .minimum_version = 1,
                                               .fields = rng_fields,
                                               .post_load = rng_post_load};

/* --- device --- */

static void rng_reset(Device *d)
{
    virtio_pci_reset(&((struct virtio_rng *)d)->transport);
}

static void rng_take_over(Device *d)
{
    virtio_pci_take_over(&((struct virtio_rng *)d)->transport);
}

static void rng_destroy(Device *d)
{
    struct virtio_rng *r = (struct virtio_rng *)d;

    perdure_vmstate_unregister(&rng_vmstate, r);
    virtio_pci_destroy(&r->transport);
    loop_timer_free(r->retry);
    free(r);
}

static const struct device_class rng_class = {
    .name = "virtio-rng",
    .reset = rng_reset,
    .take_over = rng_take_over,
    .destroy = rng_destroy,
};

static bool rng_init(struct virtio_rng *r, Error **errp)
{
    r->retry = loop_timer_new(r->device.host->loop, try_again, r);
    if (!r->retry) {
        error_setg(errp, "device %s: out of memory", r->device.id);
        return false;
    }
    if (!virtio_pci_init(&r->transport, r->device.host, errp))
        goto free_timer;
    if (perdure_vmstate_register(&rng_vmstate, (int)r->transport.pci.slot, r, errp))
        return true;
    virtio_pci_destroy(&r->transport);
free_timer:
    loop_timer_free(r->retry);
    return false;
}

Device *virtio_rng_new(struct device_host *h, unsigned slot, Error **errp)
{
    struct virtio_rng *r = calloc(1, sizeof(*r));

    if (!r) {
        error_setg(errp, "device rng: out of memory");
        return NULL;
    }
    r->device = (Device){.class = &rng_class, .id = "rng", .host = h};
    r->transport.virtio.ops = &rng_ops;
    r->transport.virtio.queue_count = 1;
    r->transport.virtio.id = r->device.id;
    r->transport.pci.slot = slot;
    if (rng_init(r, errp))
        return &r->device;
    free(r);
    return NULL;
}
