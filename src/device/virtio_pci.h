/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio over PCI, modern (virtio 1.x): the registers of a virtio device in BAR 0, its interrupts by MSI-X in
 * BAR 1.
 *
 *     BAR 0:  0x0000 common configuration   0x1000 interrupt status   0x2000 device configuration
 *             0x3000 notifications, 4 bytes a queue, each a doorbell that the kernel signals without leaving
 * the guest
 *
 * The owner embeds struct virtio_pci, fills in virtio.ops, virtio.id, virtio.queue_count and pci.slot, and
 * calls virtio_pci_init(); its reset, take_over and destroy call the ones here, and its saved state has
 * virtio_pci_vmstate and calls virtio_pci_post_load().
 */
#ifndef DEVICE_VIRTIO_PCI_H
#define DEVICE_VIRTIO_PCI_H

#include "device/msix.h"
#include "device/virtio.h"
#include "device/wake.h"

struct virtio_pci {
    struct virtio_device virtio;
    struct pci_device pci;
    struct msix msix;
    /* One a queue: kicks of the guest, and of the device itself (virtio_pci_kick_later). */
    struct doorbell {
        struct virtio_pci *owner;
        struct wake wake;
        uint64_t mapped; /* guest address; 0: nowhere, writes come as ordinary accesses */
    } doorbells[VIRTIO_QUEUES_MAX];
    unsigned pci_access; /* offset of the configuration access capability */

    /* saved */
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    uint8_t isr;
};

bool virtio_pci_init(struct virtio_pci *t, struct device_host *h, Error **errp);
/* Undoes virtio_pci_init. Lock held, or the loop stands still. */
void virtio_pci_destroy(struct virtio_pci *t);
void virtio_pci_reset(struct virtio_pci *t);
void virtio_pci_take_over(struct virtio_pci *t);
/* The queue is looked at on the loop, soon. Any thread. */
void virtio_pci_kick_later(struct virtio_pci *t, unsigned queue);

extern const VMStateDescription virtio_pci_vmstate;
bool virtio_pci_post_load(struct virtio_pci *t, Error **errp);

#endif
