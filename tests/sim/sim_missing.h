/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Missing pages of a simulated guest: a fiber that needs one says so, and waits with its own condition until it is told
 * that the page was placed.
 */
#ifndef SIM_MISSING_H
#define SIM_MISSING_H

#include "guest/missing.h"

struct sim_missing_watch {
    void (*placed)(void *opaque, uint64_t page);
    void (*abandoned)(void *opaque);
    void (*gone)(void *opaque); /* nothing is missing any more; freed after it */
    void *opaque;
};

/* m has at most 64 pages. watch is copied. */
MissingPages *sim_missing_new(GuestMemory *m, const struct sim_missing_watch *watch, Error **errp);
/* One bit a page. */
uint64_t sim_missing_set(const MissingPages *mp);
bool sim_missing_abandoned(const MissingPages *mp);
void sim_missing_touch(MissingPages *mp, uint64_t page);

#endif
