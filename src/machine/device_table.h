/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which devices a machine has, and in which order they are made (and saved): always the same for the same
 * configuration.
 */
#ifndef MACHINE_DEVICE_TABLE_H
#define MACHINE_DEVICE_TABLE_H

#include "block/replication_filter.h"
#include "device/devices.h"
#include "machine/channels.h"
#include "machine/machine_config.h"

struct device_table {
    struct device_host *host;
    const struct machine_setup *setup;
    ConsoleGate *gate;
    const struct channels *channels;
    ReplicationGroup *disks; /* of those that are copied */
    bool elsewhere;          /* shared images are another host's */
    Device *first, *last;
    Device *serial, *pm, *console;    /* console: NULL without channels */
    Block *shared[MACHINE_DISKS_MAX]; /* raw nodes, their devices' own */
    int shared_count;
};

/* On failure those already made are destroyed. */
bool device_table_make(struct device_table *t, Error **errp);
/* Last made, first destroyed. */
void device_table_destroy(struct device_table *t);

#endif
