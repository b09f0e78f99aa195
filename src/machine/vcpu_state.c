/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/vcpu_state.h"
#include "machine/vcpu_msrs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* KVM_SET_VCPU_EVENTS is given these parts; a stream that claims others (payloads, triple fault) is not
 * believed. */
#define EVENT_FLAGS                                                                                          \
    (KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW)

#define MSR_MTRR_DEFAULT        0x2ffu
#define MTRR_ENABLED_WRITE_BACK 0x806u

static bool call(struct vcpu_state *s, unsigned long request, void *arg, const char *what, Error **errp)
{
    if (kvm_ioctl(s->vcpu->fd, request, arg) >= 0)
        return true;
    error_setg_errno(errp, errno, "vCPU %d: %s", s->vcpu->index, what);
    return false;
}

/* Without payloads (EVENT_FLAGS) KVM takes every exception that it has not finished as injected, and says so
 * in both fields: what it does not take back is not part of the state. */
static bool get_events(struct vcpu_state *s, Error **errp)
{
    if (!call(s, KVM_GET_VCPU_EVENTS, &s->events, "KVM_GET_VCPU_EVENTS", errp))
        return false;
    s->events.exception.injected |= s->events.exception.pending;
    s->events.exception.pending = 0;
    return true;
}

bool vcpu_state_get(struct vcpu_state *s, Error **errp)
{
    s->xsave_size = s->host_xsave_size;
    return call(s, KVM_GET_MP_STATE, &s->mp_state, "KVM_GET_MP_STATE", errp) &&
           call(s, KVM_GET_REGS, &s->regs, "KVM_GET_REGS", errp) &&
           call(s, KVM_GET_SREGS2, &s->sregs, "KVM_GET_SREGS2", errp) &&
           call(s, s->xsave_size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, s->xsave,
                "KVM_GET_XSAVE", errp) &&
           call(s, KVM_GET_XCRS, &s->xcrs, "KVM_GET_XCRS", errp) &&
           call(s, KVM_GET_DEBUGREGS, &s->debugregs, "KVM_GET_DEBUGREGS", errp) && vcpu_msrs_get(s, errp) &&
           call(s, KVM_GET_LAPIC, &s->lapic, "KVM_GET_LAPIC", errp) && get_events(s, errp);
}

bool vcpu_state_set(struct vcpu_state *s, bool keep_tsc, Error **errp)
{
    struct kvm_vcpu_events events = s->events;

    events.flags &= EVENT_FLAGS;
    return call(s, KVM_SET_SREGS2, &s->sregs, "KVM_SET_SREGS2", errp) &&
           call(s, KVM_SET_REGS, &s->regs, "KVM_SET_REGS", errp) &&
           call(s, KVM_SET_XCRS, &s->xcrs, "KVM_SET_XCRS", errp) &&
           call(s, KVM_SET_XSAVE, s->xsave, "KVM_SET_XSAVE", errp) &&
           call(s, KVM_SET_DEBUGREGS, &s->debugregs, "KVM_SET_DEBUGREGS", errp) &&
           vcpu_msrs_set(s, keep_tsc, errp) && call(s, KVM_SET_LAPIC, &s->lapic, "KVM_SET_LAPIC", errp) &&
           call(s, KVM_SET_MP_STATE, &s->mp_state, "KVM_SET_MP_STATE", errp) &&
           vcpu_msrs_set_deadline(s, errp) &&
           call(s, KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS", errp);
}

bool vcpu_state_check(struct vcpu_state *s, Error **errp)
{
    if (s->xsave_size < sizeof(struct kvm_xsave) || s->xsave_size > s->host_xsave_size) {
        error_setg(errp, "vCPU %d: an xsave area of %u bytes; this host's has %u", s->vcpu->index,
                   s->xsave_size, s->host_xsave_size);
        return false;
    }
    memset(s->xsave + s->xsave_size, 0, s->host_xsave_size - s->xsave_size);
    if (s->xcrs.nr_xcrs > KVM_MAX_XCRS || s->xcrs.flags) {
        error_setg(errp, "vCPU %d: %u extended control registers", s->vcpu->index, s->xcrs.nr_xcrs);
        return false;
    }
    return vcpu_msrs_check(s, errp);
}

/* What firmware would have done: memory is cached unless a range says otherwise. */
static bool keep_power_on(struct vcpu_state *s, Error **errp)
{
    struct vcpu_state *p = aligned_alloc(64, (sizeof(*s) + 63) & ~(size_t)63);

    if (!p) {
        error_setg_errno(errp, ENOMEM, "vCPU %d", s->vcpu->index);
        return false;
    }
    memcpy(p, s, sizeof(*s));
    for (uint32_t i = 0; i < p->msrs.head.nmsrs; i++)
        if (p->msrs.entries[i].index == MSR_MTRR_DEFAULT)
            p->msrs.entries[i].data = MTRR_ENABLED_WRITE_BACK;
    s->power_on = p;
    return true;
}

struct vcpu_state *vcpu_state_new(struct kvm *k, struct vcpu *v, Error **errp)
{
    struct vcpu_state *s = aligned_alloc(64, (sizeof(*s) + 63) & ~(size_t)63);

    if (!s) {
        error_setg_errno(errp, ENOMEM, "vCPU %d", v->index);
        return NULL;
    }
    memset(s, 0, sizeof(*s));
    s->vcpu = v;
    s->host_xsave_size = (uint32_t)k->xsave_size;
    if (vcpu_msrs_learn(k, s, errp) && vcpu_state_get(s, errp) && keep_power_on(s, errp))
        return s;
    vcpu_state_free(s);
    return NULL;
}

void vcpu_state_power_on(struct vcpu_state *s)
{
    memcpy(s, s->power_on, offsetof(struct vcpu_state, vcpu));
}

void vcpu_state_free(struct vcpu_state *s)
{
    if (s)
        free(s->power_on);
    free(s);
}
