/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MSI-X: the vectors of a PCI function: their table, masks and pending bits, in a BAR of their own.
 *
 * A vector that is masked (by itself or with the whole function) is remembered as pending and sent when the
 * mask goes. What is in the table is the guest's and goes to the host as it is. Everything runs under the
 * loop lock. Saved through msix_vmstate.
 */
#ifndef DEVICE_MSIX_H
#define DEVICE_MSIX_H

#include "device/pci.h"

#define MSIX_VECTORS_MAX 32
#define MSIX_BAR_SIZE    4096u
#define MSIX_PBA_OFFSET  2048u

struct msix {
    struct pci_device *pci;
    unsigned capability; /* offset in configuration space */
    unsigned vectors;
    uint32_t table[MSIX_VECTORS_MAX * 4]; /* address low, address high, data, control */
    uint64_t pending;
};

/* Adds the capability and the BAR to pci, which must not be attached yet. */
void msix_init(struct msix *m, struct pci_device *pci, unsigned bar, unsigned vectors);
void msix_reset(struct msix *m);
/* Sends vector (any number: one that is not there does nothing). */
void msix_notify(struct msix *m, unsigned vector);
/* Called by the owner's config_written. */
void msix_config_written(struct msix *m, unsigned offset, unsigned size);

extern const VMStateDescription msix_vmstate;
void msix_post_load(struct msix *m);

#endif
