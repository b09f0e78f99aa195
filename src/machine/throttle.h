/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Throttle: lets the processors run only a part of the time, for a migration that cannot keep up with what they write. A
 * timer of the loop holds them between slices in which they run. (KVM's dirty log does not say which processor wrote: all
 * are slowed alike.)
 *
 *     throttle_init(&t, loop, &vcpus, errp);
 *     throttle_set(&t, 40);     // they stand still for 40 % of the time
 *     throttle_set(&t, 0);      // and run again
 *     throttle_destroy(&t);     // before loop and vcpus
 *
 * Any task but a vCPU's; takes the loop lock.
 */
#ifndef MACHINE_THROTTLE_H
#define MACHINE_THROTTLE_H

#include "base/loop.h"
#include "machine/vcpu.h"

struct throttle {
    Loop *loop;
    LoopTimer *timer;
    struct vcpus *vcpus;
    unsigned percent;
    bool holds;
};

bool throttle_init(struct throttle *t, Loop *loop, struct vcpus *vcpus, Error **errp);
/* 0 to GUEST_THROTTLE_MAX. */
void throttle_set(struct throttle *t, unsigned percent);
void throttle_destroy(struct throttle *t);

#endif
