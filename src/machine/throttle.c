/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/throttle.h"
#include "guest/guest.h"

#include <assert.h>

/* Long against what it takes to stop and to start them. */
#define SLICE (2 * NS_PER_MS)

static int64_t held_ns(const struct throttle *t)
{
    return SLICE * t->percent / (100 - t->percent);
}

static void on_timer(void *opaque)
{
    struct throttle *t = opaque;

    t->holds = !t->holds;
    vcpus_throttle(t->vcpus, t->holds ? t->whom : 0);
    loop_timer_set(t->timer, clock_now() + (t->holds ? held_ns(t) : SLICE));
}

bool throttle_init(struct throttle *t, Loop *loop, struct vcpus *vcpus, struct dirty_log *log, Error **errp)
{
    *t = (struct throttle){.loop = loop, .vcpus = vcpus, .log = log};
    t->timer = loop_timer_new(loop, on_timer, t);
    if (!t->timer)
        error_setg(errp, "out of memory for the throttle's timer");
    return t->timer;
}

void throttle_set(struct throttle *t, unsigned percent)
{
    uint64_t writers = percent ? dirty_log_writers(t->log) : 0;

    assert(percent <= GUEST_THROTTLE_MAX);
    loop_lock(t->loop);
    t->whom = percent ? t->whom | writers : 0;
    if (percent && !t->percent)
        loop_timer_set(t->timer, clock_now());
    if (!percent && t->percent) {
        loop_timer_set(t->timer, TIME_NEVER);
        t->holds = false;
        vcpus_throttle(t->vcpus, 0);
    }
    t->percent = percent;
    loop_unlock(t->loop);
}

void throttle_destroy(struct throttle *t)
{
    if (t->timer)
        loop_timer_free(t->timer);
    t->timer = NULL;
}
