/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the machine can be made of: one constructor a device. All take the host (borrowed), return a Device
 * (owned by the caller) or NULL with errp, and have registered their state.
 *
 * Order: the PCI host before devices that have a slot, and destroyed after them. Constructors and destroy run
 * before the loop is started, after it has ended, or with its lock held; every other call with the lock held
 * or the loop parked.
 *
 *     struct device_host host = {.memory = ram, .loop = loop, .set_irq = ..., ...};
 *     Device *pci = pci_host_new(&host, &err);
 *     Device *net = virtio_net_new(&host, "net0", 2, mac, port, &err);
 *     net->class->reset(net);                    // the guest reboots
 *     net->class->take_over(net);                // a state was loaded, and this side goes on
 *     net->class->announce(net);
 *     net->class->destroy(net);
 *     pci->class->destroy(pci);
 *
 * A load may happen while the device is in any state, and again and again (a standby is checked by loading
 * and saving): it maps BARs and doorbells as the state says, stops what the device did before, and touches
 * neither guest RAM nor the outside until take_over.
 */
#ifndef DEVICE_DEVICES_H
#define DEVICE_DEVICES_H

#include "block/block.h"
#include "device/device.h"
#include "net/console_gate.h"
#include "net/net.h"

/* 16550A at 0x3f8, GSI 4. Output goes to gate (borrowed); input comes by serial_input(). */
Device *serial_new(struct device_host *h, ConsoleGate *gate, Error **errp);
/* Bytes typed at the console; returns how many were taken (the receive FIFO is full: try again when
 * serial_on_room calls: then it is empty). */
size_t serial_input(Device *serial, const void *buf, size_t n);
void serial_on_room(Device *serial, void (*room)(void *opaque), void *opaque);

/* MC146818 at 0x70/0x71: date and time. */
Device *rtc_new(struct device_host *h, Error **errp);

/* ACPI fixed hardware: PM1a event 0x600 (4), PM1a control 0x604 (2), PM timer 0x608 (4), SCI = GSI 9; reset
 * through 0x64 (0xfe); S5 is SLP_TYP 5. A panic doorbell port 0x510: any write is GUEST_REQUEST_PANIC. */
#define PM_PM1A_EVENT   0x600
#define PM_PM1A_CONTROL 0x604
#define PM_TIMER        0x608
#define PM_SCI_GSI      9
#define PM_S5_TYPE      5
#define PM_PANIC_PORT   0x510
Device *pm_new(struct device_host *h, Error **errp);
void pm_power_button(Device *pm);

/* The PCI host bridge: configuration through 0xcf8/0xcfc, reset through 0xcf9, 32 slots on bus 0 (it is slot
 * 0 itself), 32-bit memory window for BARs at 0xc0000000, size 0x3ec00000 (below the IOAPIC at 0xfec00000).
 * BARs come assigned, with decoding off. */
#define PCI_WINDOW_BASE 0xc0000000u
#define PCI_WINDOW_SIZE 0x3ec00000u
Device *pci_host_new(struct device_host *h, Error **errp); /* sets h->pci */

/* port is taken, also when it fails. mac all zero: one is made from the id and the machine's name by the
 * caller. */
Device *virtio_net_new(struct device_host *h, const char *id, unsigned slot, const uint8_t mac[6],
                       NetPort *port, Error **errp);
/* top, the disk's chain, is taken, also when it fails. Several queues (VIRTIO_QUEUES_SAVED at most): guests use
 * one a processor. */
Device *virtio_blk_new(struct device_host *h, const char *id, unsigned slot, Block *top, unsigned queues,
                       Error **errp);
/*
 * virtio-console: up to 9 ports. Port 0 is the guest's hvc0; the others are channels with a name
 * (/dev/virtio-ports/NAME). Output goes to each port's gate, input comes by virtio_console_input(). The guest
 * is told which ports have somebody at the other end.
 */
#define CONSOLE_PORTS_MAX 9
struct console_port {
    ConsoleGate *gate; /* borrowed; NULL: there is no such port (port 0 may be left out) */
    char name[64];     /* empty: none */
    bool console;
    /* Loop lock held: the guest can take input again. */
    void (*room)(void *opaque);
    /* Loop lock held, or the loop parked: whoever is at the other end talked to a guest that is not this one
     * any more (a state was loaded), and must begin anew. */
    void (*cut)(void *opaque);
    void *opaque;
};
Device *virtio_console_new(struct device_host *h, unsigned slot, const struct console_port *ports,
                           unsigned count, Error **errp);
/* Loop lock held: these three. How many bytes were taken; try again when room calls. */
size_t virtio_console_input(Device *console, unsigned port, const void *buf, size_t n);
void virtio_console_set_open(Device *console, unsigned port, bool open);
/* The port's gate has room again, which the gate itself cannot know (console_gate_set_room). */
void virtio_console_resume_output(Device *console, unsigned port);

/* The host's random bytes. */
Device *virtio_rng_new(struct device_host *h, unsigned slot, Error **errp);

#endif
