/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The PCI host bridge: configuration mechanism 1 (address at 0xcf8, data at 0xcfc), and the reset register
 * 0xcf9, which lies between their bytes.
 */
#include "device/devices.h"

#include <stdlib.h>

#include "device/pci.h"

#define CONFIG_PORT      0xcf8
#define CONFIG_PORT_SIZE 8
#define CONFIG_DATA      4 /* offset */
#define CONFIG_ENABLE    0x80000000u

#define RESET_OFFSET 1    /* 0xcf9 */
#define RESET_CPU    0x04 /* on the rising edge */
#define RESET_BITS   0x0e

#define VENDOR_RED_HAT     0x1b36
#define DEVICE_HOST_BRIDGE 0x0008
#define CLASS_HOST_BRIDGE  0x06000000

struct pci_host {
    Device device;
    struct pci_bus bus;
    struct pci_device bridge; /* slot 0 */
    uint32_t address;
    uint8_t reset_control;
};

/* The function that the address names: bus 0, function 0. */
static struct pci_device *addressed(struct pci_host *p)
{
    if (!(p->address & CONFIG_ENABLE) || p->address & 0x7fff0700)
        return NULL;
    return p->bus.slots[p->address >> 11 & 31];
}

static uint64_t host_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_host *p = opaque;
    struct pci_device *d = addressed(p);

    if (offset == 0 && size == 4)
        return p->address;
    if (offset == RESET_OFFSET && size == 1)
        return p->reset_control;
    if (offset < CONFIG_DATA || !d)
        return UINT64_MAX;
    return pci_config_read(d, (p->address & 0xfc) + (offset & 3), size);
}

static void write_reset(struct pci_host *p, uint8_t value)
{
    bool rising = value & ~p->reset_control & RESET_CPU;

    p->reset_control = value & RESET_BITS;
    if (rising)
        p->device.host->request(p->device.host, GUEST_REQUEST_RESET);
}

static void host_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_host *p = opaque;
    struct pci_device *d = addressed(p);

    if (offset == 0 && size == 4)
        p->address = value;
    else if (offset == RESET_OFFSET && size == 1)
        write_reset(p, value);
    else if (offset >= CONFIG_DATA && d)
        pci_config_write(d, (p->address & 0xfc) + (offset & 3), value, size);
}

static const struct io_ops host_ops = {.read = host_read, .write = host_write};

static bool host_post_load(void *opaque, int version, Error **errp)
{
    struct pci_host *p = opaque;

    (void)version;
    p->reset_control &= RESET_BITS;
    return pci_post_load(&p->bridge, errp);
}

static const VMStateField host_fields[] = {
    VMSTATE_STRUCT(struct pci_host, bridge, &pci_vmstate, 1),
    VMSTATE_U32(struct pci_host, address, 1),
    VMSTATE_U8(struct pci_host, reset_control, 1),
    VMSTATE_END,
};
static const VMStateDescription host_vmstate = {.name = "pci-host",
                                                .version = 1,
                                                .minimum_version = 1,
                                                .fields = host_fields,
                                                .post_load = host_post_load};

static void host_reset(Device *d)
{
    struct pci_host *p = (struct pci_host *)d;

    p->address = 0;
    p->reset_control = 0;
    pci_reset(&p->bridge);
}

static void host_destroy(Device *d)
{
    struct pci_host *p = (struct pci_host *)d;

    perdure_vmstate_unregister(&host_vmstate, p);
    d->host->unmap(d->host, IO_PORT, CONFIG_PORT);
    pci_detach(&p->bridge);
    d->host->pci = NULL;
    free(p);
}

static const struct device_class host_class = {
    .name = "pci-host", .reset = host_reset, .destroy = host_destroy};

Device *pci_host_new(struct device_host *h, Error **errp)
{
    struct pci_host *p = calloc(1, sizeof(*p));

    if (!p) {
        error_setg(errp, "pci-host: out of memory");
        return NULL;
    }
    p->device = (Device){.class = &host_class, .id = "pci-host", .host = h};
    p->bridge = (struct pci_device){.id = "pci-host", .host = h, .slot = 0};
    pci_init(&p->bridge, VENDOR_RED_HAT, DEVICE_HOST_BRIDGE, CLASS_HOST_BRIDGE);
    if (!h->map(h, IO_PORT, CONFIG_PORT, CONFIG_PORT_SIZE, &host_ops, p, errp))
        goto free_host;
    if (!perdure_vmstate_register(&host_vmstate, 0, p, errp))
        goto unmap;
    p->bus.slots[0] = &p->bridge;
    h->pci = &p->bus;
    return &p->device;

unmap:
    h->unmap(h, IO_PORT, CONFIG_PORT);
free_host:
    free(p);
    return NULL;
}
