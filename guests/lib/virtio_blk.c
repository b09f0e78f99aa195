/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/io.h"
#include "lib/string.h"
#include "lib/virtio_blk.h"

static struct vq_memory memory;
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static volatile uint8_t answer;
static uint64_t data[BLK_SECTORS_MAX * BLK_SECTOR / 8] __attribute__((aligned(4096)));

bool blk_open(struct blk *b, int irq_cpu, bool event_idx)
{
    if (!virtio_open(&b->v, 2, event_idx ? VIRTIO_F_EVENT_IDX : 0) || !b->v.config)
        return false;
    if (!virtio_queue(&b->v, 0, &memory, irq_cpu >= 0 ? BLK_IRQ : -1, irq_cpu, &b->q))
        return false;
    b->sectors = mmio_read32(b->v.config) | (uint64_t)mmio_read32(b->v.config + 4) << 32;
    virtio_ready(&b->v);
    return b->sectors >= BLK_SECTORS_MAX;
}

void blk_read(struct blk *b, uint64_t sector, unsigned n)
{
    header.sector = sector;
    answer = 0xff;
    memset(data, 0xee, sizeof(data)); /* what is not read is found */
    memory.desc[0] = (struct vq_desc){(uintptr_t)&header, sizeof(header), VQ_NEXT, 1};
    memory.desc[1] = (struct vq_desc){(uintptr_t)data, n * BLK_SECTOR, VQ_NEXT | VQ_WRITE, 2};
    memory.desc[2] = (struct vq_desc){(uintptr_t)&answer, 1, VQ_WRITE, 0};
    vq_submit(&b->q, 0);
}

const uint64_t *blk_finish(struct blk *b, unsigned n)
{
    uint32_t length;

    if (vq_take(&b->q, &length) < 0 || length != n * BLK_SECTOR + 1 || answer != 0)
        return NULL;
    return data;
}
