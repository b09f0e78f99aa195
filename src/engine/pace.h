/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pace: keeps a sender below a rate, smoothly: after each part it says when the next may go. What was not used for a
 * while is not made up for, but for one slice of time.
 *
 *     struct pace p = {0};
 *
 *     pace_set(&p, 10 << 20, clock_now());                  // any time; 0: no cap
 *     for (;;) {
 *         wait until clock_now() >= p.due
 *         n = ... send a part, of about pace_part(&p, bandwidth) ...
 *         pace_sent(&p, n, clock_now());
 *     }
 *
 * Numbers only: no clock, no lock, one caller.
 */
#ifndef ENGINE_PACE_H
#define ENGINE_PACE_H

#include "base/task.h"

#define PACE_SLICE (50 * NS_PER_MS)

struct pace {
    uint64_t rate; /* bytes a second; 0: no cap */
    int64_t due;   /* when the next may go */
};

/* A debt is paid at the new rate. */
void pace_set(struct pace *p, uint64_t rate, int64_t now);
void pace_sent(struct pace *p, uint64_t bytes, int64_t now);
/* Bytes of a part, so that whoever sends looks up often enough on a link of so many bytes a second; 0: not known. */
uint64_t pace_part(const struct pace *p, uint64_t bandwidth);

#endif
