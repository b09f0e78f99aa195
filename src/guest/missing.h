/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Missing pages: RAM of a guest that runs here while some of its pages are still on another host (postcopy). Whoever
 * touches such a page, a vCPU, a device or the kernel for either, waits until it was placed. How a touch is caught is
 * the guest's: userfaultfd in the product (missing_uffd_new), a fiber that waits in the simulator.
 *
 *     MissingPages *mp = missing_uffd_new(guest_memory, errp);             // none is missing yet
 *
 *     missing_discard(mp, first, count, errp);                            // nothing runs: these are elsewhere
 *     missing_seal(mp);                                                   // that was all; the guest runs
 *     while (missing_next(mp, &page))                                     // one task: somebody waits for this page
 *         ...                                                             //   ask for it
 *     missing_place(mp, page, data, errp);                                // any task: it has come
 *     ...                                                                 // missing_left() is 0
 *     missing_shutdown(mp);                                               // missing_next() returns false
 *     missing_free(mp);                                                   // a touch is a touch again
 *
 * A page is told once by missing_next(), and once more after missing_ask_again() if it has not come: the question may have been
 * lost with the connection. A page that comes twice is placed once; what was placed is never overwritten. A page that
 * nobody ever wrote to is not missing: missing_next() places zeroes when somebody touches it, so it must go on for as long as
 * the guest runs.
 *
 * missing_abandon() lets everybody go on with zeroes: only for a machine that does not run, and never will.
 *
 * Threads: discard by one, while nothing runs and nobody places; place by several at once; next by one; the rest by any. The
 * memory is borrowed.
 */
#ifndef GUEST_MISSING_H
#define GUEST_MISSING_H

#include "base/task.h"
#include "guest/memory.h"

typedef struct MissingPages MissingPages;

struct missing_ops {
    /* The pages of [first, first + count) read as missing from here on. */
    bool (*discard)(MissingPages *mp, uint64_t first, uint64_t count, Error **errp);
    /* Waits for a touch: 1; 0: woken; negative: it is broken. */
    int (*wait)(MissingPages *mp, uint64_t *ret_page);
    /* Its content (NULL: zeroes), whole at once, and whoever waits for it goes on. Harmless where it is there. */
    bool (*put)(MissingPages *mp, uint64_t page, const void *data, Error **errp);
    void (*wake)(MissingPages *mp);
    void (*abandon)(MissingPages *mp);
    void (*free)(MissingPages *mp);
};

struct MissingPages {
    const struct missing_ops *ops;
    GuestMemory *memory;
    struct task_mutex lock; /* all that follows */
    uint64_t *missing;
    uint64_t *asked; /* somebody waits for them, and missing_next() told so */
    uint64_t left;   /* missing */
    uint64_t again;  /* asked ones below are told, the others once more: see missing_ask_again() */
    bool sealed, closed;
    /* implementations embed this as their first member */
};

/* Userfaultfd on m. Needs root or /dev/userfaultfd. */
MissingPages *missing_uffd_new(GuestMemory *m, Error **errp);

/* Not after missing_seal(). */
bool missing_discard(MissingPages *mp, uint64_t first, uint64_t count, Error **errp);
void missing_seal(MissingPages *mp);
/* data NULL: zeroes. */
bool missing_place(MissingPages *mp, uint64_t page, const void *data, Error **errp);
bool missing_next(MissingPages *mp, uint64_t *ret_page);
uint64_t missing_left(MissingPages *mp);
/* The next stretch of missing pages at or after from; false: there is none. */
bool missing_find(MissingPages *mp, uint64_t from, uint64_t *ret_first, uint64_t *ret_count);
void missing_shutdown(MissingPages *mp);
void missing_ask_again(MissingPages *mp);
void missing_abandon(MissingPages *mp);
void missing_free(MissingPages *mp); /* NULL is fine */

/* For implementations. */
bool missing_init(MissingPages *mp, const struct missing_ops *ops, GuestMemory *m, Error **errp);
void missing_destroy(MissingPages *mp);

#endif
