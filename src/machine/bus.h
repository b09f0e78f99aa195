/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bus: which device answers at which address, in the port and in the memory space.
 *
 * The vCPUs' exits come here with the loop lock held; devices map and unmap (a guest moving a BAR) under the
 * same lock. A read of nothing is all ones, a write to nothing is lost. An access that begins in a region and
 * ends outside it counts as outside.
 */
#ifndef MACHINE_BUS_H
#define MACHINE_BUS_H

#include "device/device.h"

#define BUS_REGIONS_MAX 256

struct bus_region {
    uint64_t base, size;
    const struct io_ops *ops; /* NULL: taken by KVM itself; nothing is ever dispatched there */
    void *opaque;
};

struct bus_space {
    struct bus_region regions[BUS_REGIONS_MAX]; /* sorted by base */
    int count;
};

struct bus {
    struct bus_space spaces[2]; /* by enum io_space */
};

/* false: empty, beyond the space (ports end at 64 Ki), overlapping another region, or too many regions. */
bool bus_map(struct bus *b, enum io_space space, uint64_t base, uint64_t size, const struct io_ops *ops,
             void *opaque, Error **errp);
/* The region that begins at base; nothing happens if there is none. */
void bus_unmap(struct bus *b, enum io_space space, uint64_t base);

/* size: 1, 2, 4 or 8. */
uint64_t bus_read(struct bus *b, enum io_space space, uint64_t addr, unsigned size);
void bus_write(struct bus *b, enum io_space space, uint64_t addr, uint64_t value, unsigned size);

#endif
