/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtqueue: the device's side of a split ring (virtio 1.x), on a ring that may be hostile.
 *
 * A chain is popped, its buffers are used, its head is pushed with the number of bytes written. Heads popped
 * and not pushed are in flight: part of the state, in the order in which they were popped, so that a side
 * that takes over can issue them again (virtqueue_refetch). virtqueue_unpop() gives back the last ones as if
 * they had never been popped.
 *
 *     while (virtqueue_pop(q, &chain)) {
 *         n = vq_chain_write(q, &chain, 0, data, size);
 *         virtqueue_push(q, chain.head, n);
 *     }
 *     if (q->broken) ...                          // the guest did what no driver does: device needs reset
 *     if (virtqueue_should_notify(q)) ...
 *
 * Every index, length and address is checked and read once; a ring that breaks the rules sets broken, and
 * from then on the queue is empty. Chains point into guest RAM, which the guest may change at any time: what
 * is decided upon is copied first.
 *
 * Rule of dirty pages: data is written and marked, then the used element, then the index, each marked; all
 * under the loop lock, which a pause waits for.
 */
#ifndef DEVICE_VIRTQUEUE_H
#define DEVICE_VIRTQUEUE_H

#include <linux/virtio_ring.h>
#include <sys/uio.h>

#include "guest/memory.h"
#include <perdure/vmstate.h>

#define VIRTQUEUE_SIZE_MAX 256u
/* Descriptors of one chain, those of an indirect table included. */
#define VIRTQUEUE_CHAIN_MAX 256u
#define VIRTQUEUE_NO_VECTOR 0xffffu

struct vq_chain {
    uint16_t head;
    unsigned out_count, in_count;
    size_t out_bytes, in_bytes;
    struct iovec
        iov[VIRTQUEUE_CHAIN_MAX]; /* what the guest wrote (out), then what the device may write (in) */
    uint64_t gpa[VIRTQUEUE_CHAIN_MAX];
};

struct virtqueue {
    /* set by the owner */
    GuestMemory *memory;
    bool event_idx, indirect; /* negotiated */
    bool broken;

    /* set by the guest; saved */
    bool enabled;
    uint16_t size; /* a power of two, at most VIRTQUEUE_SIZE_MAX */
    uint16_t vector;
    uint64_t desc_gpa, avail_gpa, used_gpa;

    /* private; saved */
    uint16_t last_avail; /* next entry of the available ring to pop */
    uint16_t used_idx;   /* our used index */
    uint16_t signalled;  /* used index when should_notify last answered */
    uint32_t inflight_count;
    uint16_t inflight[VIRTQUEUE_SIZE_MAX];

    /* private; derived */
    uint32_t filled; /* used elements written and not yet shown */
    const struct vring_desc *desc;
    const struct vring_avail *avail;
    struct vring_used *used;
};

void virtqueue_reset(struct virtqueue *q);
/* Finds the rings in RAM; the queue can be used after it. False: they are not all inside, or not aligned. */
bool virtqueue_map(struct virtqueue *q);

/* False: empty, or broken. */
bool virtqueue_pop(struct virtqueue *q, struct vq_chain *c);
/* The i-th head in flight again. False: broken. */
bool virtqueue_refetch(struct virtqueue *q, uint32_t i, struct vq_chain *c);
void virtqueue_unpop(struct virtqueue *q, unsigned n);
void virtqueue_push(struct virtqueue *q, uint16_t head, uint32_t written);
/* push in two steps, for several heads that must show at once. */
void virtqueue_fill(struct virtqueue *q, uint16_t head, uint32_t written);
void virtqueue_flush(struct virtqueue *q);

/* Asks for a kick at the first entry after those popped and waiting more, which are there and not enough;
 * true: it is there already, look again. */
bool virtqueue_enable_kicks(struct virtqueue *q, unsigned waiting);
/* The guest wants an interrupt for what was pushed since the last call. */
bool virtqueue_should_notify(struct virtqueue *q);

/* A chain that outlives the next pop. Only what it has is copied: a chain is large. */
void vq_chain_copy(struct vq_chain *to, const struct vq_chain *from);

/* Copy from the out part, to the in part, from offset on: the bytes copied, fewer at the end. */
size_t vq_chain_read(const struct vq_chain *c, size_t offset, void *buf, size_t n);
size_t vq_chain_write(struct virtqueue *q, const struct vq_chain *c, size_t offset, const void *buf,
                      size_t n);

extern const VMStateDescription virtqueue_vmstate;
/* vectors: how many the device has. NULL, or what is wrong. */
const char *virtqueue_post_load(struct virtqueue *q, unsigned vectors);

#endif
