/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/irqchip.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* As an edge travels: the timer, the second PIC, the first; the IOAPIC, of which both are neighbours. */
static bool irqchip_get(struct irqchip *c, Error **errp)
{
    c->pic[0].chip_id = KVM_IRQCHIP_PIC_MASTER;
    c->pic[1].chip_id = KVM_IRQCHIP_PIC_SLAVE;
    c->ioapic.chip_id = KVM_IRQCHIP_IOAPIC;
    return kvm_call(c->kvm->vm, KVM_GET_PIT2, &c->pit, "KVM_GET_PIT2", errp) &&
           kvm_call(c->kvm->vm, KVM_GET_IRQCHIP, &c->pic[1], "KVM_GET_IRQCHIP", errp) &&
           kvm_call(c->kvm->vm, KVM_GET_IRQCHIP, &c->pic[0], "KVM_GET_IRQCHIP", errp) &&
           kvm_call(c->kvm->vm, KVM_GET_IRQCHIP, &c->ioapic, "KVM_GET_IRQCHIP", errp);
}

bool irqchip_read(struct irqchip *c, Error **errp)
{
    c->read = irqchip_get(c, errp);
    return c->read;
}

static bool irqchip_set(struct irqchip *c, Error **errp)
{
    c->pic[0].chip_id = KVM_IRQCHIP_PIC_MASTER;
    c->pic[1].chip_id = KVM_IRQCHIP_PIC_SLAVE;
    c->ioapic.chip_id = KVM_IRQCHIP_IOAPIC;
    return kvm_call(c->kvm->vm, KVM_SET_IRQCHIP, &c->pic[0], "KVM_SET_IRQCHIP", errp) &&
           kvm_call(c->kvm->vm, KVM_SET_IRQCHIP, &c->pic[1], "KVM_SET_IRQCHIP", errp) &&
           kvm_call(c->kvm->vm, KVM_SET_IRQCHIP, &c->ioapic, "KVM_SET_IRQCHIP", errp) &&
           kvm_call(c->kvm->vm, KVM_SET_PIT2, &c->pit, "KVM_SET_PIT2", errp);
}

bool irqchip_create(struct irqchip *c, struct kvm *k, Error **errp)
{
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

    *c = (struct irqchip){.kvm = k};
    if (!kvm_call(k->vm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP", errp) ||
        !kvm_call(k->vm, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2", errp) || !irqchip_get(c, errp))
        return false;
    c->power_on[0] = c->pic[0];
    c->power_on[1] = c->pic[1];
    c->power_on[2] = c->ioapic;
    c->pit_power_on = c->pit;
    return true;
}

bool irqchip_reset(struct irqchip *c, Error **errp)
{
    c->pic[0] = c->power_on[0];
    c->pic[1] = c->power_on[1];
    c->ioapic = c->power_on[2];
    c->pit = c->pit_power_on;
    c->clock_waits = false;
    return irqchip_set(c, errp);
}

bool irqchip_set_clock(struct irqchip *c, Error **errp)
{
    struct kvm_clock_data clock = {.clock = c->clock};

    c->clock_waits = false;
    return kvm_call(c->kvm->vm, KVM_SET_CLOCK, &clock, "KVM_SET_CLOCK", errp);
}

bool irqchip_set_line(struct irqchip *c, unsigned gsi, bool level)
{
    struct kvm_irq_level line = {.irq = gsi, .level = level};

    return kvm_ioctl(c->kvm->vm, KVM_IRQ_LINE, &line) >= 0;
}

void irqchip_send_msi(struct irqchip *c, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};

    kvm_ioctl(c->kvm->vm, KVM_SIGNAL_MSI, &msi);
}

/* --- how they travel --- */

#define PIC8(f) VMSTATE_U8(struct kvm_pic_state, f, 1)
static const VMStateField pic_fields[] = {
    PIC8(last_irr),
    PIC8(irr),
    PIC8(imr),
    PIC8(isr),
    PIC8(priority_add),
    PIC8(irq_base),
    PIC8(read_reg_select),
    PIC8(poll),
    PIC8(special_mask),
    PIC8(init_state),
    PIC8(auto_eoi),
    PIC8(rotate_on_auto_eoi),
    PIC8(special_fully_nested_mode),
    PIC8(init4),
    PIC8(elcr),
    PIC8(elcr_mask),
    VMSTATE_END,
};
static const VMStateDescription pic_vmstate = {
    .name = "pic", .version = 1, .minimum_version = 1, .fields = pic_fields};

#define PIT8(f) VMSTATE_U8(struct kvm_pit_channel_state, f, 1)
static const VMStateField pit_channel_fields[] = {
    VMSTATE_U32(struct kvm_pit_channel_state, count, 1),
    VMSTATE_U16(struct kvm_pit_channel_state, latched_count, 1),
    PIT8(count_latched),
    PIT8(status_latched),
    PIT8(status),
    PIT8(read_state),
    PIT8(write_state),
    PIT8(write_latch),
    PIT8(rw_mode),
    PIT8(mode),
    PIT8(bcd),
    PIT8(gate),
    VMSTATE_END,
};
static const VMStateDescription pit_channel_vmstate = {
    .name = "pit-channel", .version = 1, .minimum_version = 1, .fields = pit_channel_fields};

#define IOAPIC_PIN(n) VMSTATE_U64(struct irqchip, ioapic.chip.ioapic.redirtbl[n].bits, 1)
static const VMStateField irqchip_fields[] = {
    VMSTATE_STRUCT(struct irqchip, pic[0].chip.pic, &pic_vmstate, 1),
    VMSTATE_STRUCT(struct irqchip, pic[1].chip.pic, &pic_vmstate, 1),
    VMSTATE_U64(struct irqchip, ioapic.chip.ioapic.base_address, 1),
    VMSTATE_U32(struct irqchip, ioapic.chip.ioapic.ioregsel, 1),
    VMSTATE_U32(struct irqchip, ioapic.chip.ioapic.id, 1),
    VMSTATE_U32(struct irqchip, ioapic.chip.ioapic.irr, 1),
    IOAPIC_PIN(0),
    IOAPIC_PIN(1),
    IOAPIC_PIN(2),
    IOAPIC_PIN(3),
    IOAPIC_PIN(4),
    IOAPIC_PIN(5),
    IOAPIC_PIN(6),
    IOAPIC_PIN(7),
    IOAPIC_PIN(8),
    IOAPIC_PIN(9),
    IOAPIC_PIN(10),
    IOAPIC_PIN(11),
    IOAPIC_PIN(12),
    IOAPIC_PIN(13),
    IOAPIC_PIN(14),
    IOAPIC_PIN(15),
    IOAPIC_PIN(16),
    IOAPIC_PIN(17),
    IOAPIC_PIN(18),
    IOAPIC_PIN(19),
    IOAPIC_PIN(20),
    IOAPIC_PIN(21),
    IOAPIC_PIN(22),
    IOAPIC_PIN(23),
    VMSTATE_STRUCT_ARRAY(struct irqchip, pit.channels, 3, &pit_channel_vmstate, 1),
    VMSTATE_U32(struct irqchip, pit.flags, 1),
    VMSTATE_END,
};

static bool irqchip_pre_save(void *opaque, Error **errp)
{
    struct irqchip *c = opaque;

    (void)errp;
    assert(c->read); /* what is there is from an earlier time */
    c->read = false;
    return true;
}

static bool irqchip_post_load(void *opaque, int version, Error **errp)
{
    struct irqchip *c = opaque;

    (void)version;
    if (c->ioapic.chip.ioapic.base_address != c->power_on[2].chip.ioapic.base_address) {
        error_setg(errp, "irqchip: the IOAPIC is not at 0x%llx", c->power_on[2].chip.ioapic.base_address);
        return false;
    }
    /* When a counter of the PIT was loaded is not part of the state: KVM takes the moment of the call for it.
     */
    return irqchip_set(c, errp);
}

const VMStateDescription irqchip_vmstate = {
    .name = "irqchip",
    .version = 1,
    .minimum_version = 1,
    .fields = irqchip_fields,
    .pre_save = irqchip_pre_save,
    .post_load = irqchip_post_load,
};

static const VMStateField kvmclock_fields[] = {
    VMSTATE_U64(struct irqchip, clock, 1),
    VMSTATE_END,
};

static bool kvmclock_pre_save(void *opaque, Error **errp)
{
    struct irqchip *c = opaque;
    struct kvm_clock_data clock = {.clock = 0};

    if (c->clock_waits) /* a machine that stands still since it was loaded */
        return true;
    if (!kvm_call(c->kvm->vm, KVM_GET_CLOCK, &clock, "KVM_GET_CLOCK", errp))
        return false;
    c->clock = clock.clock;
    return true;
}

static bool kvmclock_post_load(void *opaque, int version, Error **errp)
{
    (void)version;
    (void)errp;
    ((struct irqchip *)opaque)->clock_waits = true;
    return true;
}

const VMStateDescription kvmclock_vmstate = {
    .name = "kvmclock",
    .version = 1,
    .minimum_version = 1,
    .fields = kvmclock_fields,
    .pre_save = kvmclock_pre_save,
    .post_load = kvmclock_post_load,
};
