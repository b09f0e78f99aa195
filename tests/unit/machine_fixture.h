/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine without processors: one of every device, on the buses of device_fixture.h, and a guest that has
 * given each of them something to do. For tests of what a peer may send as its state.
 *
 *     struct machine_fixture *m = machine_fixture_new();
 *     machine_fixture_add_devices(m, disk);             // on m->f->host's loop, perhaps; the disk is taken
 *     machine_fixture_work(m);                          // loop parked, or not started; RAM from 0xa0000 is free
 *     ...
 *     machine_fixture_free(m);
 */
#ifndef TESTS_MACHINE_FIXTURE_H
#define TESTS_MACHINE_FIXTURE_H

#include "virtio_fixture.h"

#define MACHINE_DISK_SLOT  1
#define MACHINE_NIC_SLOT   2
#define MACHINE_RNG_SLOT   17
#define MACHINE_PORTS_SLOT 18
#define MACHINE_DEVICES    8

struct machine_fixture {
    struct fixture *f;
    ConsoleGate *gate, *hvc;
    Device *devices[MACHINE_DEVICES];
    struct driver disk, nic, rng, ports;
};

static const uint8_t machine_mac[6] = {0x52, 0x54, 0, 1, 2, 3};

static inline void machine_discard(void *opaque, const void *buf, size_t n)
{
    (void)opaque, (void)buf, (void)n;
}

static inline size_t machine_little_room(void *opaque)
{
    (void)opaque;
    return 10;
}

static inline void machine_nothing(void *opaque)
{
    (void)opaque;
}

static inline struct machine_fixture *machine_fixture_new(void)
{
    struct machine_fixture *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    m->f = fixture_new();
    return m;
}

static inline void machine_fixture_add_devices(struct machine_fixture *m, Block *disk)
{
    struct console_port ports[2] = {{.console = true, .room = machine_nothing, .cut = machine_nothing},
                                    {.name = "agent", .room = machine_nothing, .cut = machine_nothing}};
    struct device_host *h = &m->f->host;

    m->gate = console_gate_new("console", machine_discard, NULL, 4096, NULL);
    m->hvc = console_gate_new("hvc", machine_discard, NULL, 4096, NULL);
    console_gate_set_room(m->hvc, machine_little_room);
    ports[0].gate = ports[1].gate = m->hvc;
    m->devices[0] = serial_new(h, m->gate, NULL);
    m->devices[1] = rtc_new(h, NULL);
    m->devices[2] = pm_new(h, NULL);
    m->devices[3] = pci_host_new(h, NULL);
    m->devices[4] = virtio_blk_new(h, "root", MACHINE_DISK_SLOT, disk, 2, NULL);
    m->devices[5] = virtio_net_new(h, "net0", MACHINE_NIC_SLOT, machine_mac, net_null_open("net0"), NULL);
    m->devices[6] = virtio_rng_new(h, MACHINE_RNG_SLOT, NULL);
    m->devices[7] = virtio_console_new(h, MACHINE_PORTS_SLOT, ports, 2, NULL);
    for (unsigned i = 0; i < MACHINE_DEVICES; i++)
        assert_non_null(m->devices[i]);
}

static inline void machine_fixture_free(struct machine_fixture *m)
{
    for (unsigned i = MACHINE_DEVICES; i--;)
        device_destroy(m->devices[i]);
    console_gate_free(m->gate);
    console_gate_free(m->hvc);
    fixture_free(m->f);
    free(m);
}

/* As a guest would that looks at everything. */
static inline void machine_fixture_read_registers(struct machine_fixture *m)
{
    struct fixture *f = m->f;

    for (unsigned i = 0; i < f->region_count; i++)
        for (uint64_t o = 0; o + 4 <= f->regions[i].size && o < 64; o += 4)
            bus_read(f, f->regions[i].space, f->regions[i].base + o, f->regions[i].size % 4 ? 1 : 4);
    for (unsigned slot = 0; slot < 20; slot++)
        for (unsigned o = 0; o < 64; o += 4)
            config_read(f, slot, o, 4);
}

/* A driver whose queues lie where no other's do. */
static inline void machine_start_driver(struct machine_fixture *m, struct driver *d, unsigned slot,
                                        uint64_t base)
{
    driver_find(d, m->f, slot);
    d->base = base;
    driver_start(d, driver_offered(d));
}

/* A guest in the middle of things: requests at the disk, buffers at the NIC, bytes typed. */
static inline void machine_fixture_work(struct machine_fixture *m)
{
    machine_start_driver(m, &m->disk, MACHINE_DISK_SLOT, 0);
    for (unsigned i = 0; i < 3; i++) {
        driver_add(&m->disk, 0,
                   (struct buffer[]){{DRIVER_BUFFERS, 16, false},
                                     {DRIVER_BUFFERS + 512, 512, true},
                                     {DRIVER_BUFFERS + 100, 1, true}},
                   3);
    }
    driver_kick(&m->disk, 0);
    machine_start_driver(m, &m->nic, MACHINE_NIC_SLOT, 0x50000);
    driver_add(&m->nic, 0, &(struct buffer){DRIVER_BUFFERS + 0x1000, 1526, true}, 1);
    driver_kick(&m->nic, 0);
    machine_start_driver(m, &m->rng, MACHINE_RNG_SLOT, 0x60000);
    driver_add(&m->rng, 0, &(struct buffer){DRIVER_BUFFERS + 0x1000, 64, true}, 1);
    driver_kick(&m->rng, 0);
    machine_start_driver(m, &m->ports, MACHINE_PORTS_SLOT, 0x70000);
    driver_add(&m->ports, 5, &(struct buffer){DRIVER_BUFFERS, 64, false}, 1);
    driver_kick(&m->ports, 5);
    serial_input(m->devices[0], "typed", 5);
}

/* A state was loaded, and this side goes on. */
static inline void machine_fixture_take_over(struct machine_fixture *m)
{
    for (unsigned i = 0; i < MACHINE_DEVICES; i++)
        if (m->devices[i]->class->take_over)
            m->devices[i]->class->take_over(m->devices[i]);
}

static inline void machine_fixture_announce(struct machine_fixture *m)
{
    for (unsigned i = 0; i < MACHINE_DEVICES; i++)
        if (m->devices[i]->class->announce)
            m->devices[i]->class->announce(m->devices[i]);
}

#endif
