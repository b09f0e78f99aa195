/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/pci.h"

#include <assert.h>
#include <string.h>

#include "base/endian.h"
#include "device/devices.h"

#define BAR_OFFSET(bar) (PCI_BASE_ADDRESS_0 + 4 * (bar))
/* Where a slot's BARs lie before the guest moves them: 64 KiB a slot, 8 KiB steps at least. */
#define SLOT_SPACE 0x10000u

static void put_initial(struct pci_device *d, unsigned offset, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++)
        d->initial[offset + i] = d->config[offset + i] = value >> (8 * i);
}

void pci_make_writable(struct pci_device *d, unsigned offset, unsigned size, uint32_t mask)
{
    assert(offset + size <= PCI_CONFIG_SIZE);
    for (unsigned i = 0; i < size; i++)
        d->writable[offset + i] = mask >> (8 * i);
}

void pci_init(struct pci_device *d, uint16_t vendor, uint16_t device, uint32_t class_and_revision)
{
    memset(d->config, 0, sizeof(d->config));
    memset(d->initial, 0, sizeof(d->initial));
    memset(d->writable, 0, sizeof(d->writable));
    memset(d->bars, 0, sizeof(d->bars));
    d->capabilities_end = PCI_STD_HEADER_SIZEOF;
    put_initial(d, PCI_VENDOR_ID, 2, vendor);
    put_initial(d, PCI_DEVICE_ID, 2, device);
    put_initial(d, PCI_CLASS_REVISION, 4, class_and_revision);
    pci_make_writable(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
    pci_make_writable(d, PCI_INTERRUPT_LINE, 1, 0xff);
}

void pci_add_bar(struct pci_device *d, unsigned bar, uint32_t size, const struct io_ops *ops, void *opaque)
{
    uint32_t address = PCI_WINDOW_BASE + d->slot * SLOT_SPACE;

    for (unsigned i = 0; i < bar; i++)
        address += d->bars[i].size;
    address = (address + size - 1) & ~(size - 1);
    assert(bar < PCI_BARS && size >= 16 && !(size & (size - 1)));
    assert(address + size <= PCI_WINDOW_BASE + (d->slot + 1) * SLOT_SPACE);

    d->bars[bar] = (struct pci_bar){.size = size, .ops = ops, .opaque = opaque};
    put_initial(d, BAR_OFFSET(bar), 4, address | PCI_BASE_ADDRESS_SPACE_MEMORY);
    pci_make_writable(d, BAR_OFFSET(bar), 4, ~(size - 1));
}

unsigned pci_add_capability(struct pci_device *d, uint8_t id, unsigned size)
{
    unsigned offset = d->capabilities_end;

    assert(offset + size <= PCI_CONFIG_SIZE);
    d->capabilities_end = (offset + size + 3) & ~3u;
    put_initial(d, offset, 1, id);
    put_initial(d, offset + 1, 1, d->initial[PCI_CAPABILITY_LIST]);
    put_initial(d, PCI_CAPABILITY_LIST, 1, offset);
    put_initial(d, PCI_STATUS, 2, PCI_STATUS_CAP_LIST);
    return offset;
}

bool pci_is_bus_master(const struct pci_device *d)
{
    return le16_get(d->config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

/* Where bar ought to be decoded; 0: nowhere. */
static uint32_t wanted_address(const struct pci_device *d, unsigned bar)
{
    uint32_t address = le32_get(d->config + BAR_OFFSET(bar)) & PCI_BASE_ADDRESS_MEM_MASK;
    uint32_t size = d->bars[bar].size;

    if (!size || !(le16_get(d->config + PCI_COMMAND) & PCI_COMMAND_MEMORY))
        return 0;
    if (address < PCI_WINDOW_BASE || address - PCI_WINDOW_BASE > PCI_WINDOW_SIZE - size)
        return 0;
    return address;
}

static void unmap_bar(struct pci_device *d, unsigned bar)
{
    struct pci_bar *b = &d->bars[bar];

    if (!b->mapped)
        return;
    if (d->bar_unmapping)
        d->bar_unmapping(d, bar, b->mapped);
    d->host->unmap(d->host, IO_MEMORY, b->mapped);
    b->mapped = 0;
}

/* A guest may put two BARs on one place: the second is then not decoded, and tried again whenever this
 * device's mapping changes. */
static void map_bar(struct pci_device *d, unsigned bar, uint32_t address)
{
    struct pci_bar *b = &d->bars[bar];

    if (!d->host->map(d->host, IO_MEMORY, address, b->size, b->ops, b->opaque, NULL))
        return;
    b->mapped = address;
    if (d->bar_mapped)
        d->bar_mapped(d, bar, address);
}

/* First all that go, then all that come: two BARs may change places. */
static void update_mappings(struct pci_device *d)
{
    uint32_t wanted[PCI_BARS];

    for (unsigned bar = 0; bar < PCI_BARS; bar++) {
        wanted[bar] = wanted_address(d, bar);
        if (d->bars[bar].mapped != wanted[bar])
            unmap_bar(d, bar);
    }
    for (unsigned bar = 0; bar < PCI_BARS; bar++) {
        if (wanted[bar] && !d->bars[bar].mapped)
            map_bar(d, bar, wanted[bar]);
    }
}

static bool in_config(unsigned offset, unsigned size)
{
    return size >= 1 && size <= 4 && offset <= PCI_CONFIG_SIZE - size;
}

uint32_t pci_config_read(struct pci_device *d, unsigned offset, unsigned size)
{
    uint32_t v = 0;

    if (!in_config(offset, size))
        return UINT32_MAX;
    if (d->config_read)
        d->config_read(d, offset, size);
    for (unsigned i = 0; i < size; i++)
        v |= (uint32_t)d->config[offset + i] << (8 * i);
    return v;
}

void pci_config_write(struct pci_device *d, unsigned offset, uint32_t value, unsigned size)
{
    if (!in_config(offset, size))
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = d->writable[offset + i];

        d->config[offset + i] = (d->config[offset + i] & ~mask) | (value >> (8 * i) & mask);
    }
    if (offset < BAR_OFFSET(PCI_BARS))
        update_mappings(d);
    if (d->config_written)
        d->config_written(d, offset, size);
}

bool pci_attach(struct pci_device *d, Error **errp)
{
    struct pci_bus *bus = d->host->pci;

    if (!bus || d->slot >= PCI_SLOTS || bus->slots[d->slot]) {
        error_setg(errp, "device %s: PCI slot %u is taken, or there is none", d->id, d->slot);
        return false;
    }
    bus->slots[d->slot] = d;
    return true;
}

void pci_detach(struct pci_device *d)
{
    for (unsigned bar = 0; bar < PCI_BARS; bar++)
        unmap_bar(d, bar);
    d->host->pci->slots[d->slot] = NULL;
}

void pci_reset(struct pci_device *d)
{
    memcpy(d->config, d->initial, sizeof(d->config));
    update_mappings(d);
}

bool pci_post_load(struct pci_device *d, Error **errp)
{
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        if ((d->config[i] ^ d->initial[i]) & ~d->writable[i]) {
            error_setg(errp, "device %s: the state is of another device (PCI configuration byte 0x%02x)",
                       d->id, i);
            pci_reset(d);
            return false;
        }
    }
    update_mappings(d);
    return true;
}

static const VMStateField pci_fields[] = {
    VMSTATE_BUFFER(struct pci_device, config, 1),
    VMSTATE_END,
};
const VMStateDescription pci_vmstate = {
    .name = "pci", .version = 1, .minimum_version = 1, .fields = pci_fields};
