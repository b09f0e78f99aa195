/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dirty rings: KVM's other log of what processors write. Each has a ring, in which KVM notes the pages that it was the
 * first to write to since they were protected: so they say who wrote. A machine has them or KVM's bitmap
 * (kvm.h), from its beginning to its end.
 *
 *     struct dirty_rings r;
 *
 *     dirty_rings_init(&r, &kvm, memory, &vcpus, errp);
 *     dirty_rings_collect(&r, map, errp) && dirty_rings_protect(&r, &torn, errp);
 *     ... copy the pages in map ...
 *     writers = dirty_rings_writers(&r);
 *     dirty_rings_destroy(&r);                                  // vcpus may be gone
 *
 * An entry is KVM's, then ours (its flags say DIRTY), then KVM's again (RESET), which protects its page when it is told
 * to. A ring that is nearly full keeps its processor out of the guest until that was done.
 *
 * One task at a time: the caller's lock.
 */
#ifndef MACHINE_DIRTY_RING_H
#define MACHINE_DIRTY_RING_H

#include "guest/memory.h"
#include "machine/vcpu.h"

struct dirty_ring {
    struct kvm_dirty_gfn *entry; /* shared with KVM */
    uint32_t next;               /* counts on: the entry that comes next */
    uint64_t fresh;              /* entries since the last dirty_rings_age() */
    uint64_t recent;             /* before that; older ones count half, and half again */
};

struct dirty_rings {
    struct kvm *kvm;
    const GuestMemory *memory;
    uint32_t size; /* entries of each, a power of two */
    struct dirty_ring *ring;
    int count;
    uint64_t collected; /* not protected yet */
};

/* memory and vcpus are borrowed, vcpus for this call only. On failure nothing is left. */
bool dirty_rings_init(struct dirty_rings *r, struct kvm *k, const GuestMemory *m, const struct vcpus *vcpus,
                      Error **errp);
/* Never made: does nothing. */
void dirty_rings_destroy(struct dirty_rings *r);

/* Sets the bits of all pages that are in the rings, atomically. */
bool dirty_rings_collect(struct dirty_rings *r, uint64_t *map, Error **errp);
/* Those pages are protected from here. *ret_torn, else left alone: it cannot be known of all of them. */
bool dirty_rings_protect(struct dirty_rings *r, bool *ret_torn, Error **errp);
/* The same bits as collect, and the pages stay in the rings. */
void dirty_rings_peek(const struct dirty_rings *r, uint64_t *map);

/* What was counted so far is older than what will be. */
void dirty_rings_age(struct dirty_rings *r);
void dirty_rings_forget(struct dirty_rings *r);
/* Bit i: of what was written of late, processor i has a good part. All bits if nothing was. */
uint64_t dirty_rings_writers(const struct dirty_rings *r);

#endif
