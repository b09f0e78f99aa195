/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/pace.h"

#define UNKNOWN (1u << 20) /* a part while nothing was measured */

static int64_t time_of(double bytes, uint64_t rate)
{
    double ns = bytes * NS_PER_S / (double)rate;

    return ns < 1e18 ? (int64_t)ns : (int64_t)1e18;
}

void pace_set(struct pace *p, uint64_t rate, int64_t now)
{
    int64_t wait = p->due - now;

    if (rate == p->rate)
        return;
    if (!rate || wait < 0)
        wait = 0;
    if (wait)
        wait = time_of((double)wait * (double)p->rate / NS_PER_S, rate);
    p->rate = rate;
    p->due = now + wait;
}

void pace_sent(struct pace *p, uint64_t bytes, int64_t now)
{
    if (!p->rate)
        return;
    if (p->due < now - PACE_SLICE)
        p->due = now - PACE_SLICE;
    p->due += time_of((double)bytes, p->rate);
}

static uint64_t slice_of(uint64_t rate)
{
    return (uint64_t)((double)rate * PACE_SLICE / NS_PER_S);
}

uint64_t pace_part(const struct pace *p, uint64_t bandwidth)
{
    uint64_t part = bandwidth ? 2 * slice_of(bandwidth) : UNKNOWN;

    return p->rate && slice_of(p->rate) < part ? slice_of(p->rate) : part;
}
