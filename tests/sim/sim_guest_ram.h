/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated guest's RAM: the product's GuestMemory, patterns written into it step by step, change
 * tracking, and a digest of all of it.
 */
#ifndef SIM_GUEST_RAM_H
#define SIM_GUEST_RAM_H

#include "guest/memory.h"
#include "guest/staging.h"
#include "sim_random.h"

#define GUEST_RAM_MAX 64 /* pages: one word of a bitmap */

struct guest_ram {
    GuestMemory *memory;
    bool tracking;
    uint64_t changed; /* since tracking began or the last harvest */
    uint64_t waiting; /* harvested, did not fit into the staging yet */
};

void guest_ram_init(uint64_t seed);
bool guest_ram_new(struct guest_ram *r, uint64_t pages, Error **errp);
void guest_ram_free(struct guest_ram *r);
/* The pages that a step writes: one bit a page. */
uint64_t guest_ram_needs(const struct guest_ram *r, struct sim_rng rng);
/* One step's writes. */
void guest_ram_step(struct guest_ram *r, struct sim_rng *rng, uint64_t step);
/* Writes what a client's request left behind. */
void guest_ram_note(struct guest_ram *r, uint32_t client, uint64_t value);
void guest_ram_reset(struct guest_ram *r);
bool guest_ram_clear(struct guest_ram *r, bool keep, Error **errp);
void guest_ram_track(struct guest_ram *r, bool equal);
/* True: more is waiting. */
bool guest_ram_collect(struct guest_ram *r, Staging *s);
/* All that collect would. */
uint64_t guest_ram_take_changed(struct guest_ram *r);
uint64_t guest_ram_changed(struct guest_ram *r);
/* Of all of it: the sum of the pages' digests. */
uint64_t guest_ram_digest(struct guest_ram *r);
uint64_t guest_ram_page_digest(struct guest_ram *r, uint64_t page);
uint64_t sim_bytes_digest(const void *p, size_t n);

#endif
