/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device: a virtual device, and what it may ask of the machine around it.
 *
 * A device is one file that ends in its `const struct device_class`, and one line in machine/device_table.c.
 * It never includes the machine: it raises interrupts and claims addresses through struct device_host. Every
 * handler (port, memory, timer, descriptor) runs with the loop lock held; while the machine is paused none
 * runs. State is saved through a VMStateDescription that the device registers in its create and unregisters
 * in its destroy.
 */
#ifndef DEVICE_DEVICE_H
#define DEVICE_DEVICE_H

#include "base/loop.h"
#include "guest/guest.h"
#include <perdure/vmstate.h>

/* Offsets are relative to the region; size is 1, 2, 4 or 8. A read of nothing is all ones. */
struct io_ops {
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
};

enum io_space { IO_PORT, IO_MEMORY };

struct pci_bus;

struct device_host {
    GuestMemory *memory;
    Loop *loop;
    struct pci_bus *pci; /* NULL until the machine made it */
    void *opaque;
    /* Interrupt line (GSI) up or down. */
    void (*set_irq)(struct device_host *h, unsigned gsi, bool level);
    /* Synchronous: pending in the LAPIC when it returns. address and data are the guest's: anything may be in
     * them. */
    void (*send_msi)(struct device_host *h, uint64_t address, uint32_t data);
    /* false: overlaps RAM or another region. */
    bool (*map)(struct device_host *h, enum io_space space, uint64_t base, uint64_t size,
                const struct io_ops *ops, void *opaque, Error **errp);
    void (*unmap)(struct device_host *h, enum io_space space, uint64_t base);
    /* A write of any value and width to gpa signals fd, without an exit to the process. */
    bool (*map_doorbell)(struct device_host *h, uint64_t gpa, int fd, Error **errp);
    void (*unmap_doorbell)(struct device_host *h, uint64_t gpa, int fd);
    /* The guest asks for reset, power-off, or has panicked: its vCPUs stand still from here. */
    void (*request)(struct device_host *h, enum guest_request what);
};

typedef struct Device Device;

struct device_class {
    const char *name; /* "virtio-net" */
    void (*reset)(Device *d);
    /* After a state was loaded on a side that takes over, before the guest runs: look at every queue, signal
     * every vector once. */
    void (*take_over)(Device *d);
    /* NIC: sends RARP and raises GUEST_ANNOUNCE. NULL: nothing to announce. */
    void (*announce)(Device *d);
    void (*destroy)(Device *d); /* frees d; unregisters its state */
};

struct Device {
    const struct device_class *class;
    char id[32]; /* "net0", "serial" */
    struct device_host *host;
    Device *next; /* private to the machine */
};

/* Creation differs from device to device: each header has its own (virtio_net_new, serial_new, ...). */

#endif
