/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of one processor as the guest sees it: section "vcpu", instance = index.
 *
 * vcpu_state_get() reads it all from KVM into the struct, vcpu_state_set() writes it back, in the order that
 * KVM needs: control registers before the LAPIC (its base is among them), the TSC before everything that
 * counts by it, TSC_DEADLINE after the LAPIC and also when it is 0 (writing the LAPIC may have armed a
 * timer), events last. Both with the processor at the barrier. Nothing here allocates after vcpu_state_new().
 */
#ifndef MACHINE_VCPU_STATE_H
#define MACHINE_VCPU_STATE_H

#include "machine/vcpu.h"
#include <perdure/vmstate.h>

struct vcpu_state {
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp_state;
    struct kvm_lapic_state lapic;
    uint32_t xsave_size;
    uint8_t xsave[KVM_XSAVE_MAX] __attribute__((aligned(64)));
    struct {
        struct kvm_msrs head; /* nmsrs: as many of entries are used */
        struct kvm_msr_entry entries[KVM_MSRS_MAX];
    } msrs;
    /* private; from here on not part of a power-on state */
    struct vcpu *vcpu;
    struct vcpu_state *power_on;
    uint32_t host_xsave_size;
    uint32_t host_msrs[KVM_MSRS_MAX]; /* what this host can save and set */
    uint32_t host_msr_count;
};

/* Learns which MSRs work; keeps the state after creation. */
struct vcpu_state *vcpu_state_new(struct kvm *k, struct vcpu *v, Error **errp);
void vcpu_state_free(struct vcpu_state *s);

bool vcpu_state_get(struct vcpu_state *s, Error **errp);
/* keep_tsc: the TSC runs on (a reset does not turn it back). */
bool vcpu_state_set(struct vcpu_state *s, bool keep_tsc, Error **errp);
/* What a loaded state holds beyond this host's abilities is an error by name; the rest is made fit for
 * vcpu_state_set(). */
bool vcpu_state_check(struct vcpu_state *s, Error **errp);

/* As after power-on: into s, not into KVM. */
void vcpu_state_power_on(struct vcpu_state *s);

extern const VMStateDescription vcpu_vmstate; /* of struct vcpu_state */

#endif
