/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/channels.h"

#include <stdio.h>
#include <string.h>

/* Of each channel: what its gate holds, and as much again that its client has not read. */
#define CHANNEL_LIMIT (256u << 10)

static size_t give_input(void *opaque, const void *buf, size_t n)
{
    struct channel *c = opaque;

    return virtio_console_input(c->owner->device, c->port, buf, n);
}

static void tell_opened(void *opaque, bool open)
{
    struct channel *c = opaque;

    virtio_console_set_open(c->owner->device, c->port, open);
}

static void tell_drained(void *opaque)
{
    struct channel *c = opaque;

    virtio_console_resume_output(c->owner->device, c->port);
}

/* Port 0 is for the console; the others count from 1, in the order of the configuration. */
static unsigned choose_port(const struct machine_config *c, int i)
{
    unsigned port = 1;

    if (c->channels[i].console)
        return 0;
    for (int j = 0; j < i; j++)
        port += !c->channels[j].console;
    return port;
}

static bool open_one(struct channel *c, const struct machine_channel *config, Loop *loop, Error **errp)
{
    struct console_port *port = &c->owner->ports[c->port];
    char spec[sizeof("unix:") + sizeof(config->socket)];

    snprintf(spec, sizeof(spec), "unix:%s", config->socket);
    c->socket = console_new("--channel", spec, loop, errp);
    if (!c->socket || !console_keep(c->socket, CHANNEL_LIMIT, errp))
        return false;
    c->gate = console_gate_new(config->id, console_write, c->socket, CHANNEL_LIMIT, errp);
    if (!c->gate)
        return false;
    console_gate_set_room(c->gate, console_room);
    *port = (struct console_port){.gate = c->gate,
                                  .console = config->console,
                                  .room = console_feed,
                                  .cut = console_cut,
                                  .opaque = c->socket};
    snprintf(port->name, sizeof(port->name), "%s", config->name);
    return true;
}

bool channels_open(struct channels *all, const struct machine_config *c, Loop *loop, Error **errp)
{
    for (all->count = 0; all->count < c->channel_count; all->count++) {
        struct channel *channel = &all->channels[all->count];

        *channel = (struct channel){.owner = all, .port = choose_port(c, all->count)};
        if (!open_one(channel, &c->channels[all->count], loop, errp)) {
            all->count++;
            return false;
        }
        if (channel->port >= all->port_count)
            all->port_count = channel->port + 1;
    }
    return true;
}

bool channels_attach(struct channels *all, Device *device, Error **errp)
{
    all->device = device;
    for (int i = 0; i < all->count; i++) {
        const struct console_device guest = {
            .input = give_input, .opened = tell_opened, .drained = tell_drained, .opaque = &all->channels[i]};

        if (!console_attach(all->channels[i].socket, &guest, errp))
            return false;
    }
    return true;
}

void channels_detach(struct channels *all)
{
    for (int i = 0; i < all->count; i++)
        if (all->channels[i].socket)
            console_detach(all->channels[i].socket);
}

void channels_close(struct channels *all)
{
    for (int i = 0; i < all->count; i++) {
        console_gate_free(all->channels[i].gate);
        console_free(all->channels[i].socket);
    }
    all->count = 0;
}
