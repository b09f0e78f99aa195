/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/virtio.h"

/* Common configuration */
#define C_DEVICE_SELECT 0
#define C_DEVICE        4
#define C_DRIVER_SELECT 8
#define C_DRIVER        12
#define C_STATUS        20
#define C_QUEUE         22
#define C_QUEUE_SIZE    24
#define C_QUEUE_VECTOR  26
#define C_QUEUE_ENABLE  28
#define C_QUEUE_NOTIFY  30
#define C_QUEUE_DESC    32
#define C_QUEUE_AVAIL   40
#define C_QUEUE_USED    48

#define S_ACKNOWLEDGE 1
#define S_DRIVER      2
#define S_DRIVER_OK   4
#define S_FEATURES_OK 8

#define CAP_VENDOR      0x09
#define CAP_MSIX        0x11
#define MSIX_ENABLE     0x8000
#define MSIX_ENTRY_SIZE 16

static void find_regions(struct virtio *v)
{
    for (unsigned c = 0; (c = pci_capability(&v->pci, CAP_VENDOR, c)) != 0;) {
        unsigned kind = pci_read8(&v->pci, c + 3);
        uintptr_t bar = pci_bar(&v->pci, pci_read8(&v->pci, c + 4));
        uintptr_t at = bar + pci_read32(&v->pci, c + 8);
        if (bar == 0)
            continue;
        if (kind == 1 && !v->common)
            v->common = at;
        if (kind == 2 && !v->notify) {
            v->notify = at;
            v->notify_multiplier = pci_read32(&v->pci, c + 16);
        }
        if (kind == 4 && !v->config)
            v->config = at;
    }
}

static void find_msix(struct virtio *v)
{
    unsigned c = pci_capability(&v->pci, CAP_MSIX, 0);
    uint32_t table;

    if (!c)
        return;
    table = pci_read32(&v->pci, c + 4);
    v->msix = pci_bar(&v->pci, table & 7) + (table & ~7u);
    pci_write16(&v->pci, c + 2, MSIX_ENABLE);
}

static void add_status(struct virtio *v, uint8_t bit)
{
    mmio_write8(v->common + C_STATUS, mmio_read8(v->common + C_STATUS) | bit);
}

static uint64_t offered(struct virtio *v)
{
    uint64_t low;

    mmio_write32(v->common + C_DEVICE_SELECT, 0);
    low = mmio_read32(v->common + C_DEVICE);
    mmio_write32(v->common + C_DEVICE_SELECT, 1);
    return low | (uint64_t)mmio_read32(v->common + C_DEVICE) << 32;
}

static bool negotiate(struct virtio *v, uint64_t wanted)
{
    v->features = offered(v) & (wanted | VIRTIO_F_VERSION_1);
    if (!(v->features & VIRTIO_F_VERSION_1))
        return false;
    mmio_write32(v->common + C_DRIVER_SELECT, 0);
    mmio_write32(v->common + C_DRIVER, v->features);
    mmio_write32(v->common + C_DRIVER_SELECT, 1);
    mmio_write32(v->common + C_DRIVER, v->features >> 32);
    add_status(v, S_FEATURES_OK);
    return mmio_read8(v->common + C_STATUS) & S_FEATURES_OK;
}

bool virtio_open(struct virtio *v, unsigned kind, unsigned index, uint64_t wanted)
{
    *v = (struct virtio){0};
    if (!pci_find((0x1040u + kind) << 16 | VIRTIO_VENDOR, index, &v->pci) &&
        !pci_find((0x0fffu + kind) << 16 | VIRTIO_VENDOR, index, &v->pci)) /* transitional */
        return false;
    pci_enable(&v->pci);
    find_regions(v);
    if (!v->common || !v->notify)
        return false;
    find_msix(v);
    mmio_write8(v->common + C_STATUS, 0);
    while (mmio_read8(v->common + C_STATUS) != 0)
        cpu_relax();
    add_status(v, S_ACKNOWLEDGE);
    add_status(v, S_DRIVER);
    return negotiate(v, wanted);
}

static void write_address(struct virtio *v, unsigned offset, const void *p)
{
    mmio_write32(v->common + offset, (uintptr_t)p);
    mmio_write32(v->common + offset + 4, 0);
}

/* MSI-X table entry `number` belongs to queue `number`. */
static bool set_vector(struct virtio *v, unsigned number, int irq, int cpu)
{
    uintptr_t entry = v->msix + number * MSIX_ENTRY_SIZE;

    mmio_write32(entry, 0xfee00000u | cpu << 12);
    mmio_write32(entry + 4, 0);
    mmio_write32(entry + 8, CPU_VECTOR(irq));
    mmio_write32(entry + 12, 0);
    mmio_write16(v->common + C_QUEUE_VECTOR, number);
    return mmio_read16(v->common + C_QUEUE_VECTOR) == number;
}

bool virtio_queue(struct virtio *v, unsigned number, struct vq_memory *m, int irq, int cpu,
                  struct virtqueue *ret)
{
    mmio_write16(v->common + C_QUEUE, number);
    if (mmio_read16(v->common + C_QUEUE_SIZE) < VQ_SIZE)
        return false;
    mmio_write16(v->common + C_QUEUE_SIZE, VQ_SIZE);
    if (irq >= 0 && (!v->msix || !set_vector(v, number, irq, cpu)))
        return false;
    *ret = (struct virtqueue){.m = m, .number = number, .interrupts = irq >= 0};
    ret->event_idx = v->features & VIRTIO_F_EVENT_IDX;
    ret->notify = v->notify + mmio_read16(v->common + C_QUEUE_NOTIFY) * v->notify_multiplier;
    m->avail.flags = irq < 0; /* no interrupts */
    if (irq < 0)
        m->avail.used_event = 0x8000;
    write_address(v, C_QUEUE_DESC, m->desc);
    write_address(v, C_QUEUE_AVAIL, &m->avail);
    write_address(v, C_QUEUE_USED, &m->used);
    mmio_write16(v->common + C_QUEUE_ENABLE, 1);
    return true;
}

void virtio_ready(struct virtio *v)
{
    add_status(v, S_DRIVER_OK);
}

void virtio_mask(struct virtio *v, unsigned number, bool masked)
{
    mmio_write32(v->msix + number * MSIX_ENTRY_SIZE + 12, masked);
}
