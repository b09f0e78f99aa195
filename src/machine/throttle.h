/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Throttle: lets processors run only a part of the time, for a migration that cannot keep up with what they write. A
 * timer of the loop holds them between slices in which they run.
 *
 * If the machine has dirty rings, only those that write: each time that it is set it looks who did of late, and adds
 * them. Nobody is taken out until it is set to 0: who is slowed writes less, which is no sign that he would not write more.
 * Else KVM does not say who wrote, and all are slowed alike.
 *
 *     throttle_init(&t, loop, &vcpus, &log, errp);
 *     throttle_set(&t, 40);     // they stand still for 40 % of the time
 *     throttle_set(&t, 0);      // and run again
 *     throttle_destroy(&t);     // before loop and vcpus
 *
 * Any task but a vCPU's; takes the loop lock.
 */
#ifndef MACHINE_THROTTLE_H
#define MACHINE_THROTTLE_H

#include "base/loop.h"
#include "machine/dirty_log.h"
#include "machine/vcpu.h"

struct throttle {
    Loop *loop;
    LoopTimer *timer;
    struct vcpus *vcpus;
    struct dirty_log *log;
    unsigned percent;
    uint64_t whom; /* bit i: processor i */
    bool holds;
};

bool throttle_init(struct throttle *t, Loop *loop, struct vcpus *vcpus, struct dirty_log *log, Error **errp);
/* 0 to GUEST_THROTTLE_MAX. */
void throttle_set(struct throttle *t, unsigned percent);
void throttle_destroy(struct throttle *t);

#endif
