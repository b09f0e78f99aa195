/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small virtio driver: what the guest does with a virtio-pci device, one step a function, so that a test
 * can also do it wrong.
 */
#ifndef TESTS_VIRTIO_FIXTURE_H
#define TESTS_VIRTIO_FIXTURE_H

#include "device_fixture.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#define DRIVER_QUEUES       12
#define DRIVER_SIZE         16u /* of each queue */
#define DRIVER_QUEUE_GPA(q) (0x10000u + 0x4000u * (q))
#define DRIVER_BUFFERS      0x40000u /* free for the test from here */

#define ALL_OK                                                                                               \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |                    \
     VIRTIO_CONFIG_S_DRIVER_OK)

struct driver {
    struct fixture *f;
    unsigned slot;
    uint64_t base;                              /* added to where its queues lie; before driver_start() */
    uint32_t common, isr, config, notify, msix; /* config 0: the device has none */
    uint32_t notify_multiplier;
    uint64_t features;
    unsigned queues;
    struct driver_queue {
        struct vring_desc *desc;
        struct vring_avail *avail;
        struct vring_used *used;
        uint16_t used_seen;
        unsigned next_desc;
    } queue[DRIVER_QUEUES];
};

static inline void *guest_ram(struct fixture *f, uint64_t gpa)
{
    void *p = guest_memory_map(f->host.memory, gpa, 1);

    assert_non_null(p);
    return p;
}

static inline uint32_t common_read(struct driver *d, unsigned offset, unsigned size)
{
    return bus_read(d->f, IO_MEMORY, d->common + offset, size);
}

static inline void common_write(struct driver *d, unsigned offset, uint64_t v, unsigned size)
{
    bus_write(d->f, IO_MEMORY, d->common + offset, v, size);
}

static inline uint8_t driver_status(struct driver *d)
{
    return common_read(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

static inline void driver_set_status(struct driver *d, uint8_t status)
{
    common_write(d, VIRTIO_PCI_COMMON_STATUS, status, 1);
}

/* Finds the registers as a driver does: by the capabilities. */
static inline void driver_find(struct driver *d, struct fixture *f, unsigned slot)
{
    unsigned at;

    *d = (struct driver){.f = f, .slot = slot};
    config_write(f, slot, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    for (at = config_read(f, slot, PCI_CAPABILITY_LIST, 1); at; at = config_read(f, slot, at + 1, 1)) {
        uint32_t where;

        if (config_read(f, slot, at, 1) == PCI_CAP_ID_MSIX) {
            where = config_read(f, slot, at + PCI_MSIX_TABLE, 4);
            d->msix = config_read(f, slot, PCI_BASE_ADDRESS_0 + 4 * (where & 7), 4) + (where & ~7u);
            config_write(f, slot, at + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 2);
        }
        if (config_read(f, slot, at, 1) != PCI_CAP_ID_VNDR)
            continue;
        where = config_read(f, slot, PCI_BASE_ADDRESS_0 + 4 * config_read(f, slot, at + 4, 1), 4) +
                config_read(f, slot, at + 8, 4);
        switch (config_read(f, slot, at + 3, 1)) {
        case VIRTIO_PCI_CAP_COMMON_CFG:
            d->common = where;
            break;
        case VIRTIO_PCI_CAP_ISR_CFG:
            d->isr = where;
            break;
        case VIRTIO_PCI_CAP_DEVICE_CFG:
            d->config = where;
            break;
        case VIRTIO_PCI_CAP_NOTIFY_CFG:
            d->notify = where;
            d->notify_multiplier = config_read(f, slot, at + 16, 4);
            break;
        }
    }
    assert_true(d->common && d->isr && d->notify && d->msix);
}

static inline uint64_t driver_offered(struct driver *d)
{
    uint64_t v;

    common_write(d, VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
    v = (uint64_t)common_read(d, VIRTIO_PCI_COMMON_DF, 4) << 32;
    common_write(d, VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
    return v | common_read(d, VIRTIO_PCI_COMMON_DF, 4);
}

/* True: the device accepts. */
static inline bool driver_negotiate(struct driver *d, uint64_t features)
{
    driver_set_status(d, 0);
    assert_int_equal(driver_status(d), 0);
    driver_set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    for (unsigned i = 0; i < 2; i++) {
        common_write(d, VIRTIO_PCI_COMMON_GFSELECT, i, 4);
        common_write(d, VIRTIO_PCI_COMMON_GF, features >> (32 * i), 4);
    }
    driver_set_status(d, ALL_OK & ~VIRTIO_CONFIG_S_DRIVER_OK);
    d->features = features;
    return driver_status(d) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static inline void driver_unmask(struct driver *d, unsigned vector)
{
    bus_write(d->f, IO_MEMORY, d->msix + 16 * vector, 0xfee00000, 8);
    bus_write(d->f, IO_MEMORY, d->msix + 16 * vector + 8, 0x40 + vector, 4);
    bus_write(d->f, IO_MEMORY, d->msix + 16 * vector + 12, 0, 4);
}

static inline void driver_setup_queue(struct driver *d, unsigned q)
{
    uint64_t gpa = d->base + DRIVER_QUEUE_GPA(q);

    memset(guest_ram(d->f, gpa), 0, 0x4000);
    d->queue[q] = (struct driver_queue){.desc = guest_ram(d->f, gpa),
                                        .avail = guest_ram(d->f, gpa + 0x2000),
                                        .used = guest_ram(d->f, gpa + 0x3000)};
    common_write(d, VIRTIO_PCI_COMMON_Q_SELECT, q, 2);
    common_write(d, VIRTIO_PCI_COMMON_Q_SIZE, DRIVER_SIZE, 2);
    common_write(d, VIRTIO_PCI_COMMON_Q_MSIX, q + 1, 2);
    common_write(d, VIRTIO_PCI_COMMON_Q_DESCLO, gpa, 4);
    common_write(d, VIRTIO_PCI_COMMON_Q_DESCHI, gpa >> 32, 4);
    common_write(d, VIRTIO_PCI_COMMON_Q_AVAILLO, gpa + 0x2000, 4);
    common_write(d, VIRTIO_PCI_COMMON_Q_AVAILHI, 0, 4);
    common_write(d, VIRTIO_PCI_COMMON_Q_USEDLO, gpa + 0x3000, 8);
    common_write(d, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
    driver_unmask(d, q + 1);
}

/* From reset to DRIVER_OK; vector 0 is the configuration's, q + 1 queue q's. */
static inline void driver_start(struct driver *d, uint64_t features)
{
    assert_true(driver_negotiate(d, features | 1ull << VIRTIO_F_VERSION_1));
    d->queues = common_read(d, VIRTIO_PCI_COMMON_NUMQ, 2);
    assert_true(d->queues <= DRIVER_QUEUES);
    common_write(d, VIRTIO_PCI_COMMON_MSIX, 0, 2);
    driver_unmask(d, 0);
    for (unsigned q = 0; q < d->queues; q++)
        driver_setup_queue(d, q);
    driver_set_status(d, ALL_OK);
    assert_int_equal(driver_status(d), ALL_OK);
}

struct buffer {
    uint64_t gpa;
    uint32_t len;
    bool in;
};

/* Writes a chain into the next descriptors (round and round; the test frees them by being done with them).
 * Its head. */
static inline uint16_t driver_chain(struct driver *d, unsigned q, const struct buffer *b, unsigned n)
{
    struct driver_queue *dq = &d->queue[q];
    uint16_t head = dq->next_desc % DRIVER_SIZE;

    for (unsigned i = 0; i < n; i++) {
        unsigned at = dq->next_desc++ % DRIVER_SIZE;

        dq->desc[at] = (struct vring_desc){
            .addr = b[i].gpa,
            .len = b[i].len,
            .flags = (b[i].in ? VRING_DESC_F_WRITE : 0) | (i + 1 < n ? VRING_DESC_F_NEXT : 0),
            .next = dq->next_desc % DRIVER_SIZE,
        };
    }
    return head;
}

static inline void driver_offer(struct driver *d, unsigned q, uint16_t head)
{
    struct vring_avail *a = d->queue[q].avail;

    a->ring[a->idx % DRIVER_SIZE] = head;
    __atomic_store_n(&a->idx, a->idx + 1, __ATOMIC_RELEASE);
}

static inline uint16_t driver_add(struct driver *d, unsigned q, const struct buffer *b, unsigned n)
{
    uint16_t head = driver_chain(d, q, b, n);

    driver_offer(d, q, head);
    return head;
}

/* The slow way, which is also the synchronous one. */
static inline void driver_kick(struct driver *d, unsigned q)
{
    bus_write(d->f, IO_MEMORY, d->notify + q * d->notify_multiplier, q, 2);
}

static inline unsigned driver_used_count(struct driver *d, unsigned q)
{
    return (uint16_t)(__atomic_load_n(&d->queue[q].used->idx, __ATOMIC_ACQUIRE) - d->queue[q].used_seen);
}

/* The next used element, which must be there. */
static inline struct vring_used_elem driver_used(struct driver *d, unsigned q)
{
    struct driver_queue *dq = &d->queue[q];

    assert_true(driver_used_count(d, q) > 0);
    return dq->used->ring[dq->used_seen++ % DRIVER_SIZE];
}

/* The available entry at which the device wants to be kicked next. */
static inline uint16_t driver_avail_event(struct driver *d, unsigned q)
{
    uint16_t v;

    memcpy(&v, guest_ram(d->f, d->base + DRIVER_QUEUE_GPA(q) + 0x3000 + 4 + 8 * DRIVER_SIZE), sizeof(v));
    return v;
}

static inline bool is_dirty(struct fixture *f, uint64_t gpa)
{
    uint64_t page = gpa >> GUEST_PAGE_SHIFT;

    return f->host.memory->dirty[page / 64] >> (page % 64) & 1;
}

static inline void clear_dirty(struct fixture *f)
{
    memset(f->host.memory->dirty, 0, (FIXTURE_RAM >> GUEST_PAGE_SHIFT) / 8);
}

#endif
