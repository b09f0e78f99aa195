/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/dirty_log.h"
#include "base/bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool dirty_log_init(struct dirty_log *d, struct kvm *k, GuestMemory *m, Error **errp)
{
    *d = (struct dirty_log){.kvm = k, .memory = m};
    d->pending = calloc(1, bitmap_bytes(m->page_count));
    d->scratch = calloc(1, bitmap_bytes(m->page_count));
    task_mutex_init(&d->lock);
    if (d->pending && d->scratch)
        return true;
    error_setg_errno(errp, ENOMEM, "dirty page bitmaps");
    dirty_log_destroy(d);
    return false;
}

bool dirty_log_add_rings(struct dirty_log *d, const struct vcpus *vcpus, Error **errp)
{
    return !d->kvm->ring_size || dirty_rings_init(&d->rings, d->kvm, d->memory, vcpus, errp);
}

void dirty_log_destroy(struct dirty_log *d)
{
    dirty_rings_destroy(&d->rings);
    if (d->kvm)
        task_mutex_destroy(&d->lock);
    d->kvm = NULL;
    free(d->pending);
    free(d->scratch);
    d->pending = d->scratch = NULL;
}

static bool set_logging(struct dirty_log *d, bool on, Error **errp)
{
    for (int i = 0; i < d->memory->block_count; i++) {
        const struct ram_block *b = &d->memory->blocks[i];

        if (!kvm_set_slot(d->kvm, (unsigned)i, b->gpa, b->size, b->host, on, errp))
            return false;
    }
    return true;
}

/* --- KVM's bitmap --- */

/* A block's part of a bitmap over all pages: blocks begin at multiples of 64 pages. */
static uint64_t *block_bits(const struct ram_block *b, uint64_t *map)
{
    return map + b->first_page / 64;
}

static bool get_log(struct dirty_log *d, int slot, Error **errp)
{
    const struct ram_block *b = &d->memory->blocks[slot];
    struct kvm_dirty_log log = {.slot = (uint32_t)slot, .dirty_bitmap = block_bits(b, d->scratch)};

    return kvm_call(d->kvm->vm, KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG", errp);
}

/* Forgets the pages in scratch and protects them again: one call over the whole slot. */
static bool clear_log(struct dirty_log *d, int slot, Error **errp)
{
    const struct ram_block *b = &d->memory->blocks[slot];
    struct kvm_clear_dirty_log clear = {
        .slot = (uint32_t)slot,
        .num_pages = (uint32_t)(b->size >> GUEST_PAGE_SHIFT),
        .dirty_bitmap = block_bits(b, d->scratch),
    };

    return kvm_call(d->kvm->vm, KVM_CLEAR_DIRTY_LOG, &clear, "KVM_CLEAR_DIRTY_LOG", errp);
}

static bool any_bit(const struct ram_block *b, uint64_t *map)
{
    uint64_t pages = b->size >> GUEST_PAGE_SHIFT;

    return bitmap_find_next(block_bits(b, map), pages, 0) < pages;
}

static bool harvest_bitmap(struct dirty_log *d, Error **errp)
{
    for (int i = 0; i < d->memory->block_count; i++) {
        if (!get_log(d, i, errp))
            return false;
        /* Into pending even if the clear fails: a page more does no harm. */
        if (!any_bit(&d->memory->blocks[i], d->scratch))
            continue;
        bitmap_or(block_bits(&d->memory->blocks[i], d->pending),
                  block_bits(&d->memory->blocks[i], d->scratch),
                  d->memory->blocks[i].size >> GUEST_PAGE_SHIFT);
        if (!clear_log(d, i, errp))
            return false;
    }
    return true;
}

/* --- rings; lock held --- */

static bool drain(struct dirty_log *d, uint64_t *map, Error **errp)
{
    return dirty_rings_collect(&d->rings, map, errp) && dirty_rings_protect(&d->rings, &d->torn, errp);
}

/* All pages are protected that way, and any may have changed. */
static bool begin_anew(struct dirty_log *d, Error **errp)
{
    if (!set_logging(d, false, errp) || !set_logging(d, true, errp))
        return false;
    guest_memory_populated(d->memory, d->pending);
    d->torn = false;
    return true;
}

static bool harvest_rings(struct dirty_log *d, Error **errp)
{
    bool ok = drain(d, d->pending, errp) && (!d->torn || begin_anew(d, errp));

    dirty_rings_age(&d->rings);
    return ok;
}

/* --- both --- */

bool dirty_log_harvest(struct dirty_log *d, Error **errp)
{
    bool ok = true;

    task_lock(&d->lock);
    if (d->on)
        ok = d->rings.count ? harvest_rings(d, errp) : harvest_bitmap(d, errp);
    if (ok)
        guest_memory_take_dirty(d->memory, d->pending);
    task_unlock(&d->lock);
    d->next = 0;
    return ok;
}

bool dirty_log_relieve(struct dirty_log *d, Error **errp)
{
    bool ok;

    task_lock(&d->lock);
    ok = drain(d, d->memory->dirty, errp);
    task_unlock(&d->lock);
    return ok;
}

uint64_t dirty_log_writers(struct dirty_log *d)
{
    uint64_t writers;

    task_lock(&d->lock);
    writers = dirty_rings_writers(&d->rings);
    task_unlock(&d->lock);
    return writers;
}

bool dirty_log_start(struct dirty_log *d, bool equal, Error **errp)
{
    memset(d->pending, 0, bitmap_bytes(d->memory->page_count));
    dirty_rings_forget(&d->rings);
    if (!set_logging(d, true, errp)) {
        set_logging(d, false, NULL);
        return false;
    }
    d->on = true;
    /* KVM's log begins with every page in it; what it says after this first harvest is true. What is
     * populated is looked up after that: a page that comes later is in the log. */
    if (!dirty_log_harvest(d, errp)) {
        dirty_log_stop(d);
        return false;
    }
    memset(d->pending, 0, bitmap_bytes(d->memory->page_count));
    if (!equal)
        guest_memory_populated(d->memory, d->pending);
    d->next = 0;
    return true;
}

void dirty_log_stop(struct dirty_log *d)
{
    d->on = false;
    set_logging(d, false, NULL);
    task_lock(&d->lock);
    drain(d, d->pending, NULL); /* nothing is left for the next time */
    d->torn = false;
    task_unlock(&d->lock);
    memset(d->pending, 0, bitmap_bytes(d->memory->page_count));
}

void dirty_log_copy(struct dirty_log *d, Staging *s, bool *ret_more)
{
    uint64_t page = bitmap_find_next(d->pending, d->memory->page_count, d->next);

    while (page < d->memory->page_count && staging_add(s, page, guest_memory_page_host(d->memory, page))) {
        bitmap_clear(d->pending, page);
        page = bitmap_find_next(d->pending, d->memory->page_count, page + 1);
    }
    d->next = page;
    *ret_more = page < d->memory->page_count;
}

bool dirty_log_take(struct dirty_log *d, uint64_t *map, Error **errp)
{
    if (!dirty_log_harvest(d, errp))
        return false;
    bitmap_or(map, d->pending, d->memory->page_count);
    memset(d->pending, 0, bitmap_bytes(d->memory->page_count));
    return true;
}

bool dirty_log_pending(const struct dirty_log *d)
{
    return bitmap_find_next(d->pending, d->memory->page_count, d->next) < d->memory->page_count;
}

uint64_t dirty_log_estimate(struct dirty_log *d)
{
    memset(d->scratch, 0, bitmap_bytes(d->memory->page_count));
    task_lock(&d->lock);
    dirty_rings_peek(&d->rings, d->scratch);
    task_unlock(&d->lock);
    for (int i = 0; d->on && !d->rings.count && i < d->memory->block_count; i++)
        get_log(d, i, NULL);
    bitmap_or(d->scratch, d->pending, d->memory->page_count);
    for (size_t i = 0; i < bitmap_words(d->memory->page_count); i++)
        d->scratch[i] |= __atomic_load_n(&d->memory->dirty[i], __ATOMIC_RELAXED);
    return bitmap_popcount(d->scratch, d->memory->page_count);
}
