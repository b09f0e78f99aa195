/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a processor's state travels: field by field, whatever the layout of KVM's structs. */
#include "machine/vcpu_state.h"

#include <stdio.h>

#define SEGMENT(f) VMSTATE_STRUCT(struct vcpu_state, sregs.f, &segment_vmstate, 1)
#define REG(f)     VMSTATE_U64(struct vcpu_state, regs.f, 1)
#define SREG(f)    VMSTATE_U64(struct vcpu_state, sregs.f, 1)
#define EVENT8(f)  VMSTATE_U8(struct vcpu_state, events.f, 1)

static const VMStateField segment_fields[] = {
    VMSTATE_U64(struct kvm_segment, base, 1),
    VMSTATE_U32(struct kvm_segment, limit, 1),
    VMSTATE_U16(struct kvm_segment, selector, 1),
    VMSTATE_U8(struct kvm_segment, type, 1),
    VMSTATE_U8(struct kvm_segment, present, 1),
    VMSTATE_U8(struct kvm_segment, dpl, 1),
    VMSTATE_U8(struct kvm_segment, db, 1),
    VMSTATE_U8(struct kvm_segment, s, 1),
    VMSTATE_U8(struct kvm_segment, l, 1),
    VMSTATE_U8(struct kvm_segment, g, 1),
    VMSTATE_U8(struct kvm_segment, avl, 1),
    VMSTATE_U8(struct kvm_segment, unusable, 1),
    VMSTATE_END,
};
static const VMStateDescription segment_vmstate = {
    .name = "segment", .version = 1, .minimum_version = 1, .fields = segment_fields};

static const VMStateField msr_fields[] = {
    VMSTATE_U32(struct kvm_msr_entry, index, 1),
    VMSTATE_U64(struct kvm_msr_entry, data, 1),
    VMSTATE_END,
};
static const VMStateDescription msr_vmstate = {
    .name = "msr", .version = 1, .minimum_version = 1, .fields = msr_fields};

static const VMStateField xcr_fields[] = {
    VMSTATE_U32(struct kvm_xcr, xcr, 1),
    VMSTATE_U64(struct kvm_xcr, value, 1),
    VMSTATE_END,
};
static const VMStateDescription xcr_vmstate = {
    .name = "xcr", .version = 1, .minimum_version = 1, .fields = xcr_fields};

static const VMStateField vcpu_fields[] = {
    REG(rax),
    REG(rbx),
    REG(rcx),
    REG(rdx),
    REG(rsi),
    REG(rdi),
    REG(rsp),
    REG(rbp),
    REG(r8),
    REG(r9),
    REG(r10),
    REG(r11),
    REG(r12),
    REG(r13),
    REG(r14),
    REG(r15),
    REG(rip),
    REG(rflags),
    SEGMENT(cs),
    SEGMENT(ds),
    SEGMENT(es),
    SEGMENT(fs),
    SEGMENT(gs),
    SEGMENT(ss),
    SEGMENT(tr),
    SEGMENT(ldt),
    SREG(gdt.base),
    VMSTATE_U16(struct vcpu_state, sregs.gdt.limit, 1),
    SREG(idt.base),
    VMSTATE_U16(struct vcpu_state, sregs.idt.limit, 1),
    SREG(cr0),
    SREG(cr2),
    SREG(cr3),
    SREG(cr4),
    SREG(cr8),
    SREG(efer),
    SREG(apic_base),
    SREG(flags),
    VMSTATE_U64_ARRAY(struct vcpu_state, sregs.pdptrs, 4, 1),
    VMSTATE_U32(struct vcpu_state, xcrs.nr_xcrs, 1),
    VMSTATE_U32(struct vcpu_state, xcrs.flags, 1),
    VMSTATE_STRUCT_ARRAY(struct vcpu_state, xcrs.xcrs, KVM_MAX_XCRS, &xcr_vmstate, 1),
    VMSTATE_U64_ARRAY(struct vcpu_state, debugregs.db, 4, 1),
    VMSTATE_U64(struct vcpu_state, debugregs.dr6, 1),
    VMSTATE_U64(struct vcpu_state, debugregs.dr7, 1),
    EVENT8(exception.injected),
    EVENT8(exception.nr),
    EVENT8(exception.has_error_code),
    EVENT8(exception.pending),
    VMSTATE_U32(struct vcpu_state, events.exception.error_code, 1),
    EVENT8(interrupt.injected),
    EVENT8(interrupt.nr),
    EVENT8(interrupt.soft),
    EVENT8(interrupt.shadow),
    EVENT8(nmi.injected),
    EVENT8(nmi.pending),
    EVENT8(nmi.masked),
    VMSTATE_U32(struct vcpu_state, events.sipi_vector, 1),
    VMSTATE_U32(struct vcpu_state, events.flags, 1),
    VMSTATE_U32(struct vcpu_state, mp_state.mp_state, 1),
    VMSTATE_BUFFER(struct vcpu_state, lapic.regs, 1),
    VMSTATE_U32(struct vcpu_state, xsave_size, 1),
    VMSTATE_BUFFER_VARRAY(struct vcpu_state, xsave, xsave_size, 1),
    VMSTATE_U32(struct vcpu_state, msrs.head.nmsrs, 1),
    VMSTATE_STRUCT_VARRAY(struct vcpu_state, msrs.entries, KVM_MSRS_MAX, msrs.head.nmsrs, &msr_vmstate, 1),
    VMSTATE_END,
};

static bool vcpu_pre_save(void *opaque, Error **errp)
{
    return vcpu_state_await(opaque, errp);
}

static bool vcpu_post_load(void *opaque, int version, Error **errp)
{
    struct vcpu_state *s = opaque;

    (void)version;
    return vcpu_state_check(s, errp) && vcpu_state_set(s, false, errp);
}

const VMStateDescription vcpu_vmstate = {
    .name = "vcpu",
    .version = 1,
    .minimum_version = 1,
    .fields = vcpu_fields,
    .pre_save = vcpu_pre_save,
    .post_load = vcpu_post_load,
};
