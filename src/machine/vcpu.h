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
 * A thread at the barrier can be asked to do something there (vcpus_ask()): KVM answers questions about a
 * processor fastest on its own thread, and all threads answer at the same time.
 *
 *     vcpus_hold(s, VCPU_HOLD_PAUSE);
 *     vcpus_ask(s, read_registers, self);     // every thread calls read_registers(its vcpu, self)
 *     ...                                     // meanwhile something else
 *     vcpus_await(s);
 *     vcpus_release(s, VCPU_HOLD_PAUSE);
 *
 * A pause is over within a fraction of a millisecond, and to be woken takes a good part of that: both sides
 * look for a while (SPIN_TIME) whether what they wait for is there, before they sleep. They give their core
 * away between two looks, and the processors sleep at once if they have no core to spare, or if the reason
 * is not the engine's pause.
 *
 * Some may have to stand still by themselves (vcpus_throttle()): the same, but that nobody waits for them.
 *
 * Locks: vcpus_hold() must not be called with the loop lock held, nor on a vCPU thread: an access under way
 * needs both. vcpus_hold_soon() and vcpus_throttle() may be called
 * anywhere.
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

/* What the processors need of the machine. Callbacks come on vCPU threads and may only wake somebody, but for
 * ring_full, which empties their dirty rings. */
struct vcpu_owner {
    struct bus *bus;
    Loop *loop;
    void (*triple_fault)(void *opaque);
    void (*failed)(void *opaque, const char *text);
    bool (*ring_full)(void *opaque, Error **errp);
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
    unsigned served; /* the last question that was answered; under the set's lock */
};

struct vcpus {
    struct vcpu *cpu; /* count of them */
    int count;
    struct vcpu_owner owner;
    /* private */
    bool may_spin; /* there are more cores than processors */
    struct task_mutex lock;
    struct task_cond still, go;
    int started; /* under lock: threads begun */
    /* written under lock, looked at without */
    atomic_uint hold;
    atomic_ullong throttled; /* bit i: processor i stands still, even if there is no reason for all */
    atomic_int moving;       /* threads not at the barrier */
    atomic_uint asked;       /* the number of the last question */
    atomic_int busy;         /* threads that have not answered it */
    void (*question)(struct vcpu *v, void *opaque);
    void *question_opaque;
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
/* Bit i: processor i stands still as well, from soon on, until its bit is not among those of a later call. Waits for
 * nobody. */
void vcpus_throttle(struct vcpus *s, uint64_t whom);
bool vcpus_held(struct vcpus *s, enum vcpu_hold reason);

/* Held, and still: each thread calls fn once, at the barrier; fn may use its processor and what opaque offers
 * it, and takes no lock. Returns at once; who holds the processors releases them after vcpus_await().
 * Question and answer belong to one task at a time. */
void vcpus_ask(struct vcpus *s, void (*fn)(struct vcpu *v, void *opaque), void *opaque);
/* Until all have answered; what fn wrote is visible then. Nothing asked: returns at once. */
void vcpus_await(struct vcpus *s);

#endif
