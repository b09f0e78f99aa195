/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/vcpu_state.h"
#include "machine/vcpu_msrs.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* KVM_SET_VCPU_EVENTS is given these parts; a stream that claims others (payloads, triple fault) is not
 * believed. */
#define EVENT_FLAGS                                                                                          \
    (KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW)

#define CR0_PG   (1u << 31)
#define CR4_PAE  (1u << 5)
#define EFER_LMA (1u << 10)

#define XSTATE_BV      512 /* in the XSAVE area */
#define XSTATE_X87_SSE 3u

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
static void take_injected(struct kvm_vcpu_events *events)
{
    events->exception.injected |= events->exception.pending;
    events->exception.pending = 0;
}

/* One call where KVM_GET_REGS, _SREGS2 and _VCPU_EVENTS would be three: an entry that does not enter. */
static bool fetch_registers(struct vcpu_state *s, Error **errp)
{
    struct kvm_run *run = s->vcpu->run;
    int rc;

    run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_RELAXED);
    rc = ioctl(s->vcpu->fd, KVM_RUN, NULL);
    run->kvm_valid_regs = 0;
    if (rc < 0 && errno == EINTR)
        return true;
    error_setg_errno(errp, rc < 0 ? errno : EIO, "vCPU %d: KVM_RUN to read its registers", s->vcpu->index);
    return false;
}

/* The page tables' roots of a guest with PAE are not among what that call brings. */
static bool get_sregs(struct vcpu_state *s, Error **errp)
{
    const struct kvm_sregs *from = &s->vcpu->run->s.regs.sregs;

    _Static_assert(offsetof(struct kvm_sregs, interrupt_bitmap) == offsetof(struct kvm_sregs2, flags), "");
    if ((from->cr0 & CR0_PG) && (from->cr4 & CR4_PAE) && !(from->efer & EFER_LMA))
        return call(s, KVM_GET_SREGS2, &s->sregs, "KVM_GET_SREGS2", errp);
    memset(&s->sregs, 0, sizeof(s->sregs));
    memcpy(&s->sregs, from, offsetof(struct kvm_sregs, interrupt_bitmap));
    return true;
}

static bool get_registers(struct vcpu_state *s, Error **errp)
{
    if (!fetch_registers(s, errp) || !get_sregs(s, errp))
        return false;
    s->regs = s->vcpu->run->s.regs.regs;
    s->events = s->vcpu->run->s.regs.events;
    take_injected(&s->events);
    return true;
}

/* Whether x87 and SSE are in their initial state is the processor's own business: the two bits may come out of it
 * other than they went in. KVM fills in the initial values where a bit is clear, so that they are in use is always
 * true, and the same on both sides. */
static bool get_xsave(struct vcpu_state *s, Error **errp)
{
    if (!call(s, s->xsave_size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, s->xsave,
              "KVM_GET_XSAVE", errp))
        return false;
    s->xsave[XSTATE_BV] |= XSTATE_X87_SSE;
    return true;
}

/* On the processor's own thread: no other may call KVM_RUN. */
static bool read_all(struct vcpu_state *s, Error **errp)
{
    s->xsave_size = s->host_xsave_size;
    return call(s, KVM_GET_MP_STATE, &s->mp_state, "KVM_GET_MP_STATE", errp) && get_registers(s, errp) &&
           get_xsave(s, errp) && call(s, KVM_GET_XCRS, &s->xcrs, "KVM_GET_XCRS", errp) &&
           call(s, KVM_GET_DEBUGREGS, &s->debugregs, "KVM_GET_DEBUGREGS", errp) && vcpu_msrs_get(s, errp) &&
           call(s, KVM_GET_LAPIC, &s->lapic, "KVM_GET_LAPIC", errp);
}

static void read_in_table(struct vcpu *v, void *opaque)
{
    struct vcpu_state *s = ((struct vcpu_state **)opaque)[v->index];

    read_all(s, &s->error);
}

static void read_if_mine(struct vcpu *v, void *opaque)
{
    struct vcpu_state *s = opaque;

    if (v == s->vcpu)
        read_all(s, &s->error);
}

static void forget_reading(struct vcpu_state *s)
{
    s->asked = false;
    error_free(s->error);
    s->error = NULL;
}

void vcpu_states_ask(struct vcpus *set, struct vcpu_state **states)
{
    vcpus_await(set); /* a reading that nobody has waited for */
    for (int i = 0; i < set->count; i++) {
        forget_reading(states[i]);
        states[i]->asked = true;
    }
    vcpus_ask(set, read_in_table, states);
}

bool vcpu_state_await(struct vcpu_state *s, Error **errp)
{
    Error *err;

    assert(s->asked); /* what is there is from an earlier time */
    vcpus_await(s->vcpu->set);
    err = s->error;
    s->error = NULL;
    s->asked = false;
    error_propagate(errp, err);
    return !err;
}

static bool read_first(struct vcpu_state *s, Error **errp)
{
    s->asked = true;
    vcpus_ask(s->vcpu->set, read_if_mine, s);
    return vcpu_state_await(s, errp);
}

static bool set_msrs(struct vcpu_state *s, bool keep_tsc, Error **errp)
{
    if (!vcpu_msrs_set(s, keep_tsc, errp))
        return false;
    if (!keep_tsc)
        vcpu_msrs_follow_tsc(s);
    return true;
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
           set_msrs(s, keep_tsc, errp) && call(s, KVM_SET_LAPIC, &s->lapic, "KVM_SET_LAPIC", errp) &&
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
    if (vcpu_msrs_learn(k, s, errp) && read_first(s, errp) && keep_power_on(s, errp))
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
    if (!s)
        return;
    error_free(s->error);
    free(s->power_on);
    free(s);
}
