/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/io.h"
#include "lib/pci.h"

#define ADDRESS      0xcf8
#define DATA         0xcfc
#define COMMAND      0x04
#define STATUS       0x06
#define BAR0         0x10
#define CAPABILITIES 0x34
#define BARS         6
#define WINDOW       0xd0000000u
#define BAR_IO       1u
#define BAR_TYPE     6u
#define BAR_64       4u
#define BAR_MASK     0xfffffff0u

static uint32_t next_free = WINDOW;

uint32_t pci_read32(const struct pci_device *d, unsigned offset)
{
    outl(ADDRESS, d->address | (offset & 0xfc));
    return inl(DATA);
}

uint16_t pci_read16(const struct pci_device *d, unsigned offset)
{
    return pci_read32(d, offset) >> (offset & 2) * 8;
}

uint8_t pci_read8(const struct pci_device *d, unsigned offset)
{
    return pci_read32(d, offset) >> (offset & 3) * 8;
}

void pci_write32(const struct pci_device *d, unsigned offset, uint32_t v)
{
    outl(ADDRESS, d->address | (offset & 0xfc));
    outl(DATA, v);
}

void pci_write16(const struct pci_device *d, unsigned offset, uint16_t v)
{
    outl(ADDRESS, d->address | (offset & 0xfc));
    outw(DATA + (offset & 2), v);
}

void pci_write8(const struct pci_device *d, unsigned offset, uint8_t v)
{
    outl(ADDRESS, d->address | (offset & 0xfc));
    outb(DATA + (offset & 3), v);
}

static bool probe(unsigned slot, unsigned function, struct pci_device *ret)
{
    ret->address = 0x80000000u | slot << 11 | function << 8;
    ret->id = pci_read32(ret, 0);
    return ret->id != 0xffffffffu;
}

bool pci_find(uint32_t id, unsigned index, struct pci_device *ret)
{
    struct pci_device d;

    for (unsigned slot = 0; slot < 32; slot++) {
        if (!probe(slot, 0, &d))
            continue;
        unsigned functions = pci_read8(&d, 0x0e) & 0x80 ? 8 : 1;
        for (unsigned f = 0; f < functions; f++)
            if (probe(slot, f, &d) && d.id == id && index-- == 0) {
                *ret = d;
                return true;
            }
    }
    return false;
}

static void place_bar(const struct pci_device *d, unsigned i, uint32_t type)
{
    unsigned offset = BAR0 + 4 * i;
    uint32_t size;

    pci_write32(d, offset, ~0u);
    size = ~(pci_read32(d, offset) & BAR_MASK) + 1;
    if (size == 0)
        return;
    next_free = (next_free + size - 1) & ~(size - 1);
    pci_write32(d, offset, next_free | type);
    if (type == BAR_64)
        pci_write32(d, offset + 4, 0);
    next_free += size;
}

void pci_enable(const struct pci_device *d)
{
    pci_write16(d, COMMAND, 0x400); /* decode nothing while BARs move */
    for (unsigned i = 0; i < BARS; i++) {
        uint32_t bar = pci_read32(d, BAR0 + 4 * i), type = bar & BAR_TYPE;
        if (bar & BAR_IO)
            continue;
        bool high = type == BAR_64 && pci_read32(d, BAR0 + 4 * i + 4) != 0;
        if ((bar & BAR_MASK) == 0 || high)
            place_bar(d, i, type);
        i += type == BAR_64;
    }
    pci_write16(d, COMMAND, 0x406);
}

uintptr_t pci_bar(const struct pci_device *d, unsigned i)
{
    return i < BARS ? pci_read32(d, BAR0 + 4 * i) & BAR_MASK : 0;
}

unsigned pci_capability(const struct pci_device *d, uint8_t kind, unsigned after)
{
    unsigned offset = after ? pci_read8(d, after + 1) : 0;

    if (!after && pci_read16(d, STATUS) & 0x10)
        offset = pci_read8(d, CAPABILITIES);
    for (int turns = 0; offset >= 0x40 && turns < 48; turns++) {
        if (pci_read8(d, offset) == kind)
            return offset;
        offset = pci_read8(d, offset + 1);
    }
    return 0;
}
