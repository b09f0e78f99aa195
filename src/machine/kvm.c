/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Below the IOAPIC, above the PCI window: where Intel processors without unrestricted guest mode need scratch
 * pages. */
#define IDENTITY_MAP_ADDRESS 0xfeffc000ull
#define TSS_ADDRESS          0xfeffd000ul

#define NEED(cap, least)                                                                                     \
    {                                                                                                        \
#cap, cap, least                                                                                     \
    }

static const struct {
    const char *name;
    int cap, least;
} needed[] = {
    NEED(KVM_CAP_IRQCHIP, 1),
    NEED(KVM_CAP_USER_MEMORY, 1),
    NEED(KVM_CAP_SET_TSS_ADDR, 1),
    NEED(KVM_CAP_EXT_CPUID, 1),
    NEED(KVM_CAP_MP_STATE, 1),
    NEED(KVM_CAP_ADJUST_CLOCK, 1),
    NEED(KVM_CAP_VCPU_EVENTS, 1),
    NEED(KVM_CAP_DEBUGREGS, 1),
    NEED(KVM_CAP_XSAVE, 1),
    NEED(KVM_CAP_XCRS, 1),
    NEED(KVM_CAP_SREGS2, 1),
    NEED(KVM_CAP_SYNC_REGS, KVM_SYNC_X86_VALID_FIELDS),
    NEED(KVM_CAP_PIT2, 1),
    NEED(KVM_CAP_PIT_STATE2, 1),
    NEED(KVM_CAP_SIGNAL_MSI, 1),
    NEED(KVM_CAP_IOEVENTFD, 1),
    NEED(KVM_CAP_IOEVENTFD_ANY_LENGTH, 1),
    NEED(KVM_CAP_IMMEDIATE_EXIT, 1),
    NEED(KVM_CAP_GET_TSC_KHZ, 1),
    NEED(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE),
};

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
    int rc;

    do {
        rc = ioctl(fd, request, arg);
    } while (rc < 0 && errno == EINTR);
    return rc;
}

bool kvm_call(int fd, unsigned long request, void *arg, const char *what, Error **errp)
{
    if (kvm_ioctl(fd, request, arg) >= 0)
        return true;
    error_setg_errno(errp, errno, "%s", what);
    return false;
}

static int check_extension(int fd, long cap)
{
    return kvm_ioctl(fd, KVM_CHECK_EXTENSION, (void *)cap);
}

bool kvm_has(const struct kvm *k, long cap)
{
    return check_extension(k->fd, cap) > 0;
}

static bool check_capabilities(struct kvm *k, Error **errp)
{
    char missing[1024] = "";
    size_t at = 0;

    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
        if (check_extension(k->fd, needed[i].cap) < needed[i].least)
            at += (size_t)snprintf(missing + at, sizeof(missing) - at, " %s", needed[i].name);
    if (!at)
        return true;
    error_setg(errp, "the KVM of this host lacks:%s (Linux 5.14 or newer has them all)", missing);
    return false;
}

static bool open_device(struct kvm *k, Error **errp)
{
    int version;

    k->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (k->fd < 0) {
        error_setg_errno(errp, errno,
                         "/dev/kvm: cannot open (is the module kvm_intel or kvm_amd loaded, "
                         "and may this user write to it?)");
        return false;
    }
    version = kvm_ioctl(k->fd, KVM_GET_API_VERSION, NULL);
    if (version != KVM_API_VERSION) {
        error_setg(errp, "/dev/kvm: API version %d, need %d", version, KVM_API_VERSION);
        return false;
    }
    return check_capabilities(k, errp);
}

static bool read_msr_list(struct kvm *k, Error **errp)
{
    struct {
        struct kvm_msr_list list;
        uint32_t indices[KVM_MSRS_MAX];
    } all = {.list.nmsrs = KVM_MSRS_MAX};

    if (!kvm_call(k->fd, KVM_GET_MSR_INDEX_LIST, &all, "KVM_GET_MSR_INDEX_LIST", errp))
        return false;
    k->msr_count = all.list.nmsrs;
    memcpy(k->msrs, all.indices, k->msr_count * sizeof(k->msrs[0]));
    return true;
}

/* The guest sees only paravirtual features that its CPUID names, even if it asks for others. */
static void enforce_pv_features(struct kvm *k)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID};

    cap.args[0] = 1;
    kvm_ioctl(k->vm, KVM_ENABLE_CAP, &cap);
}

static bool enable_manual_dirty_log(struct kvm *k, Error **errp)
{
    int modes = check_extension(k->fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
    struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2};

    cap.args[0] = (unsigned)modes & (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
    return kvm_call(k->vm, KVM_ENABLE_CAP, &cap, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", errp);
}

/* Says who wrote, which the bitmap does not; a virtual machine has one or the other. */
static bool enable_rings(struct kvm *k, uint32_t entries, Error **errp)
{
    int most = check_extension(k->vm, KVM_CAP_DIRTY_LOG_RING);
    struct kvm_enable_cap cap = {.cap = KVM_CAP_DIRTY_LOG_RING};

    if (most <= 0) {
        error_setg(
            errp,
            "the KVM of this host has no dirty ring (KVM_CAP_DIRTY_LOG_RING): run it without --dirty-ring");
        return false;
    }
    k->ring_size = (uint64_t)most / sizeof(struct kvm_dirty_gfn) < entries
                       ? (uint32_t)most / sizeof(struct kvm_dirty_gfn)
                       : entries;
    cap.args[0] = k->ring_size * sizeof(struct kvm_dirty_gfn);
    return kvm_call(k->vm, KVM_ENABLE_CAP, &cap, "KVM_CAP_DIRTY_LOG_RING", errp);
}

static bool create_vm(struct kvm *k, uint32_t ring_entries, Error **errp)
{
    uint64_t identity = IDENTITY_MAP_ADDRESS;
    int size;

    k->vm = kvm_ioctl(k->fd, KVM_CREATE_VM, NULL);
    if (k->vm < 0) {
        error_setg_errno(errp, errno, "KVM_CREATE_VM");
        return false;
    }
    if (!kvm_call(k->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity, "KVM_SET_IDENTITY_MAP_ADDR", errp) ||
        !kvm_call(k->vm, KVM_SET_TSS_ADDR, (void *)TSS_ADDRESS, "KVM_SET_TSS_ADDR", errp) ||
        !(ring_entries ? enable_rings(k, ring_entries, errp) : enable_manual_dirty_log(k, errp)))
        return false;
    enforce_pv_features(k);
    size = kvm_ioctl(k->fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
    if (size < (int)sizeof(struct kvm_run)) {
        error_setg(errp, "KVM_GET_VCPU_MMAP_SIZE answers %d", size);
        return false;
    }
    k->run_size = (size_t)size;
    size = check_extension(k->vm, KVM_CAP_XSAVE2);
    k->xsave_size = size > (int)sizeof(struct kvm_xsave) ? (size_t)size : sizeof(struct kvm_xsave);
    if (k->xsave_size > KVM_XSAVE_MAX) {
        error_setg(errp, "this host's xsave area has %zu bytes, this build knows at most %u", k->xsave_size,
                   KVM_XSAVE_MAX);
        return false;
    }
    return true;
}

bool kvm_open(struct kvm *k, uint32_t ring_entries, Error **errp)
{
    *k = (struct kvm){.fd = -1, .vm = -1};
    if (open_device(k, errp) && read_msr_list(k, errp) && create_vm(k, ring_entries, errp))
        return true;
    kvm_close(k);
    return false;
}

void kvm_close(struct kvm *k)
{
    if (k->vm >= 0)
        close(k->vm);
    if (k->fd >= 0)
        close(k->fd);
    k->vm = k->fd = -1;
}

bool kvm_set_slot(struct kvm *k, unsigned slot, uint64_t gpa, uint64_t size, void *host, bool log,
                  Error **errp)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = log ? KVM_MEM_LOG_DIRTY_PAGES : 0,
        .guest_phys_addr = gpa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)host,
    };

    return kvm_call(k->vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION", errp);
}
