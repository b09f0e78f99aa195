/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Converge: when does a precopy stop the guest? It sends all memory, then what changed meanwhile, and so on: each of
 * these is a pass. As long as passes get shorter there is one more, whatever downtime was asked for: a pass costs the guest
 * nothing. When they do not, what is left decides: it fits into the downtime, or the guest changes its memory faster
 * than the link carries it, and a policy has to be asked.
 *
 *     struct converge c;
 *
 *     converge_begin(&c, 20 * NS_PER_MS, TIME_NEVER);
 *     for (;;) {
 *         ... a part of a pass ...         converge_sent(&c, bytes, ns);
 *         ... at the end of the pass ...
 *         switch (converge_pass(&c, bytes_left, clock_now())) ...
 *     }
 *
 * Numbers only: no clock, no lock, one caller.
 */
#ifndef ENGINE_CONVERGE_H
#define ENGINE_CONVERGE_H

#include <stdint.h>

enum converge_verdict {
    CONVERGE_AGAIN,  /* one more pass */
    CONVERGE_SWITCH, /* what is left fits into the downtime */
    CONVERGE_SLOW,   /* it does not, and passes do not get shorter any more */
    CONVERGE_LATE,   /* nor is there any time left */
};

struct converge {
    int64_t downtime_ns; /* the goal */
    int64_t until;       /* when the whole must be over; TIME_NEVER */
    /* private */
    uint64_t bytes; /* measured of late ... */
    int64_t ns;     /* ... in so much time */
    uint64_t best;  /* the least that any pass has left */
    unsigned stuck; /* passes in a row that left not much less */
};

void converge_begin(struct converge *c, int64_t downtime_ns, int64_t until);
/* So much went over the link in so much time. */
void converge_sent(struct converge *c, uint64_t bytes, int64_t ns);
/* What the link carries, in bytes a second; 0: not known yet. */
uint64_t converge_bandwidth(const struct converge *c);
/* The downtime, if the guest were stopped with so much left. */
int64_t converge_expected(const struct converge *c, uint64_t bytes_left);
/* The guest was slowed down: the next pass says whether that was enough. */
void converge_slowed(struct converge *c);
enum converge_verdict converge_pass(struct converge *c, uint64_t bytes_left, int64_t now);

#endif
