/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/vcpu_exit.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

static void serve_port(struct vcpu *v)
{
    struct vcpu_owner *o = &v->set->owner;
    struct kvm_run *run = v->run;
    unsigned size = run->io.size;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    loop_lock(o->loop);
    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        uint64_t value = 0;

        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, size);
            bus_write(o->bus, IO_PORT, run->io.port, value, size);
        } else {
            value = bus_read(o->bus, IO_PORT, run->io.port, size);
            memcpy(data, &value, size);
        }
    }
    loop_unlock(o->loop);
}

static void serve_memory(struct vcpu *v)
{
    struct vcpu_owner *o = &v->set->owner;
    struct kvm_run *run = v->run;
    unsigned size = run->mmio.len <= 8 ? run->mmio.len : 8;
    uint64_t value = 0;

    loop_lock(o->loop);
    if (run->mmio.is_write) {
        memcpy(&value, run->mmio.data, size);
        bus_write(o->bus, IO_MEMORY, run->mmio.phys_addr, value, size);
    } else {
        value = bus_read(o->bus, IO_MEMORY, run->mmio.phys_addr, size);
        memcpy(run->mmio.data, &value, size);
    }
    loop_unlock(o->loop);
}

static void log_registers(struct vcpu *v)
{
    struct kvm_regs r;
    struct kvm_sregs s;

    if (kvm_ioctl(v->fd, KVM_GET_REGS, &r) || kvm_ioctl(v->fd, KVM_GET_SREGS, &s))
        return;
    log_warn("vcpu%d: rip %llx rsp %llx flags %llx cs %x cr0 %llx cr2 %llx cr3 %llx cr4 %llx efer %llx",
             v->index, r.rip, r.rsp, r.rflags, s.cs.selector, s.cr0, s.cr2, s.cr3, s.cr4, s.efer);
    log_warn(
        "vcpu%d: rax %llx rbx %llx rcx %llx rdx %llx rsi %llx rdi %llx rbp %llx r8 %llx r9 %llx r10 %llx "
        "r11 %llx r12 %llx r13 %llx r14 %llx r15 %llx",
        v->index, r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
        r.r14, r.r15);
}

void vcpu_report_failure(struct vcpu *v, const char *what, int errnum)
{
    char text[200];

    snprintf(text, sizeof(text), "vCPU %d: %s%s%s", v->index, what, errnum ? ": " : "",
             errnum ? strerrordesc_np(errnum) : "");
    log_registers(v);
    v->set->owner.failed(v->set->owner.opaque, text);
    vcpus_hold_soon(v->set, VCPU_HOLD_ERROR);
}

static bool fail(struct vcpu *v, const char *what, unsigned long long reason)
{
    char text[120];

    snprintf(text, sizeof(text), "%s (%llu)", what, reason);
    vcpu_report_failure(v, text, 0);
    return false;
}

static bool empty_rings(struct vcpu *v)
{
    struct vcpu_owner *o = &v->set->owner;
    Error *err = NULL;

    if (o->ring_full(o->opaque, &err))
        return true;
    vcpu_report_failure(v, error_get_pretty(err), 0);
    error_free(err);
    return false;
}

bool vcpu_serve_exit(struct vcpu *v)
{
    struct kvm_run *run = v->run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        serve_port(v);
        return true;
    case KVM_EXIT_MMIO:
        serve_memory(v);
        return true;
    case KVM_EXIT_INTR:
    case KVM_EXIT_HLT:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return true;
    case KVM_EXIT_DIRTY_RING_FULL:
        return empty_rings(v);
    case KVM_EXIT_SHUTDOWN:
        log_info("vcpu%d: triple fault", v->index);
        v->set->owner.triple_fault(v->set->owner.opaque);
        return true;
    case KVM_EXIT_FAIL_ENTRY:
        return fail(v, "KVM refuses its state", run->fail_entry.hardware_entry_failure_reason);
    case KVM_EXIT_INTERNAL_ERROR:
        return fail(v, "KVM gave up on an instruction", run->internal.suberror);
    default:
        return fail(v, "unexpected exit", run->exit_reason);
    }
}
