/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/io.h"
#include "lib/virtqueue.h"

static bool wants_kick(const struct virtqueue *q, uint16_t before, uint16_t now)
{
    if (q->event_idx)
        return (uint16_t)(now - q->m->used.avail_event - 1) < (uint16_t)(now - before);
    return !(q->m->used.flags & 1);
}

void vq_submit(struct virtqueue *q, uint16_t head)
{
    uint16_t index = q->m->avail.index;

    q->m->avail.ring[index % VQ_SIZE] = head;
    barrier();
    q->m->avail.index = index + 1;
    fence();
    if (wants_kick(q, index, index + 1))
        mmio_write16(q->notify, q->number);
}

bool vq_pending(const struct virtqueue *q)
{
    return q->m->used.index != q->last_used;
}

int vq_take(struct virtqueue *q, uint32_t *ret_length)
{
    if (!vq_pending(q))
        return -1;
    barrier();
    unsigned i = q->last_used++ % VQ_SIZE;
    if (ret_length)
        *ret_length = q->m->used.ring[i].length;
    return q->m->used.ring[i].id % VQ_SIZE;
}

bool vq_arm(struct virtqueue *q)
{
    if (q->event_idx && q->interrupts) {
        q->m->avail.used_event = q->last_used;
        fence();
    }
    return vq_pending(q);
}
