/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI configuration through 0xcf8/0xcfc, bus 0. BARs that nobody placed are placed from 0xd0000000 on. */
#ifndef GUESTS_LIB_PCI_H
#define GUESTS_LIB_PCI_H

#include <stdbool.h>
#include <stdint.h>

struct pci_device {
    uint32_t address; /* for 0xcf8 */
    uint32_t id;      /* device << 16 | vendor */
};

/* The index-th device of that id; false: there is none. */
bool pci_find(uint32_t id, unsigned index, struct pci_device *ret);
uint8_t pci_read8(const struct pci_device *d, unsigned offset);
uint16_t pci_read16(const struct pci_device *d, unsigned offset);
uint32_t pci_read32(const struct pci_device *d, unsigned offset);
void pci_write8(const struct pci_device *d, unsigned offset, uint8_t v);
void pci_write16(const struct pci_device *d, unsigned offset, uint16_t v);
void pci_write32(const struct pci_device *d, unsigned offset, uint32_t v);
/* Memory decoding and bus mastering on, INTx off, every memory BAR placed. */
void pci_enable(const struct pci_device *d);
/* Where memory BAR i lies; 0: nowhere. */
uintptr_t pci_bar(const struct pci_device *d, unsigned i);
/* Offset of the next capability of that kind behind after (0: the first); 0: no more. */
unsigned pci_capability(const struct pci_device *d, uint8_t kind, unsigned after);

#endif
