/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/virtio_pci.h"

#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>

#include "base/endian.h"

#define VENDOR_VIRTIO     0x1af4
#define DEVICE_MODERN(id) (0x1040 + (id))
#define REVISION_MODERN   1
#define CLASS_NETWORK     0x02000000u
#define CLASS_STORAGE     0x01800000u
#define CLASS_OTHER       0x00ff0000u

enum { REGISTERS_BAR, MSIX_BAR };

#define COMMON_OFFSET     0x0000u
#define ISR_OFFSET        0x1000u
#define CONFIG_OFFSET     0x2000u
#define NOTIFY_OFFSET     0x3000u
#define REGION_SIZE       0x1000u
#define REGISTERS_SIZE    0x4000u
#define NOTIFY_MULTIPLIER 4u

#define ISR_QUEUE  1
#define ISR_CONFIG 2

/* The queue that the driver selected; NULL: there is none of that number. */
static struct virtqueue *selected(struct virtio_pci *t)
{
    return t->queue_select < t->virtio.queue_count ? &t->virtio.queues[t->queue_select] : NULL;
}

static uint32_t half(uint64_t v, uint32_t select)
{
    return select < 2 ? v >> (32 * select) : 0;
}

/* --- common configuration --- */

static void fill_common(struct virtio_pci *t, struct virtio_pci_common_cfg *c)
{
    const struct virtqueue *q = selected(t);

    *c = (struct virtio_pci_common_cfg){
        .device_feature_select = t->device_feature_select,
        .device_feature = half(t->virtio.features, t->device_feature_select),
        .guest_feature_select = t->driver_feature_select,
        .guest_feature = half(t->virtio.driver_features, t->driver_feature_select),
        .msix_config = t->virtio.config_vector,
        .num_queues = t->virtio.queue_count,
        .device_status = t->virtio.status,
        .config_generation = t->virtio.generation,
        .queue_select = t->queue_select,
    };
    if (!q)
        return;
    c->queue_size = q->size;
    c->queue_msix_vector = q->vector;
    c->queue_enable = q->enabled;
    c->queue_notify_off = t->queue_select;
    c->queue_desc_lo = q->desc_gpa;
    c->queue_desc_hi = q->desc_gpa >> 32;
    c->queue_avail_lo = q->avail_gpa;
    c->queue_avail_hi = q->avail_gpa >> 32;
    c->queue_used_lo = q->used_gpa;
    c->queue_used_hi = q->used_gpa >> 32;
}

static void set_driver_feature(struct virtio_pci *t, uint32_t value)
{
    unsigned shift = 32 * t->driver_feature_select;

    if (t->driver_feature_select > 1 || t->virtio.status & VIRTIO_CONFIG_S_FEATURES_OK)
        return;
    t->virtio.driver_features &= ~(UINT64_C(0xffffffff) << shift);
    t->virtio.driver_features |= (uint64_t)value << shift;
}

/* A vector that does not exist reads back as none. */
static uint16_t valid_vector(const struct virtio_pci *t, uint16_t vector)
{
    return vector < t->msix.vectors ? vector : VIRTIO_MSI_NO_VECTOR;
}

static void set_queue_size(struct virtqueue *q, uint16_t size)
{
    if (size && size <= VIRTQUEUE_SIZE_MAX && !(size & (size - 1)))
        q->size = size;
}

/* One half of an address; the whole of it where the driver writes 8 bytes at the lower half. */
static void set_address(uint64_t *gpa, bool high, uint64_t value, unsigned size)
{
    if (size == 8 && !high)
        *gpa = value;
    else if (high)
        *gpa = (*gpa & UINT32_MAX) | value << 32;
    else
        *gpa = (*gpa & ~(uint64_t)UINT32_MAX) | (uint32_t)value;
}

static void write_queue_register(struct virtio_pci *t, unsigned offset, uint64_t value, unsigned size)
{
    struct virtqueue *q = selected(t);

    if (!q)
        return;
    if (offset == VIRTIO_PCI_COMMON_Q_MSIX)
        q->vector = valid_vector(t, value);
    if (q->enabled)
        return; /* the rest is fixed until the device is reset */
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
        set_queue_size(q, value);
        break;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        if (value == 1)
            virtio_enable_queue(&t->virtio, t->queue_select);
        break;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        set_address(&q->desc_gpa, offset == VIRTIO_PCI_COMMON_Q_DESCHI, value, size);
        break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        set_address(&q->avail_gpa, offset == VIRTIO_PCI_COMMON_Q_AVAILHI, value, size);
        break;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        set_address(&q->used_gpa, offset == VIRTIO_PCI_COMMON_Q_USEDHI, value, size);
        break;
    }
}

static void write_common(struct virtio_pci *t, unsigned offset, uint64_t value, unsigned size)
{
    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        t->device_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_GFSELECT:
        t->driver_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_GF:
        set_driver_feature(t, value);
        break;
    case VIRTIO_PCI_COMMON_MSIX:
        t->virtio.config_vector = valid_vector(t, value);
        break;
    case VIRTIO_PCI_COMMON_STATUS:
        if (!(uint8_t)value)
            t->isr = 0;
        virtio_set_status(&t->virtio, value);
        break;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        t->queue_select = value;
        break;
    default:
        write_queue_register(t, offset, value, size);
    }
}

/* --- the registers' BAR --- */

static uint64_t read_bytes(const void *image, size_t image_size, uint64_t offset, unsigned size)
{
    uint64_t v = 0;

    if (offset + size <= image_size)
        memcpy(&v, (const uint8_t *)image + offset, size);
    return v;
}

static uint64_t read_isr(struct virtio_pci *t)
{
    uint8_t v = t->isr;

    t->isr = 0;
    return v;
}

static uint64_t registers_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *t = opaque;
    struct virtio_pci_common_cfg common;
    uint8_t config[VIRTIO_CONFIG_MAX] = {0};
    uint64_t in_region = offset % REGION_SIZE;

    switch (offset - in_region) {
    case COMMON_OFFSET:
        fill_common(t, &common);
        return read_bytes(&common, sizeof(common), in_region, size);
    case ISR_OFFSET:
        return in_region == 0 ? read_isr(t) : 0;
    case CONFIG_OFFSET:
        if (t->virtio.ops->config_size)
            t->virtio.ops->read_config(&t->virtio, config);
        return read_bytes(config, t->virtio.ops->config_size, in_region, size);
    }
    return 0;
}

static void registers_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_pci *t = opaque;
    uint64_t in_region = offset % REGION_SIZE;

    /* The rest is read-only, the device's configuration too: what drivers may change has queues of its own.
     */
    if (offset - in_region == COMMON_OFFSET)
        write_common(t, in_region, value, size);
    else if (offset - in_region == NOTIFY_OFFSET)
        virtio_kick(&t->virtio, in_region / NOTIFY_MULTIPLIER);
}

static const struct io_ops registers_ops = {.read = registers_read, .write = registers_write};

/* --- doorbells --- */

static void doorbell_rung(void *opaque)
{
    struct doorbell *d = opaque;

    virtio_kick(&d->owner->virtio, d - d->owner->doorbells);
}

void virtio_pci_kick_later(struct virtio_pci *t, unsigned queue)
{
    wake_signal(&t->doorbells[queue].wake);
}

static void bar_mapped(struct pci_device *pci, unsigned bar, uint32_t address)
{
    struct virtio_pci *t = pci->opaque;

    for (unsigned i = 0; bar == REGISTERS_BAR && i < t->virtio.queue_count; i++) {
        uint64_t gpa = (uint64_t)address + NOTIFY_OFFSET + i * NOTIFY_MULTIPLIER;

        /* Without a doorbell the write arrives in registers_write: slower, and as good. */
        if (pci->host->map_doorbell(pci->host, gpa, t->doorbells[i].wake.fd, NULL))
            t->doorbells[i].mapped = gpa;
    }
}

static void bar_unmapping(struct pci_device *pci, unsigned bar, uint32_t address)
{
    struct virtio_pci *t = pci->opaque;

    (void)address;
    for (unsigned i = 0; bar == REGISTERS_BAR && i < t->virtio.queue_count; i++) {
        struct doorbell *d = &t->doorbells[i];

        if (d->mapped)
            pci->host->unmap_doorbell(pci->host, d->mapped, d->wake.fd);
        d->mapped = 0;
    }
}

/* --- configuration space --- */

/* The access capability reads and writes the registers for those who cannot reach the BAR (firmware). */
static bool access_target(struct virtio_pci *t, uint32_t *offset, uint32_t *size)
{
    const uint8_t *cap = t->pci.config + t->pci_access;

    *offset = le32_get(cap + offsetof(struct virtio_pci_cap, offset));
    *size = le32_get(cap + offsetof(struct virtio_pci_cap, length));
    return cap[offsetof(struct virtio_pci_cap, bar)] == REGISTERS_BAR &&
           (*size == 1 || *size == 2 || *size == 4) && *offset <= REGISTERS_SIZE - *size &&
           *offset % *size == 0;
}

static bool touches_access_data(const struct virtio_pci *t, unsigned offset, unsigned size)
{
    unsigned data = t->pci_access + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);

    return offset < data + 4 && offset + size > data;
}

static void config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_pci *t = pci->opaque;
    uint32_t target, width;

    if (touches_access_data(t, offset, size) && access_target(t, &target, &width))
        le32_put(pci->config + t->pci_access + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data),
                 registers_read(t, target, width));
}

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_pci *t = pci->opaque;
    uint32_t target, width;

    msix_config_written(&t->msix, offset, size);
    if (touches_access_data(t, offset, size) && access_target(t, &target, &width))
        registers_write(
            t, target,
            le32_get(pci->config + t->pci_access + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data)), width);
    /* Kicks that came before the device was allowed to look are made up for. */
    if (offset <= PCI_COMMAND && offset + size > PCI_COMMAND && pci_is_bus_master(pci))
        virtio_kick_all(&t->virtio);
}

static unsigned add_capability(struct virtio_pci *t, uint8_t type, unsigned cap_size, uint32_t offset,
                               uint32_t length)
{
    unsigned at = pci_add_capability(&t->pci, PCI_CAP_ID_VNDR, cap_size);
    uint8_t *cap = t->pci.initial + at;

    cap[offsetof(struct virtio_pci_cap, cap_len)] = cap_size;
    cap[offsetof(struct virtio_pci_cap, cfg_type)] = type;
    cap[offsetof(struct virtio_pci_cap, bar)] = REGISTERS_BAR;
    le32_put(cap + offsetof(struct virtio_pci_cap, offset), offset);
    le32_put(cap + offsetof(struct virtio_pci_cap, length), length);
    if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
        le32_put(cap + offsetof(struct virtio_pci_notify_cap, notify_off_multiplier), NOTIFY_MULTIPLIER);
    memcpy(t->pci.config + at, cap, cap_size);
    return at;
}

static void add_capabilities(struct virtio_pci *t)
{
    unsigned queues = t->virtio.queue_count;

    add_capability(t, VIRTIO_PCI_CAP_COMMON_CFG, sizeof(struct virtio_pci_cap), COMMON_OFFSET,
                   sizeof(struct virtio_pci_common_cfg));
    add_capability(t, VIRTIO_PCI_CAP_ISR_CFG, sizeof(struct virtio_pci_cap), ISR_OFFSET, 1);
    /* Drivers refuse one of no bytes. */
    if (t->virtio.ops->config_size)
        add_capability(t, VIRTIO_PCI_CAP_DEVICE_CFG, sizeof(struct virtio_pci_cap), CONFIG_OFFSET,
                       t->virtio.ops->config_size);
    add_capability(t, VIRTIO_PCI_CAP_NOTIFY_CFG, sizeof(struct virtio_pci_notify_cap), NOTIFY_OFFSET,
                   queues * NOTIFY_MULTIPLIER);
    t->pci_access = add_capability(t, VIRTIO_PCI_CAP_PCI_CFG, sizeof(struct virtio_pci_cfg_cap), 0, 0);
    pci_make_writable(&t->pci, t->pci_access + offsetof(struct virtio_pci_cap, bar), 1, 0xff);
    pci_make_writable(&t->pci, t->pci_access + offsetof(struct virtio_pci_cap, offset), 4, UINT32_MAX);
    pci_make_writable(&t->pci, t->pci_access + offsetof(struct virtio_pci_cap, length), 4, UINT32_MAX);
    pci_make_writable(&t->pci, t->pci_access + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data), 4,
                      UINT32_MAX);
}

/* --- towards the device --- */

static void interrupt(struct virtio_device *v, uint16_t vector, bool config)
{
    struct virtio_pci *t = (struct virtio_pci *)v;

    t->isr |= config ? ISR_CONFIG : ISR_QUEUE;
    msix_notify(&t->msix, vector);
}

static bool may_access_memory(struct virtio_device *v)
{
    return pci_is_bus_master(&((struct virtio_pci *)v)->pci);
}

static uint32_t class_of(uint16_t device_id)
{
    return device_id == VIRTIO_ID_NET     ? CLASS_NETWORK
           : device_id == VIRTIO_ID_BLOCK ? CLASS_STORAGE
                                          : CLASS_OTHER;
}

bool virtio_pci_init(struct virtio_pci *t, struct device_host *h, Error **errp)
{
    struct virtio_device *v = &t->virtio;
    unsigned made = 0;

    v->memory = h->memory;
    v->vectors = v->queue_count + 1;
    v->interrupt = interrupt;
    v->may_access_memory = may_access_memory;
    virtio_init(v);

    t->pci.id = v->id;
    t->pci.host = h;
    t->pci.opaque = t;
    t->pci.config_read = config_read;
    t->pci.config_written = config_written;
    t->pci.bar_mapped = bar_mapped;
    t->pci.bar_unmapping = bar_unmapping;
    pci_init(&t->pci, VENDOR_VIRTIO, DEVICE_MODERN(v->ops->device_id),
             class_of(v->ops->device_id) | REVISION_MODERN);
    pci_add_bar(&t->pci, REGISTERS_BAR, REGISTERS_SIZE, &registers_ops, t);
    msix_init(&t->msix, &t->pci, MSIX_BAR, v->vectors);
    add_capabilities(t);

    for (; made < v->queue_count; made++) {
        t->doorbells[made] = (struct doorbell){.owner = t};
        if (!wake_init(&t->doorbells[made].wake, h->loop, doorbell_rung, &t->doorbells[made], errp))
            goto undo;
    }
    if (pci_attach(&t->pci, errp))
        return true;
undo:
    while (made--)
        wake_destroy(&t->doorbells[made].wake);
    return false;
}

void virtio_pci_destroy(struct virtio_pci *t)
{
    pci_detach(&t->pci);
    for (unsigned i = 0; i < t->virtio.queue_count; i++)
        wake_destroy(&t->doorbells[i].wake);
}

void virtio_pci_reset(struct virtio_pci *t)
{
    t->device_feature_select = t->driver_feature_select = 0;
    t->queue_select = 0;
    t->isr = 0;
    virtio_reset(&t->virtio);
    msix_reset(&t->msix);
    pci_reset(&t->pci);
}

void virtio_pci_take_over(struct virtio_pci *t)
{
    virtio_take_over(&t->virtio);
}

/* --- saved state --- */

static const VMStateField virtio_pci_fields[] = {
    VMSTATE_STRUCT(struct virtio_pci, pci, &pci_vmstate, 1),
    VMSTATE_STRUCT(struct virtio_pci, msix, &msix_vmstate, 1),
    VMSTATE_STRUCT(struct virtio_pci, virtio, &virtio_vmstate, 1),
    VMSTATE_U32(struct virtio_pci, device_feature_select, 1),
    VMSTATE_U32(struct virtio_pci, driver_feature_select, 1),
    VMSTATE_U16(struct virtio_pci, queue_select, 1),
    VMSTATE_U8(struct virtio_pci, isr, 1),
    VMSTATE_END,
};
const VMStateDescription virtio_pci_vmstate = {
    .name = "virtio-pci", .version = 1, .minimum_version = 1, .fields = virtio_pci_fields};

bool virtio_pci_post_load(struct virtio_pci *t, Error **errp)
{
    msix_post_load(&t->msix);
    if (pci_post_load(&t->pci, errp) && virtio_post_load(&t->virtio, errp))
        return true;
    virtio_pci_reset(t);
    return false;
}
