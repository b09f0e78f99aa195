/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/vcpu_msrs.h"

#include <errno.h>
#include <string.h>

struct one_msr {
    struct kvm_msrs head;
    struct kvm_msr_entry entry;
};

/* Those of features that cpuid.c hides: paravirtual ones with hidden state, Hyper-V's, nested VMX,
 * performance counters. */
static const struct {
    uint32_t first, last;
} left_out[] = {
    {0x11, 0x12},             /* KVM's clock under its old numbers */
    {0xc1, 0xc8},             /* counters */
    {0x186, 0x18d},           /* event selectors */
    {0x309, 0x30c},           /* fixed counters */
    {0x345, 0x345},           /* perf capabilities */
    {0x38d, 0x390},           /* counter control */
    {0x3f1, 0x3f2},           /* PEBS */
    {0x480, 0x493},           /* VMX capabilities */
    {0x4c1, 0x4c8},           /* counters, full width */
    {0x600, 0x600},           /* debug store */
    {0x40000000, 0x400001ff}, /* Hyper-V */
    {0x4b564d00, 0x4b564d00}, /* KVM's wall clock: to set it is to write into guest RAM; guests write it
                                 before each use */
    {0x4b564d02, 0x4b564dff}, /* KVM: all but its clock */
    {0xc0010000, 0xc0010007}, /* AMD counters */
    {0xc0010114, 0xc0010117}, /* SVM */
    {0xc0010200, 0xc001020b}, /* AMD counters */
    {0xc0000300, 0xc0000303}, /* AMD counter control */
};

/* KVM has them, but not in its list: memory types, and the one bank of machine checks that this machine has.
 */
static const struct {
    uint32_t first, last;
} added[] = {{0x200, 0x20f}, {0x250, 0x250}, {0x258, 0x259}, {0x268, 0x26f}, {0x2ff, 0x2ff}, {0x400, 0x403}};

static bool is_left_out(uint32_t index)
{
    for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++)
        if (index >= left_out[i].first && index <= left_out[i].last)
            return true;
    return false;
}

static bool works(struct vcpu *v, uint32_t index)
{
    struct one_msr one = {.head.nmsrs = 1, .entry.index = index};

    return kvm_ioctl(v->fd, KVM_GET_MSRS, &one) == 1 && kvm_ioctl(v->fd, KVM_SET_MSRS, &one) == 1;
}

static void learn(struct vcpu_state *s, uint32_t index)
{
    if (s->host_msr_count == KVM_MSRS_MAX || !works(s->vcpu, index))
        return;
    for (uint32_t i = 0; i < s->host_msr_count; i++)
        if (s->host_msrs[i] == index)
            return;
    s->host_msrs[s->host_msr_count++] = index;
}

/* The TSC comes first: deadlines and clocks count by it. */
bool vcpu_msrs_learn(struct kvm *k, struct vcpu_state *s, Error **errp)
{
    s->host_msr_count = 0;
    learn(s, MSR_TSC);
    if (!s->host_msr_count) {
        error_setg(errp, "vCPU %d: KVM does not let its TSC be read and set", s->vcpu->index);
        return false;
    }
    for (uint32_t i = 0; i < k->msr_count; i++)
        if (!is_left_out(k->msrs[i]))
            learn(s, k->msrs[i]);
    for (size_t i = 0; i < sizeof(added) / sizeof(added[0]); i++)
        for (uint32_t index = added[i].first; index <= added[i].last; index++)
            learn(s, index);
    return true;
}

bool vcpu_msrs_get(struct vcpu_state *s, Error **errp)
{
    int n = (int)s->host_msr_count;
    int got;

    s->msrs.head = (struct kvm_msrs){.nmsrs = s->host_msr_count};
    for (int i = 0; i < n; i++)
        s->msrs.entries[i] = (struct kvm_msr_entry){.index = s->host_msrs[i]};
    got = kvm_ioctl(s->vcpu->fd, KVM_GET_MSRS, &s->msrs);
    if (got == n)
        return true;
    error_setg(errp, "vCPU %d: cannot read MSR 0x%x", s->vcpu->index, s->host_msrs[got < 0 ? 0 : got]);
    return false;
}

static bool set_one(struct vcpu *v, const struct kvm_msr_entry *e, Error **errp)
{
    struct one_msr one = {.head.nmsrs = 1, .entry = {.index = e->index, .data = e->data}};

    if (kvm_ioctl(v->fd, KVM_SET_MSRS, &one) == 1)
        return true;
    error_setg(errp, "vCPU %d: MSR 0x%x cannot be set to 0x%llx", v->index, e->index, e->data);
    return false;
}

bool vcpu_msrs_set(struct vcpu_state *s, bool keep_tsc, Error **errp)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entries[KVM_MSRS_MAX];
    } all = {.head.nmsrs = 0};
    int set;

    for (uint32_t i = 0; i < s->msrs.head.nmsrs; i++) {
        const struct kvm_msr_entry *e = &s->msrs.entries[i];

        if (e->index != MSR_TSC_DEADLINE && !(keep_tsc && e->index == MSR_TSC))
            all.entries[all.head.nmsrs++] = *e;
    }
    set = kvm_ioctl(s->vcpu->fd, KVM_SET_MSRS, &all);
    if (set == (int)all.head.nmsrs)
        return true;
    /* Names the one that was refused; a refusal that a second try does not repeat was none. */
    for (uint32_t i = set < 0 ? 0 : (uint32_t)set; i < all.head.nmsrs; i++)
        if (!set_one(s->vcpu, &all.entries[i], errp))
            return false;
    return true;
}

static uint64_t tsc_adjust(struct vcpu *v)
{
    struct one_msr one = {.head.nmsrs = 1, .entry.index = MSR_TSC_ADJUST};

    return kvm_ioctl(v->fd, KVM_GET_MSRS, &one) == 1 ? one.entry.data : 0;
}

static bool tsc_offset(struct vcpu *v, unsigned long request, uint64_t *offset)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};

    return kvm_ioctl(v->fd, request, &attr) == 0;
}

void vcpu_msrs_follow_tsc(struct vcpu_state *s)
{
    struct vcpu *first = &s->vcpu->set->cpu[0];
    uint64_t offset;

    if (s->vcpu == first || !tsc_offset(first, KVM_GET_DEVICE_ATTR, &offset))
        return;
    offset += tsc_adjust(s->vcpu) - tsc_adjust(first);
    tsc_offset(s->vcpu, KVM_SET_DEVICE_ATTR, &offset);
}

static bool host_knows(const struct vcpu_state *s, uint32_t index)
{
    for (uint32_t i = 0; i < s->host_msr_count; i++)
        if (s->host_msrs[i] == index)
            return true;
    return false;
}

static const struct kvm_msr_entry *find(const struct kvm_msr_entry *list, uint32_t n, uint32_t index)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i].index == index)
            return &list[i];
    return NULL;
}

bool vcpu_msrs_set_deadline(struct vcpu_state *s, Error **errp)
{
    const struct kvm_msr_entry *e = find(s->msrs.entries, s->msrs.head.nmsrs, MSR_TSC_DEADLINE);

    return !e || set_one(s->vcpu, e, errp);
}

bool vcpu_msrs_check(struct vcpu_state *s, Error **errp)
{
    struct kvm_msr_entry *list = s->msrs.entries;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < s->msrs.head.nmsrs; i++) {
        const struct kvm_msr_entry e = {.index = list[i].index, .data = list[i].data};

        if (find(list, kept, e.index)) {
            error_setg(errp, "vCPU %d: MSR 0x%x is there twice", s->vcpu->index, e.index);
            return false;
        }
        if (host_knows(s, e.index)) {
            list[kept++] = e;
        } else if (e.data) {
            error_setg(errp, "vCPU %d: this host's KVM does not know MSR 0x%x, which the guest uses",
                       s->vcpu->index, e.index);
            return false;
        }
    }
    s->msrs.head.nmsrs = kept;
    return true;
}
