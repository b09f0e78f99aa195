/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI: configuration space of one function, its BARs and capabilities; and bus 0, which the host bridge
 * (pci_host.c) owns.
 *
 * A device fills in the first part of struct pci_device, calls pci_init(), pci_add_bar() and
 * pci_add_capability() in any order, and then pci_attach(), after which the guest sees it. BARs come assigned
 * (as firmware would leave them), with decoding off until the guest sets the memory bit of the command
 * register. A BAR is decoded only inside the PCI window, so that no value of it can cover RAM or the
 * interrupt controllers.
 *
 * Everything runs under the loop lock. Saved: the writable bytes of the configuration space, through
 * pci_vmstate; the owner's post_load calls pci_post_load(), which refuses a state whose read-only bytes
 * differ from this device's and maps the BARs again.
 */
#ifndef DEVICE_PCI_H
#define DEVICE_PCI_H

#include <linux/pci_regs.h>

#include "device/device.h"

#define PCI_SLOTS       32
#define PCI_CONFIG_SIZE 256
#define PCI_BARS        6

struct pci_bar {
    uint32_t size;   /* a power of two of at least 16; 0: not there */
    uint32_t mapped; /* where it is decoded now; 0: nowhere */
    const struct io_ops *ops;
    void *opaque;
};

struct pci_device {
    /* set by the owner before pci_init; the callbacks may be NULL */
    const char *id; /* for messages; borrowed */
    struct device_host *host;
    unsigned slot;
    void *opaque;
    /* Before the guest reads, after it wrote, size bytes at offset of config. */
    void (*config_read)(struct pci_device *d, unsigned offset, unsigned size);
    void (*config_written)(struct pci_device *d, unsigned offset, unsigned size);
    /* After bar was mapped at address. */
    void (*bar_mapped)(struct pci_device *d, unsigned bar, uint32_t address);
    /* Before it goes away from address. */
    void (*bar_unmapping)(struct pci_device *d, unsigned bar, uint32_t address);

    uint8_t config[PCI_CONFIG_SIZE];
    /* private */
    uint8_t writable[PCI_CONFIG_SIZE]; /* masks */
    uint8_t initial[PCI_CONFIG_SIZE];
    struct pci_bar bars[PCI_BARS];
    unsigned capabilities_end;
};

struct pci_bus {
    struct pci_device *slots[PCI_SLOTS];
};

void pci_init(struct pci_device *d, uint16_t vendor, uint16_t device, uint32_t class_and_revision);
/* 32-bit memory; ops and opaque are borrowed. */
void pci_add_bar(struct pci_device *d, unsigned bar, uint32_t size, const struct io_ops *ops, void *opaque);
/* Room for size bytes (header included) in config, linked into the list; all read-only until made writable.
 * Its offset. */
unsigned pci_add_capability(struct pci_device *d, uint8_t id, unsigned size);
void pci_make_writable(struct pci_device *d, unsigned offset, unsigned size, uint32_t mask);

/* Puts d, now complete, on the bus. False: the slot is taken. */
bool pci_attach(struct pci_device *d, Error **errp);
void pci_detach(struct pci_device *d);
/* As after power-on. */
void pci_reset(struct pci_device *d);
/* The guest lets the device access memory. */
bool pci_is_bus_master(const struct pci_device *d);

uint32_t pci_config_read(struct pci_device *d, unsigned offset, unsigned size);
void pci_config_write(struct pci_device *d, unsigned offset, uint32_t value, unsigned size);

extern const VMStateDescription pci_vmstate;
bool pci_post_load(struct pci_device *d, Error **errp);

#endif
