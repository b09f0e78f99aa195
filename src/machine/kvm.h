/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kvm: /dev/kvm, one virtual machine in it, and its memory slots.
 *
 * kvm_open() names every capability that this project needs and the host lacks, all at once. Everything here
 * is called by the machine's owner before vCPUs run, except kvm_set_slot() (changes of dirty logging: any one
 * task at a time) and kvm_ioctl().
 */
#ifndef MACHINE_KVM_H
#define MACHINE_KVM_H

#include <perdure/error.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#define KVM_MSRS_MAX 512
/* The largest xsave area that the state format carries: AVX-512 needs 2688 bytes, AMX 11 KiB. */
#define KVM_XSAVE_MAX 16384u

struct kvm {
    int fd, vm;
    size_t run_size;             /* of a vCPU's shared page */
    size_t xsave_size;           /* of KVM_GET_XSAVE2, at most KVM_XSAVE_MAX */
    uint32_t msrs[KVM_MSRS_MAX]; /* KVM_GET_MSR_INDEX_LIST */
    uint32_t msr_count;
    uint32_t ring_size; /* entries of each processor's dirty ring (dirty_ring.h); 0: KVM keeps a bitmap */
};

/* Opens the device, checks it, creates the VM. ring_entries: 0, or a power of two from 1024, of which it takes as many
 * as KVM offers. On failure nothing is left open. */
bool kvm_open(struct kvm *k, uint32_t ring_entries, Error **errp);
void kvm_close(struct kvm *k);

/* Whether this host's KVM offers an extension that is not among those every host must have. */
bool kvm_has(const struct kvm *k, long cap);

/* ioctl that starts again when a signal came between. */
int kvm_ioctl(int fd, unsigned long request, void *arg);
/* false with "what: errno" */
bool kvm_call(int fd, unsigned long request, void *arg, const char *what, Error **errp);

/* size 0 removes the slot. log: KVM keeps account of the pages the guest writes. */
bool kvm_set_slot(struct kvm *k, unsigned slot, uint64_t gpa, uint64_t size, void *host, bool log,
                  Error **errp);

#endif
