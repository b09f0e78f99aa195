/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/io.h"
#include "lib/virtio_blk.h"

bool blk_open(struct blk *b, unsigned index, int irq_cpu, bool event_idx, uint64_t wanted)
{
    if (!virtio_open(&b->v, 2, index, wanted | (event_idx ? VIRTIO_F_EVENT_IDX : 0)) || !b->v.config)
        return false;
    if (!virtio_queue(&b->v, 0, &b->memory, irq_cpu >= 0 ? BLK_IRQ : -1, irq_cpu, &b->q))
        return false;
    b->sectors = mmio_read32(b->v.config) | (uint64_t)mmio_read32(b->v.config + 4) << 32;
    virtio_ready(&b->v);
    return true;
}

void blk_start(struct blk *b, unsigned slot, enum blk_type type, uint64_t sector, void *data, uint32_t size)
{
    struct blk_slot *s = &b->slots[slot];
    struct vq_desc *d = &b->memory.desc[3 * slot];

    s->header.type = type;
    s->header.sector = sector;
    s->written = 1 + (type == BLK_READ ? size : 0);
    s->answer = 0xff;
    d[0] = (struct vq_desc){(uintptr_t)&s->header, sizeof(s->header), VQ_NEXT, 3 * slot + (size ? 1 : 2)};
    d[1] = (struct vq_desc){(uintptr_t)data, size, VQ_NEXT | (type == BLK_READ ? VQ_WRITE : 0), 3 * slot + 2};
    d[2] = (struct vq_desc){(uintptr_t)&s->answer, 1, VQ_WRITE, 0};
    vq_submit(&b->q, 3 * slot);
}

int blk_take(struct blk *b, bool *ret_ok)
{
    uint32_t length;
    int head = vq_take(&b->q, &length);

    if (head < 0)
        return -1;
    if (head % 3 || head / 3 >= BLK_SLOTS_MAX) { /* not a slot of ours */
        *ret_ok = false;
        return 0;
    }
    *ret_ok = length == b->slots[head / 3].written && b->slots[head / 3].answer == 0;
    return head / 3;
}
