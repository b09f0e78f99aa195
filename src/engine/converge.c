/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/converge.h"
#include "base/task.h"

#define WINDOW    (400 * NS_PER_MS) /* older figures count half, and half again */
#define FEW_BYTES (64u << 10)       /* not worth another pass */
#define FIXED     (2 * NS_PER_MS)   /* of a switch: the devices, two round trips */
#define STUCK_MAX 2

void converge_begin(struct converge *c, int64_t downtime_ns, int64_t until)
{
    *c = (struct converge){.downtime_ns = downtime_ns, .until = until, .best = UINT64_MAX};
}

void converge_sent(struct converge *c, uint64_t bytes, int64_t ns)
{
    c->bytes += bytes;
    c->ns += ns;
    if (c->ns <= WINDOW)
        return;
    c->bytes /= 2;
    c->ns /= 2;
}

uint64_t converge_bandwidth(const struct converge *c)
{
    return c->ns > 0 ? (uint64_t)((double)c->bytes * NS_PER_S / (double)c->ns) : 0;
}

int64_t converge_expected(const struct converge *c, uint64_t bytes_left)
{
    double ns = c->bytes ? (double)bytes_left * (double)c->ns / (double)c->bytes : 0;

    return FIXED + (ns < 1e18 ? (int64_t)ns : (int64_t)1e18);
}

void converge_slowed(struct converge *c)
{
    c->stuck = STUCK_MAX - 1;
}

enum converge_verdict converge_pass(struct converge *c, uint64_t bytes_left, int64_t now)
{
    bool shorter = bytes_left <= c->best - c->best / 4;

    if (shorter)
        c->best = bytes_left;
    c->stuck = shorter ? 0 : c->stuck + 1;
    if (bytes_left <= FEW_BYTES)
        return CONVERGE_SWITCH;
    if (now >= c->until)
        return converge_expected(c, bytes_left) <= c->downtime_ns ? CONVERGE_SWITCH : CONVERGE_LATE;
    if (shorter)
        return CONVERGE_AGAIN;
    if (converge_expected(c, bytes_left) <= c->downtime_ns)
        return CONVERGE_SWITCH;
    return c->stuck < STUCK_MAX ? CONVERGE_AGAIN : CONVERGE_SLOW;
}
