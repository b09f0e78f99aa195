/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which model-specific registers belong to the saved state.
 */
#ifndef MACHINE_VCPU_MSRS_H
#define MACHINE_VCPU_MSRS_H

#include "machine/vcpu_state.h"

#define MSR_TSC          0x10u
#define MSR_TSC_ADJUST   0x3bu
#define MSR_TSC_DEADLINE 0x6e0u

/* Fills s->host_msrs: those of KVM's list that can be read, written back, and whose feature this machine
 * offers. */
bool vcpu_msrs_learn(struct kvm *k, struct vcpu_state *s, Error **errp);
bool vcpu_msrs_get(struct vcpu_state *s, Error **errp);
/* All but TSC (first, unless keep_tsc) and TSC_DEADLINE, which has a call of its own. */
bool vcpu_msrs_set(struct vcpu_state *s, bool keep_tsc, Error **errp);
/* After that, for all but the first processor, which has been set: its TSC differs from the first one's by what the
 * guest wrote into them (TSC_ADJUST) and nothing else. The TSCs in a state were read one after the other and are
 * written so, each a little later, and much later on a busy host; KVM makes good a second of it. A KVM that has no
 * such offset (Linux before 5.16) does what it can. */
void vcpu_msrs_follow_tsc(struct vcpu_state *s);
bool vcpu_msrs_set_deadline(struct vcpu_state *s, Error **errp);
/* After a load: each index once, and known to this host; what is unknown may be left out if it is zero. */
bool vcpu_msrs_check(struct vcpu_state *s, Error **errp);

#endif
