/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk: requests in slots, as many in flight as there are slots; on queue 0, by one processor at a time.
 *
 *     blk_start(&b, slot, BLK_READ, sector, data, size);
 *     ...
 *     slot = blk_take(&b, &ok);        // -1: nothing has completed
 */
#ifndef GUESTS_LIB_VIRTIO_BLK_H
#define GUESTS_LIB_VIRTIO_BLK_H

#include "lib/virtio.h"

#define BLK_SECTOR    512
#define BLK_SLOTS_MAX 21 /* three descriptors each */
#define BLK_IRQ       0  /* vector index */

#define BLK_F_FLUSH (1ull << 9)

enum blk_type { BLK_READ = 0, BLK_WRITE = 1, BLK_FLUSH = 4 };

struct blk_slot {
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    uint32_t written; /* bytes that the device should write */
    volatile uint8_t answer;
};

/* In memory that is zero. */
struct blk {
    struct virtio v;
    struct virtqueue q;
    uint64_t sectors;
    struct blk_slot slots[BLK_SLOTS_MAX];
    struct vq_memory memory;
};

/* The index-th disk. wanted: features besides those of the queue. */
bool blk_open(struct blk *b, unsigned index, int irq_cpu, bool event_idx, uint64_t wanted);
/* slot is free; data lies in physical memory as it does here. A flush has no data. */
void blk_start(struct blk *b, unsigned slot, enum blk_type type, uint64_t sector, void *data, uint32_t size);
/* The slot of a request that has completed, free again, or -1. *ret_ok: the device says so, and wrote as much as it
 * should. */
int blk_take(struct blk *b, bool *ret_ok);

#endif
