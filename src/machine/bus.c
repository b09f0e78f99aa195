/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/bus.h"

#include <inttypes.h>
#include <string.h>

static const char *const space_names[] = {[IO_PORT] = "port", [IO_MEMORY] = "memory"};
static const uint64_t space_last[] = {[IO_PORT] = 0xffff, [IO_MEMORY] = UINT64_MAX};

/* Index of the first region whose base is above addr. */
static int upper_bound(const struct bus_space *s, uint64_t addr)
{
    int low = 0, high = s->count;

    while (low < high) {
        int middle = (low + high) / 2;

        if (s->regions[middle].base <= addr)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint64_t last_of(const struct bus_region *r)
{
    return r->base + (r->size - 1);
}

bool bus_map(struct bus *b, enum io_space space, uint64_t base, uint64_t size, const struct io_ops *ops,
             void *opaque, Error **errp)
{
    struct bus_space *s = &b->spaces[space];
    int at = upper_bound(s, base);
    const struct bus_region *clash = NULL;

    if (!size || base > space_last[space] || size - 1 > space_last[space] - base) {
        error_setg(errp, "%s region 0x%" PRIx64 "+0x%" PRIx64 " does not exist", space_names[space], base,
                   size);
        return false;
    }
    if (at > 0 && last_of(&s->regions[at - 1]) >= base)
        clash = &s->regions[at - 1];
    else if (at < s->count && s->regions[at].base <= base + (size - 1))
        clash = &s->regions[at];
    if (clash) {
        error_setg(errp, "%s region 0x%" PRIx64 "+0x%" PRIx64 " overlaps 0x%" PRIx64 "+0x%" PRIx64,
                   space_names[space], base, size, clash->base, clash->size);
        return false;
    }
    if (s->count == BUS_REGIONS_MAX) {
        error_setg(errp, "more than %d %s regions", BUS_REGIONS_MAX, space_names[space]);
        return false;
    }
    memmove(&s->regions[at + 1], &s->regions[at], (size_t)(s->count - at) * sizeof(s->regions[0]));
    s->regions[at] = (struct bus_region){.base = base, .size = size, .ops = ops, .opaque = opaque};
    s->count++;
    return true;
}

void bus_unmap(struct bus *b, enum io_space space, uint64_t base)
{
    struct bus_space *s = &b->spaces[space];
    int at = upper_bound(s, base) - 1;

    if (at < 0 || s->regions[at].base != base)
        return;
    s->count--;
    memmove(&s->regions[at], &s->regions[at + 1], (size_t)(s->count - at) * sizeof(s->regions[0]));
}

static const struct bus_region *find(const struct bus_space *s, uint64_t addr, unsigned size)
{
    int at = upper_bound(s, addr) - 1;
    const struct bus_region *r = at >= 0 ? &s->regions[at] : NULL;

    if (!r || !r->ops || addr - r->base >= r->size || r->size - (addr - r->base) < size)
        return NULL;
    return r;
}

uint64_t bus_read(struct bus *b, enum io_space space, uint64_t addr, unsigned size)
{
    const struct bus_region *r = find(&b->spaces[space], addr, size);

    return r && r->ops->read ? r->ops->read(r->opaque, addr - r->base, size) : UINT64_MAX;
}

void bus_write(struct bus *b, enum io_space space, uint64_t addr, uint64_t value, unsigned size)
{
    const struct bus_region *r = find(&b->spaces[space], addr, size);

    if (r && r->ops->write)
        r->ops->write(r->opaque, addr - r->base, value, size);
}
