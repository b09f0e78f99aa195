/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-pci 1.x, modern only: virtio_open, virtio_queue for each queue, virtio_ready. Without MSI-X the
 * driver polls and asks for no interrupts.
 */
#ifndef GUESTS_LIB_VIRTIO_H
#define GUESTS_LIB_VIRTIO_H

#include "lib/pci.h"
#include "lib/virtqueue.h"

#define VIRTIO_VENDOR      0x1af4u
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)

struct virtio {
    struct pci_device pci;
    uintptr_t common, notify, config, msix;
    uint32_t notify_multiplier;
    uint64_t features; /* agreed on */
};

/* kind: 1 net, 2 blk; the index-th of them. wanted: features to agree on where offered. false: no such device, or it does not do
 * virtio 1. */
bool virtio_open(struct virtio *v, unsigned kind, unsigned index, uint64_t wanted);
/* irq: vector index (see cpu.h) or -1: polled. */
bool virtio_queue(struct virtio *v, unsigned number, struct vq_memory *m, int irq, int cpu,
                  struct virtqueue *ret);
void virtio_ready(struct virtio *v);
/* Masks or unmasks the MSI-X vector of a queue. */
void virtio_mask(struct virtio *v, unsigned number, bool masked);

#endif
