/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest: what the engines need of a machine. A KVM machine implements it, and the simulator's fake guest; one
 * day others.
 *
 * State other than RAM goes through the savevm registry (<perdure/savevm.h>); the engine walks that itself.
 * All ops are called by one engine task at a time. Nothing here may be called between the machine's own
 * locks.
 */
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include "guest/memory.h"
#include "guest/missing.h"
#include "guest/staging.h"
#include <perdure/stream.h>

typedef struct Guest Guest;

/* What the guest asks of the world outside; carried in its state, acted on only after an acknowledged epoch
 * that carries it. */
enum guest_request { GUEST_REQUEST_NONE, GUEST_REQUEST_RESET, GUEST_REQUEST_POWEROFF, GUEST_REQUEST_PANIC };

/* What this side's disks are to the pair: durable, beside each writable disk, before it takes effect. */
enum guest_disk_role {
    GUEST_DISKS_CLEAN,       /* the newest copy, and nobody else may go on from another */
    GUEST_DISKS_PRIMARY,     /* the newest copy unless the backup takes over: the arbiter knows */
    GUEST_DISKS_STANDBY,     /* a whole epoch of a guest that runs elsewhere */
    GUEST_DISKS_SYNC_TARGET, /* half overwritten: no disks */
    GUEST_DISKS_SUPERSEDED,  /* older than the other side's */
};

struct guest_disk_mark {
    enum guest_disk_role role;
    const char *vm, *pair, *arbiter, *peer;
    uint64_t generation, epoch;
};

/* Whose are the disks that both hosts see, and that are not copied therefore? */
enum guest_disk_hold {
    GUEST_DISKS_HELD, /* this side's: nobody else may write to them */
    GUEST_DISKS_OFFERED, /* nothing of this side is under way on them, all of it is on the medium; the other side may hold
                          * them, or this one again, and nobody else */
    GUEST_DISKS_LEFT, /* not this side's any more, or not yet */
};

#define GUEST_THROTTLE_MAX 99u

struct guest_ops {
    /* Every vCPU out of the kernel and at the barrier, then the I/O loop parked. Idempotent is not needed:
     * never nested. */
    bool (*pause)(Guest *g, Error **errp);
    /* Undoes pause: vCPUs run again if the machine's run state says so (a machine that the user stopped, or
     * that has a request pending, stays still). */
    void (*resume)(Guest *g);

    /* Paused, for good: waits, at most until then, for what its devices write to its disks. true: nothing is under way any
     * more. NULL: it writes to none. */
    bool (*finish_writes)(Guest *g, int64_t until);

    /* Paused: a save of the state will follow in this pause. What takes time to find out may be asked for
     * here; then come collect and, last, the save. NULL: there is nothing to gain. */
    bool (*begin_save)(Guest *g, Error **errp);

    /* Change tracking on: every populated page counts as changed; equal: none does, somebody else has the same RAM.
     * Paused, or running if it is not that. */
    bool (*tracking_start)(Guest *g, bool equal, Error **errp);
    void (*tracking_stop)(Guest *g);
    /* Copies changed pages into staging until it is full. live: the guest runs, a page may be stale by the
     * time it is sent and will then count as changed again; not live: paused, exact. *ret_more: pages that
     * did not fit wait for the next call. A new harvest of the log starts when the call before left nothing.
     */
    bool (*collect)(Guest *g, Staging *s, bool live, bool *ret_more, Error **errp);
    /* The same without a copy: adds what collect would have copied to map, one bit a page. Running or paused: a page that is written to
     * after this counts as changed again. */
    bool (*take_changed)(Guest *g, uint64_t *map, Error **errp);
    /* Estimate of the pages that collect would have to copy. */
    uint64_t (*changed_pages)(Guest *g);

    /* Never started: from here on pages of its RAM can be missing, until missing_free(). NULL: it cannot run so. */
    MissingPages *(*missing_new)(Guest *g, Error **errp);

    /* Its processors, or those of them that write, stand still for so many percent of the time, at most
     * GUEST_THROTTLE_MAX; 0: not any more. NULL: they cannot be slowed. */
    void (*throttle)(Guest *g, unsigned percent);

    /* The request that the guest made and that was not yet carried out. Paused. */
    enum guest_request (*request)(Guest *g);
    /* Carries out the reset / forgets the request. Paused. Power-off and panic are the process owner's to
     * carry out. */
    bool (*reset)(Guest *g, Error **errp);

    /* Makes the mark durable beside every disk that the guest can write. Waits for the disks. NULL: it has
     * none.
     */
    bool (*mark_disks)(Guest *g, const struct guest_disk_mark *mark, Error **errp);

    /* Paused, or never started. All of its disks that both hosts see are so from now on. A machine that a factory made has
     * them LEFT, another one HELD. Waits for the disks. May be repeated; after a failure some are as they were: HELD or
     * LEFT is tried again. NULL: it has none. */
    bool (*hold_disks)(Guest *g, enum guest_disk_hold how, Error **errp);
    /* Running: what was written to those goes to the medium, so that to offer them takes less time. NULL as above. */
    bool (*settle_disks)(Guest *g, Error **errp);

    /* The configuration, as records of the stream: a standby builds its machine from it. Kernel, initrd,
     * command line included. */
    bool (*save_config)(Guest *g, VMStream *f, Error **errp);

    /* Taking over on the backup: after RAM is in place and device state was loaded: clocks, re-issue of queue
     * work, signal every vector once. Then resume starts it. */
    bool (*take_over)(Guest *g, Error **errp);
    /* NICs announce themselves (RARP, GUEST_ANNOUNCE), repeated over a second by the machine's own timers. */
    void (*announce)(Guest *g);
    /* Devices as after power-on, RAM all zero unless it is kept, not running: ready to be a standby again. Paused or
     * never started. */
    bool (*clear)(Guest *g, bool keep_ram, Error **errp);
    /* The backup proves the first epoch: it loads the state and saves it again. Are these two bodies of a
     * section, equal in size but not in content, the same state? Yes where only clocks differ, which go on by
     * themselves. NULL: never. */
    bool (*section_matches)(Guest *g, const char *section, const void *sent, const void *loaded, size_t size);
};

struct Guest {
    const struct guest_ops *ops;
    GuestMemory *memory;
    /* Set by the engine: the guest made a request (reset, power-off, panic) and stands still until it is
     * carried out. Called on any thread; must only wake somebody. NULL: the machine's owner is told instead.
     */
    void (*on_request)(void *opaque);
    void *on_request_opaque;
    /* Why it can be moved but not protected, for people; NULL: it can. Set by the implementation. */
    const char *unprotectable;
    /* implementations embed this as their first member */
};

/* A standby's side: makes the guest from the configuration records in f (borrowed, read to their end). */
struct guest_factory {
    Guest *(*create)(struct guest_factory *gf, VMStream *f, Error **errp);
    void (*destroy)(struct guest_factory *gf, Guest *g);
    void *opaque;
};

#endif
