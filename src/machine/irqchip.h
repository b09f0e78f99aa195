/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Irqchip: the interrupt controllers and the timer that KVM emulates: two PICs, the IOAPIC, the PIT (sections
 * "irqchip" and, for the paravirtual clock, "kvmclock"). The LAPICs are part of the processors.
 *
 * For a save irqchip_read() comes before the processors' LAPICs are read (vcpu_state.h says why), so it is
 * not left to the section's own turn.
 *
 * The clock is read at every save and never set on a machine that runs: only irqchip_set_clock(), at a
 * takeover, makes guest time go on from what was loaded.
 */
#ifndef MACHINE_IRQCHIP_H
#define MACHINE_IRQCHIP_H

#include "machine/kvm.h"
#include <perdure/vmstate.h>

struct irqchip {
    struct kvm *kvm;
    struct kvm_irqchip pic[2], ioapic; /* as last saved or loaded */
    struct kvm_pit_state2 pit;
    struct kvm_irqchip power_on[3];
    struct kvm_pit_state2 pit_power_on;
    uint64_t clock;   /* ns of kvmclock */
    bool clock_waits; /* it was loaded, and KVM does not have it yet */
    bool read;        /* and not saved yet */
};

/* Before the first vCPU. */
bool irqchip_create(struct irqchip *c, struct kvm *k, Error **errp);
/* Held processors: what the section "irqchip" will save. */
bool irqchip_read(struct irqchip *c, Error **errp);
/* As after power-on. */
bool irqchip_reset(struct irqchip *c, Error **errp);
bool irqchip_set_clock(struct irqchip *c, Error **errp);

bool irqchip_set_line(struct irqchip *c, unsigned gsi, bool level);
/* address and data are the guest's; what KVM does not deliver is lost, as on a real machine. */
void irqchip_send_msi(struct irqchip *c, uint64_t address, uint32_t data);

extern const VMStateDescription irqchip_vmstate, kvmclock_vmstate; /* of struct irqchip */

#endif
