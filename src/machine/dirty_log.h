/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dirty log: which pages changed. Two sources, one pending bitmap: KVM's log of what vCPUs (and KVM itself)
 * wrote, and the bitmap of what devices wrote.
 *
 * KVM's log is its bitmap, or the processors' rings if the machine was made with them (dirty_ring.h). A processor whose
 * ring is nearly full empties the rings itself (dirty_log_relieve()), into the devices' bitmap.
 *
 * A harvest takes both and clears them FIRST; pages are copied after. A page written between the clear and
 * the copy is copied with the new content and counts again in the next harvest: nothing is lost with the
 * guest running, and all is exact with it paused. One task at a time, but for dirty_log_relieve().
 */
#ifndef MACHINE_DIRTY_LOG_H
#define MACHINE_DIRTY_LOG_H

#include "guest/memory.h"
#include "guest/staging.h"
#include "machine/dirty_ring.h"

struct dirty_log {
    struct kvm *kvm;
    GuestMemory *memory;
    uint64_t *pending; /* by page index: harvested, not yet copied */
    uint64_t *scratch; /* one harvest */
    uint64_t next;     /* no pending page below */
    bool on;
    struct dirty_rings rings; /* none: KVM keeps a bitmap */
    /* The rings', and of what is taken out of them until it is in pending or with the devices': in between a
     * page may be copied that is not protected yet. */
    struct task_mutex lock;
    bool torn; /* KVM may have forgotten to protect some */
};

bool dirty_log_init(struct dirty_log *d, struct kvm *k, GuestMemory *m, Error **errp);
/* Once the processors are there, if KVM was opened with rings. */
bool dirty_log_add_rings(struct dirty_log *d, const struct vcpus *vcpus, Error **errp);
void dirty_log_destroy(struct dirty_log *d);

/* Every populated page is pending from here, or if equal (paused) none. */
bool dirty_log_start(struct dirty_log *d, bool equal, Error **errp);
void dirty_log_stop(struct dirty_log *d);
bool dirty_log_harvest(struct dirty_log *d, Error **errp);
/* Copies pending pages until s is full; *ret_more: some are left. */
void dirty_log_copy(struct dirty_log *d, Staging *s, bool *ret_more);
/* All of them, harvested a moment ago, as bits added to map. */
bool dirty_log_take(struct dirty_log *d, uint64_t *map, Error **errp);
bool dirty_log_pending(const struct dirty_log *d);
/* Pending pages, and those that the next harvest would add. */
uint64_t dirty_log_estimate(struct dirty_log *d);
/* Bit i: processor i has a good part in what was written of late. All bits: KVM does not say. */
uint64_t dirty_log_writers(struct dirty_log *d);
/* On a processor's own thread, when KVM lets it into the guest no more: its ring is full. */
bool dirty_log_relieve(struct dirty_log *d, Error **errp);

#endif
