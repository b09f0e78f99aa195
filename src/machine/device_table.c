/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/device_table.h"
#include "block/raw.h"
#include "device/virtio.h"
#include "net/output_buffer.h"

#include <string.h>

static Device *make_serial(struct device_table *t, int i, Error **errp)
{
    (void)i;
    return t->serial = serial_new(t->host, t->gate, errp);
}

static Device *make_rtc(struct device_table *t, int i, Error **errp)
{
    (void)i;
    return rtc_new(t->host, errp);
}

static Device *make_pm(struct device_table *t, int i, Error **errp)
{
    (void)i;
    return t->pm = pm_new(t->host, errp);
}

static Device *make_pci(struct device_table *t, int i, Error **errp)
{
    (void)i;
    return pci_host_new(t->host, errp);
}

/* raw image -> replication filter (a disk that is copied) -> virtio-blk */
static Block *open_disk(struct device_table *t, const struct machine_disk *d, Error **errp)
{
    Block *raw = block_raw_open(&(struct block_raw_options){.id = d->id,
                                                            .path = d->path,
                                                            .readonly = d->readonly,
                                                            .elsewhere = d->shared && t->elsewhere,
                                                            .loop = t->host->loop},
                                errp);
    Block *top;

    if (raw && d->shared)
        t->shared[t->shared_count++] = raw;
    if (!raw || !machine_disk_is_copied(d))
        return raw;
    top = replication_filter_new(t->disks, raw, errp);
    if (!top)
        block_close(raw);
    return top;
}

static Device *make_disk(struct device_table *t, int i, Error **errp)
{
    const struct machine_config *c = &t->setup->config;
    const struct machine_disk *d = &c->disks[i];
    unsigned queues = c->cpus < VIRTIO_QUEUES_SAVED ? c->cpus : VIRTIO_QUEUES_SAVED;
    Block *top = open_disk(t, d, errp);

    return top ? virtio_blk_new(t->host, d->id, t->setup->disk_slot[i], top, queues, errp) : NULL;
}

/* NIC -> output buffer -> tap */
static Device *make_net(struct device_table *t, int i, Error **errp)
{
    const struct machine_net *n = &t->setup->config.nets[i];
    NetPort *tap = n->tap[0]      ? net_tap_open(n->id, n->tap, errp)
                   : n->bridge[0] ? net_tap_open_on_bridge(n->id, n->bridge, errp)
                                  : net_null_open(n->id);
    NetPort *buffer;

    if (!tap)
        return NULL;
    buffer = net_output_buffer_new(tap, OUTPUT_BUFFER_BYTES_DEFAULT, errp);
    return buffer ? virtio_net_new(t->host, n->id, t->setup->net_slot[i], n->mac, buffer, errp) : NULL;
}

static Device *make_rng(struct device_table *t, int i, Error **errp)
{
    (void)i;
    return virtio_rng_new(t->host, t->setup->rng_slot, errp);
}

static Device *make_console(struct device_table *t, int i, Error **errp)
{
    (void)i;
    return t->console = virtio_console_new(t->host, t->setup->console_slot, t->channels->ports,
                                           t->channels->port_count, errp);
}

static int count_disks(const struct machine_setup *s)
{
    return s->config.disk_count;
}

static int count_nets(const struct machine_setup *s)
{
    return s->config.net_count;
}

static int count_console(const struct machine_setup *s)
{
    return s->config.channel_count != 0;
}

static int count_rng(const struct machine_setup *s)
{
    return s->rng_slot != 0;
}

/* A new device is one line here. count NULL: one of it. */
static const struct {
    Device *(*make)(struct device_table *t, int i, Error **errp);
    int (*count)(const struct machine_setup *s);
} table[] = {
    {make_serial, NULL},      {make_rtc, NULL},       {make_pm, NULL},       {make_pci, NULL},
    {make_disk, count_disks}, {make_net, count_nets}, {make_rng, count_rng}, {make_console, count_console},
};

static void add(struct device_table *t, Device *d)
{
    d->next = NULL;
    if (t->last)
        t->last->next = d;
    else
        t->first = d;
    t->last = d;
}

bool device_table_make(struct device_table *t, Error **errp)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        int count = table[i].count ? table[i].count(t->setup) : 1;

        for (int n = 0; n < count; n++) {
            Device *d = table[i].make(t, n, errp);

            if (!d) {
                device_table_destroy(t);
                return false;
            }
            add(t, d);
        }
    }
    return true;
}

/* Lists are short: the last one is looked up each time. */
void device_table_destroy(struct device_table *t)
{
    while (t->first) {
        Device **at = &t->first;

        while ((*at)->next)
            at = &(*at)->next;
        Device *d = *at;
        *at = NULL;
        d->class->destroy(d);
    }
    t->last = t->serial = t->pm = t->console = NULL;
    t->shared_count = 0;
}
