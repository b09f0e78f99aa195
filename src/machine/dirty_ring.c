/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/dirty_ring.h"
#include "base/bitmap.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Times that KVM may protect nothing at all. */
#define PATIENCE 100

static size_t ring_bytes(const struct dirty_rings *r)
{
    return r->size * sizeof(struct kvm_dirty_gfn);
}

static bool map_ring(struct dirty_rings *r, const struct vcpu *v, Error **errp)
{
    void *p = mmap(NULL, ring_bytes(r), PROT_READ | PROT_WRITE, MAP_SHARED, v->fd,
                   KVM_DIRTY_LOG_PAGE_OFFSET * (off_t)GUEST_PAGE_SIZE);

    if (p == MAP_FAILED) {
        error_setg_errno(errp, errno, "mmap of vCPU %d's dirty ring", v->index);
        return false;
    }
    r->ring[r->count++].entry = p;
    return true;
}

bool dirty_rings_init(struct dirty_rings *r, struct kvm *k, const GuestMemory *m, const struct vcpus *vcpus,
                      Error **errp)
{
    *r = (struct dirty_rings){.kvm = k, .memory = m, .size = k->ring_size};
    r->ring = calloc((size_t)vcpus->count, sizeof(r->ring[0]));
    if (!r->ring) {
        error_setg_errno(errp, ENOMEM, "dirty rings");
        return false;
    }
    for (int i = 0; i < vcpus->count; i++) {
        if (!map_ring(r, &vcpus->cpu[i], errp)) {
            dirty_rings_destroy(r);
            return false;
        }
    }
    return true;
}

void dirty_rings_destroy(struct dirty_rings *r)
{
    for (int i = 0; i < r->count; i++)
        munmap(r->ring[i].entry, ring_bytes(r));
    free(r->ring);
    *r = (struct dirty_rings){0};
}

/* The entry with that number; NULL: KVM has not written it yet. */
static struct kvm_dirty_gfn *entry_at(const struct dirty_rings *r, const struct dirty_ring *ring, uint32_t n)
{
    struct kvm_dirty_gfn *e = &ring->entry[n & (r->size - 1)];

    return __atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY ? e : NULL;
}

/* Slots are the blocks of RAM. */
static bool page_of(const struct dirty_rings *r, const struct kvm_dirty_gfn *e, uint64_t *ret_page)
{
    uint32_t slot = e->slot;
    uint64_t offset = e->offset;
    const struct ram_block *b;

    if (slot >= (uint32_t)r->memory->block_count)
        return false;
    b = &r->memory->blocks[slot];
    if (offset >= b->size >> GUEST_PAGE_SHIFT)
        return false;
    *ret_page = b->first_page + offset;
    return true;
}

static bool collect_ring(struct dirty_rings *r, struct dirty_ring *ring, uint64_t *map)
{
    struct kvm_dirty_gfn *e;
    uint64_t page;

    for (; (e = entry_at(r, ring, ring->next)); ring->next++) {
        if (!page_of(r, e, &page))
            return false;
        bitmap_set_atomic(map, page);
        __atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
        r->collected++;
        ring->fresh++;
    }
    return true;
}

bool dirty_rings_collect(struct dirty_rings *r, uint64_t *map, Error **errp)
{
    for (int i = 0; i < r->count; i++) {
        if (!collect_ring(r, &r->ring[i], map)) {
            error_setg(errp, "the dirty ring of vCPU %d names a page that is no RAM", i);
            return false;
        }
    }
    return true;
}

void dirty_rings_peek(const struct dirty_rings *r, uint64_t *map)
{
    uint64_t page;

    for (int i = 0; i < r->count; i++) {
        const struct dirty_ring *ring = &r->ring[i];
        const struct kvm_dirty_gfn *e;

        for (uint32_t n = ring->next; n - ring->next < r->size && (e = entry_at(r, ring, n)); n++)
            if (page_of(r, e, &page))
                bitmap_set_atomic(map, page);
    }
}

/*
 * KVM gathers neighbours before it protects them, and since Linux 6.17 it goes home when a signal is pending, without
 * those that it had gathered: they are neither in the ring any more nor protected. So no signal may come, but some
 * cannot be held back (a stop, a freezer): then fewer entries come back than were collected.
 */
static int protect_some(struct dirty_rings *r)
{
    sigset_t all, before;
    int n;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    n = kvm_ioctl(r->kvm->vm, KVM_RESET_DIRTY_RINGS, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n;
}

bool dirty_rings_protect(struct dirty_rings *r, bool *ret_torn, Error **errp)
{
    for (int in_vain = 0; r->collected && in_vain < PATIENCE;) {
        int n = protect_some(r);

        if (n < 0) {
            error_setg_errno(errp, errno, "KVM_RESET_DIRTY_RINGS");
            return false;
        }
        in_vain = n ? 0 : in_vain + 1;
        r->collected -= (uint64_t)n < r->collected ? (uint64_t)n : r->collected;
        if (n && r->collected)
            *ret_torn = true;
    }
    if (!r->collected)
        return true;
    error_setg(errp, "KVM does not protect %llu pages of the dirty rings", (unsigned long long)r->collected);
    return false;
}

void dirty_rings_age(struct dirty_rings *r)
{
    uint64_t fresh = 0;

    for (int i = 0; i < r->count; i++)
        fresh += r->ring[i].fresh;
    for (int i = 0; fresh && i < r->count; i++) {
        r->ring[i].recent = r->ring[i].recent / 2 + r->ring[i].fresh;
        r->ring[i].fresh = 0;
    }
}

void dirty_rings_forget(struct dirty_rings *r)
{
    for (int i = 0; i < r->count; i++)
        r->ring[i].recent = r->ring[i].fresh = 0;
}

/* A quarter of an equal share is a good part. */
uint64_t dirty_rings_writers(const struct dirty_rings *r)
{
    uint64_t all = 0, writers = 0;

    for (int i = 0; i < r->count; i++)
        all += r->ring[i].recent;
    if (!all)
        return UINT64_MAX;
    for (int i = 0; i < r->count; i++)
        if (r->ring[i].recent * (uint64_t)r->count * 4 >= all)
            writers |= BITMAP_BIT(i);
    return writers;
}
