/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Vcpus: the processors of a machine, one thread each, and the barrier at which they stand still.
 *
 * There are several reasons to stand still at once (enum vcpu_hold); the processors run while there is none.
 * vcpus_hold() sets a reason and waits until every thread is at the barrier, vcpus_release() takes it away.
 *
 * How a processor is stopped, and why no kick is lost: the holder sets the reason, then sends each thread a
 * signal whose handler sets immediate_exit in that thread's kvm_run. The thread clears immediate_exit, THEN
 * looks at the reasons, THEN enters KVM_RUN: a signal before the look is seen as a reason, a signal after it
 * makes KVM_RUN return at once. Before it goes to the barrier it enters KVM_RUN with immediate_exit set until
 * that says EINTR: only then is a port or memory access that the last exit began complete in the registers.
 *
 *     running --(reason set, kicked)--> completing --(EINTR)--> at the barrier --(no reason left)--> running
 *
 * Locks: vcpus_hold() must not be called with the loop lock held, nor on a vCPU thread: an access under way
 * needs both. vcpus_hold_soon() may be called anywhere.
 */
#ifndef MACHINE_VCPU_H
#define MACHINE_VCPU_H

#include "base/task.h"
#include "machine/bus.h"
#include "machine/kvm.h"

#include <stdatomic.h>

enum vcpu_hold {
    VCPU_HOLD_USER = 1 << 0,    /* not started, or stopped by the user */
    VCPU_HOLD_PAUSE = 1 << 1,   /* the engine's pause */
    VCPU_HOLD_REQUEST = 1 << 2, /* the guest asked for its end or a reset */
    VCPU_HOLD_ERROR = 1 << 3,   /* KVM cannot go on with it */
    VCPU_HOLD_QUIT = 1 << 4,
};

/* What the processors need of the machine. Callbacks come on vCPU threads and may only wake somebody. */
struct vcpu_owner {
    struct bus *bus;
    Loop *loop;
    void (*triple_fault)(void *opaque);
    void (*failed)(void *opaque, const char *text);
    void *opaque;
};

struct vcpus;

struct vcpu {
    int index, fd;
    struct kvm_run *run;
    size_t run_size;
    struct vcpus *set;
    Task *task;
    pthread_t thread;
};

struct vcpus {
    struct vcpu *cpu; /* count of them */
    int count;
    struct vcpu_owner owner;
    /* private */
    atomic_uint hold;
    struct task_mutex lock;
    struct task_cond still, go;
    int started, moving; /* under lock: threads begun; threads not at the barrier */
};

/* Makes the vCPUs in KVM and their threads, held by VCPU_HOLD_USER. On failure nothing is left. */
bool vcpus_new(struct vcpus *s, struct kvm *k, int count, const struct vcpu_owner *owner, Error **errp);
/* Ends the threads. Never made, or a second time: does nothing; so does vcpus_free(). */
void vcpus_quit(struct vcpus *s);
void vcpus_free(struct vcpus *s);

void vcpus_hold(struct vcpus *s, enum vcpu_hold reason);
/* Sets the reason and kicks, waits for nobody. */
void vcpus_hold_soon(struct vcpus *s, enum vcpu_hold reason);
void vcpus_release(struct vcpus *s, enum vcpu_hold reason);
bool vcpus_held(struct vcpus *s, enum vcpu_hold reason);

#endif
