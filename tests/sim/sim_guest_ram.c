/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_guest_ram.h"

#include <assert.h>
#include <string.h>

#define PAGE_WORDS (GUEST_PAGE_SIZE / 8)

static struct sim_rng quirks; /* of the host, not of the guest: how much one collect takes */
static uint64_t burst_one_in;

void guest_ram_init(uint64_t seed)
{
    quirks = sim_rng_make(seed, 7);
    burst_one_in = 1 + sim_rng_below(&quirks, 200);
}

/* Four lanes, so that the multiplications overlap: half of a run's time would go here. */
uint64_t sim_bytes_digest(const void *p, size_t n)
{
    uint64_t lanes[4] = {1, 2, 3, 4}, w;

    assert(n % 8 == 0);
    for (size_t i = 0; i < n; i += 8) {
        uint64_t *h = &lanes[i / 8 % 4];

        memcpy(&w, (const uint8_t *)p + i, 8);
        *h = (*h ^ w) * UINT64_C(0x9fb21c651e98df25);
        *h ^= *h >> 32;
    }
    return sim_mix(lanes[0] + sim_mix(lanes[1] + sim_mix(lanes[2] + sim_mix(lanes[3]))));
}

bool guest_ram_new(struct guest_ram *r, uint64_t pages, Error **errp)
{
    assert(pages <= GUEST_RAM_MAX);
    *r = (struct guest_ram){.memory = guest_memory_new(pages * GUEST_PAGE_SIZE, errp)};
    return r->memory;
}

void guest_ram_free(struct guest_ram *r)
{
    guest_memory_free(r->memory);
}

static void write_page(struct guest_ram *r, uint64_t page, size_t offset, const void *data, size_t n)
{
    if (!guest_memory_write(r->memory, guest_memory_page_gpa(r->memory, page) + offset, data, n))
        assert(!"inside the RAM");
}

static void fill_page(struct guest_ram *r, uint64_t page, struct sim_rng *rng, bool zero)
{
    uint64_t words[PAGE_WORDS] = {0};

    for (size_t i = 0; i < PAGE_WORDS && !zero; i++)
        words[i] = sim_rng_next(rng);
    if (r)
        write_page(r, page, 0, words, sizeof(words));
}

/* r NULL: tells which pages, and writes nothing. */
static uint64_t write_some(struct guest_ram *r, uint64_t pages, struct sim_rng *rng)
{
    uint64_t n = 1 + sim_rng_below(rng, 3), which = 0;

    if (sim_rng_one_in(rng, 20 * burst_one_in))
        n = 2 * pages;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t page = 1 + sim_rng_below(rng, pages - 1), value = sim_rng_next(rng);

        which |= UINT64_C(1) << page;
        if (value % 32 < 2)
            fill_page(r, page, rng, value % 32);
        else if (r)
            write_page(r, page, 8 * (value / 64 % PAGE_WORDS), &value, sizeof(value));
    }
    return which;
}

uint64_t guest_ram_needs(const struct guest_ram *r, struct sim_rng rng)
{
    return 1 | write_some(NULL, r->memory->page_count, &rng);
}

void guest_ram_step(struct guest_ram *r, struct sim_rng *rng, uint64_t step)
{
    write_page(r, 0, 0, &step, sizeof(step));
    write_some(r, r->memory->page_count, rng);
}

void guest_ram_note(struct guest_ram *r, uint32_t client, uint64_t value)
{
    write_page(r, 0, 64 * (client + 1), &value, sizeof(value));
}

void guest_ram_reset(struct guest_ram *r)
{
    for (uint64_t p = 1; p < r->memory->page_count; p += 2)
        fill_page(r, p, NULL, true);
}

bool guest_ram_clear(struct guest_ram *r, bool keep, Error **errp)
{
    r->tracking = false;
    r->changed = r->waiting = 0;
    return keep || guest_memory_clear(r->memory, errp);
}

void guest_ram_track(struct guest_ram *r, bool equal)
{
    guest_memory_take_dirty(r->memory, &r->changed);
    r->changed = 0;
    if (!equal)
        guest_memory_populated(r->memory, &r->changed);
    r->waiting = 0;
    r->tracking = true;
}

static void harvest(struct guest_ram *r)
{
    guest_memory_take_dirty(r->memory, &r->changed);
}

bool guest_ram_collect(struct guest_ram *r, Staging *s)
{
    uint64_t most = sim_rng_one_in(&quirks, 30) ? 1 + sim_rng_below(&quirks, 8) : r->memory->page_count;

    if (!r->waiting) {
        harvest(r);
        r->waiting = r->changed;
        r->changed = 0;
    }
    while (r->waiting && most--) {
        uint64_t page = (uint64_t)__builtin_ctzll(r->waiting);

        if (!staging_add(s, page, guest_memory_page_host(r->memory, page)))
            break;
        r->waiting &= r->waiting - 1;
    }
    return r->waiting;
}

uint64_t guest_ram_take_changed(struct guest_ram *r)
{
    uint64_t all;

    harvest(r);
    all = r->changed | r->waiting;
    r->changed = r->waiting = 0;
    return all;
}

uint64_t guest_ram_changed(struct guest_ram *r)
{
    harvest(r);
    return (uint64_t)__builtin_popcountll(r->changed | r->waiting);
}

uint64_t guest_ram_page_digest(struct guest_ram *r, uint64_t page)
{
    return sim_mix(sim_bytes_digest(guest_memory_page_host(r->memory, page), GUEST_PAGE_SIZE) + page);
}

uint64_t guest_ram_digest(struct guest_ram *r)
{
    uint64_t sum = 0;

    for (uint64_t p = 0; p < r->memory->page_count; p++)
        sum += guest_ram_page_digest(r, p);
    return sum;
}
