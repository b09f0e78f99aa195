/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cpuid: what processor the guest sees.
 *
 * A machine's list is made once, from what the host can do and the model that the user named; it travels with
 * the configuration, and every later host of the machine uses that list as it is, after cpuid_check() found
 * that it can. Features whose hidden state is not saved are in no list: asynchronous page faults, PV EOI,
 * steal time, PV TLB flush, PV IPI, nested virtualization, PMU.
 *
 * Models: host (all that is left), v2, v3, v4 (the levels of the x86-64 psABI and little more, for hosts that
 * differ).
 */
#ifndef MACHINE_CPUID_H
#define MACHINE_CPUID_H

#include "machine/kvm.h"

#define CPUID_ENTRIES_MAX 256

struct cpuid {
    uint32_t count;
    struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};

/* What KVM can give a guest on this host. */
bool cpuid_supported(const struct kvm *k, struct cpuid *ret, Error **errp);
/* The list for a new machine. model: host, v2, v3 or v4; an error names what the host lacks for it. */
bool cpuid_make(const struct cpuid *supported, const char *model, struct cpuid *ret, Error **errp);
/* Says how fast the clocks run, where hypervisors say it (leaf 0x40000010): a guest need not measure, which
 * goes wrong on a busy host. */
void cpuid_add_timing(struct cpuid *c, uint32_t tsc_khz);
/* Takes away what no guest is offered. */
void cpuid_mask(struct cpuid *c);
/* May a machine with this list (hostile) run on a host that supports that? The error names every missing
 * feature. */
bool cpuid_check(const struct cpuid *list, const struct cpuid *supported, Error **errp);
/* The list of processor index of count: with its own APIC id. */
void cpuid_for_cpu(const struct cpuid *list, unsigned index, unsigned count, struct cpuid *ret);

const struct kvm_cpuid_entry2 *cpuid_find(const struct cpuid *c, uint32_t function, uint32_t index);
/* Processor state components that the list lets a guest switch on. */
uint64_t cpuid_xcr0(const struct cpuid *c);

#endif
