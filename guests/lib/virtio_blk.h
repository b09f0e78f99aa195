/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-blk, reading, one request in flight. */
#ifndef GUESTS_LIB_VIRTIO_BLK_H
#define GUESTS_LIB_VIRTIO_BLK_H

#include "lib/virtio.h"

#define BLK_SECTOR      512
#define BLK_SECTORS_MAX 8
#define BLK_IRQ         0 /* vector index */

struct blk {
    struct virtio v;
    struct virtqueue q;
    uint64_t sectors;
};

bool blk_open(struct blk *b, int irq_cpu, bool event_idx);
/* Starts to read n (at most BLK_SECTORS_MAX) sectors. */
void blk_read(struct blk *b, uint64_t sector, unsigned n);
/* The data of the request that has just completed; NULL: it failed, or the device says that it wrote less. */
const uint64_t *blk_finish(struct blk *b, unsigned n);

#endif
