/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of one processor as the guest sees it: section "vcpu", instance = index.
 *
 * vcpu_states_ask() and vcpu_state_await() read it all from KVM into the struct, vcpu_state_set() writes it
 * back, in the order that KVM needs: control registers before the LAPIC (its base is among them), the TSC
 * before everything that counts by it, TSC_DEADLINE after the LAPIC and also when it is 0 (writing the LAPIC
 * may have armed a timer), events last. Both with the processor at the barrier. Nothing here allocates after
 * vcpu_state_new().
 *
 * The threads of all processors read at the same time, each its own; to await it is the section's pre_save.
 * Every call of KVM about a processor costs microseconds, whatever it brings, so there are as few as
 * possible.
 *
 * Order: an interrupt travels PIT -> PIC or IOAPIC -> LAPIC, and those go on while the processors stand. What
 * is upstream is read first (irqchip_read()), then this: an interrupt that moves between the two readings is
 * found in the LAPIC. The other way round it would be in neither, and lost at a takeover. Within a processor
 * the MP state comes first: KVM acts upon a waiting INIT or SIPI when it is asked for it.
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
    bool asked;   /* the state is being read, or was, and nobody has had it yet */
    Error *error; /* of that reading */
    uint32_t host_xsave_size;
    uint32_t host_msrs[KVM_MSRS_MAX]; /* what this host can save and set */
    uint32_t host_msr_count;
};

/* Learns which MSRs work; keeps the state after creation. */
struct vcpu_state *vcpu_state_new(struct kvm *k, struct vcpu *v, Error **errp);
void vcpu_state_free(struct vcpu_state *s);

/* All processors of s held and still; states by index. From here to the await nobody else touches them. */
void vcpu_states_ask(struct vcpus *s, struct vcpu_state **states);
/* Once for each time it was asked. */
bool vcpu_state_await(struct vcpu_state *s, Error **errp);
/* keep_tsc: the TSC runs on (a reset does not turn it back). Processor 0 is set before the others: their TSCs follow
 * its. */
bool vcpu_state_set(struct vcpu_state *s, bool keep_tsc, Error **errp);
/* What a loaded state holds beyond this host's abilities is an error by name; the rest is made fit for
 * vcpu_state_set(). */
bool vcpu_state_check(struct vcpu_state *s, Error **errp);

/* As after power-on: into s, not into KVM. */
void vcpu_state_power_on(struct vcpu_state *s);

extern const VMStateDescription vcpu_vmstate; /* of struct vcpu_state */

#endif
