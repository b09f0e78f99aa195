/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Channels: the ports of a machine's virtio-console, each with the gate that holds its output and the unix
 * socket where it ends on this host.
 *
 *     channels_open(&m->channels, &config, loop, &err);       // sockets and gates; none for no channels
 *     device = virtio_console_new(host, slot, m->channels.ports, m->channels.port_count, &err);
 *     channels_attach(&m->channels, device, &err);            // clients are let in
 *     channels_detach(&m->channels);                          // before the device goes
 *     channels_close(&m->channels);                           // after it
 *
 * Lock: as for console.h.
 */
#ifndef MACHINE_CHANNELS_H
#define MACHINE_CHANNELS_H

#include "machine/console.h"
#include "machine/machine.h"

struct channels {
    struct console_port ports[CONSOLE_PORTS_MAX]; /* by the number of the port */
    unsigned port_count;

    /* private */
    Device *device;
    struct channel {
        struct channels *owner;
        unsigned port;
        Console *socket;
        ConsoleGate *gate;
    } channels[MACHINE_CHANNELS_MAX];
    int count;
};

/* On failure channels_close() is still to be called. */
bool channels_open(struct channels *all, const struct machine_config *c, Loop *loop, Error **errp);
bool channels_attach(struct channels *all, Device *device, Error **errp);
void channels_detach(struct channels *all);
void channels_close(struct channels *all);

#endif
