/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_sector.h"
#include "sim_guest_ram.h"
#include "sim_runtime.h"

#include <string.h>

#define MAGIC UINT64_C(0x726f746365732121)

struct content {
    uint64_t magic, place, tag;
    struct sim_log_record record;
    uint64_t filling[(SIM_SECTOR - sizeof(struct sim_log_record)) / 8 - 4];
    uint64_t sum;
};
_Static_assert(sizeof(struct content) == SIM_SECTOR, "a sector");

uint64_t sim_log_digest(const struct sim_log_record *r)
{
    return sim_bytes_digest(r, sizeof(*r));
}

static uint64_t place_of(unsigned disk, uint64_t sector)
{
    return (uint64_t)disk << 32 | sector;
}

void sector_make(uint8_t *buf, unsigned disk, uint64_t sector, uint64_t tag, const struct sim_log_record *r)
{
    struct content c = {.magic = MAGIC, .place = place_of(disk, sector), .tag = tag};

    if (r)
        c.record = *r;
    c.filling[tag % 8] = sim_mix(tag + sector);
    c.sum = sim_bytes_digest(&c, sizeof(c) - sizeof(c.sum));
    memcpy(buf, &c, sizeof(c));
}

static bool is_zero(const uint8_t *buf)
{
    return !buf[0] && !memcmp(buf, buf + 1, SIM_SECTOR - 1);
}

uint64_t sector_tag(const uint8_t *buf, unsigned disk, uint64_t sector, struct sim_log_record *r)
{
    struct content c;

    if (r)
        *r = (struct sim_log_record){0};
    if (is_zero(buf))
        return 0;
    memcpy(&c, buf, sizeof(c));
    if (c.magic != MAGIC || c.place != place_of(disk, sector) ||
        c.sum != sim_bytes_digest(&c, sizeof(c) - sizeof(c.sum)))
        sim_fail("sector %llu of disk %u is nothing that the guest ever wrote there",
                 (unsigned long long)sector, disk);
    if (r)
        *r = c.record;
    return c.tag;
}
