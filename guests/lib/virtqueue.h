/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Split virtqueue, driver side. One processor uses a queue at a time. */
#ifndef GUESTS_LIB_VIRTQUEUE_H
#define GUESTS_LIB_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>

#define VQ_SIZE  64
#define VQ_NEXT  1
#define VQ_WRITE 2 /* the device writes */

struct vq_desc {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

/* What the device sees; zeroed and page-aligned by the owner. */
struct vq_memory {
    struct vq_desc desc[VQ_SIZE];
    struct {
        volatile uint16_t flags, index, ring[VQ_SIZE], used_event;
    } avail;
    struct {
        volatile uint16_t flags, index;
        struct {
            volatile uint32_t id, length;
        } ring[VQ_SIZE];
        volatile uint16_t avail_event;
    } used __attribute__((aligned(4)));
} __attribute__((aligned(4096)));

struct virtqueue {
    struct vq_memory *m;
    uintptr_t notify;
    uint16_t number, last_used;
    bool interrupts, event_idx;
};

/* Makes the chain that begins at head available, and kicks the device if it wants that. */
void vq_submit(struct virtqueue *q, uint16_t head);
/* A chain was used and not yet taken. */
bool vq_pending(const struct virtqueue *q);
/* Head of the next used chain, or -1. *ret_length (may be NULL): bytes that the device wrote. */
int vq_take(struct virtqueue *q, uint32_t *ret_length);
/* Asks for an interrupt at the next used chain; true: there is one already (look again, it may never be
 * announced). */
bool vq_arm(struct virtqueue *q);

#endif
