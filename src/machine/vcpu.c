/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/vcpu.h"
#include "machine/vcpu_exit.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define KICK_SIGNAL (SIGRTMIN + 1)
/* Longer than a pause with a few hundred pages. */
#define SPIN_TIME (200 * NS_PER_US)

/* The kvm_run of the processor whose thread this is: all that the handler touches. */
static __thread struct kvm_run *volatile kick_target;

static void on_kick(int sig)
{
    (void)sig;
    if (kick_target)
        __atomic_store_n(&kick_target->immediate_exit, 1, __ATOMIC_RELAXED);
}

static bool install_kick_handler(Error **errp)
{
    struct sigaction action = {.sa_handler = on_kick};

    sigemptyset(&action.sa_mask);
    if (!sigaction(KICK_SIGNAL, &action, NULL))
        return true;
    error_setg_errno(errp, errno, "sigaction");
    return false;
}

enum run_result { RUN_AGAIN, RUN_INTERRUPTED, RUN_BROKEN };

/* Enters the guest once and serves what it came out for. */
static enum run_result run_once(struct vcpu *v)
{
    if (ioctl(v->fd, KVM_RUN, NULL) == 0)
        return vcpu_serve_exit(v) ? RUN_AGAIN : RUN_BROKEN;
    if (errno == EINTR)
        return RUN_INTERRUPTED;
    if (errno == EAGAIN) /* INIT or SIPI came for a processor that waits for it */
        return RUN_AGAIN;
    vcpu_report_failure(v, "KVM_RUN", errno);
    return RUN_BROKEN;
}

/* Must it stand still, for whatever reason? */
static bool is_held(const struct vcpu *v)
{
    return atomic_load(&v->set->hold) || atomic_load(&v->set->throttled) >> v->index & 1;
}

static void run_until_held(struct vcpu *v)
{
    enum run_result result = RUN_AGAIN;

    while (result != RUN_BROKEN) {
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_RELAXED);
        atomic_signal_fence(memory_order_seq_cst); /* the order that the header explains */
        if (is_held(v))
            break;
        result = run_once(v);
    }
    while (result != RUN_BROKEN && result != RUN_INTERRUPTED) {
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_RELAXED);
        result = run_once(v);
    }
}

/* --- the barrier --- */

static void spin_while(bool (*busy)(const void *opaque), const void *opaque, int64_t until)
{
    while (busy(opaque) && clock_now() < until)
        sched_yield(); /* whom we wait for may need this core */
}

static bool must_stand(const struct vcpu *v)
{
    return is_held(v) && !(atomic_load(&v->set->hold) & VCPU_HOLD_QUIT);
}

static bool nothing_to_do(const void *opaque)
{
    const struct vcpu *v = opaque;

    return must_stand(v) && atomic_load(&v->set->asked) == v->served;
}

/* Lock held, and given up meanwhile. */
static void answer(struct vcpu *v)
{
    struct vcpus *s = v->set;
    void (*question)(struct vcpu * v, void *opaque) = s->question;
    void *opaque = s->question_opaque;

    v->served = atomic_load(&s->asked);
    task_unlock(&s->lock);
    question(v, opaque);
    task_lock(&s->lock);
    if (atomic_fetch_sub(&s->busy, 1) == 1)
        task_broadcast(&s->still);
}

/* Lock held, and given up meanwhile. */
static void rest(struct vcpu *v, int64_t spin_until)
{
    struct vcpus *s = v->set;

    if (s->may_spin && atomic_load(&s->hold) == VCPU_HOLD_PAUSE) {
        task_unlock(&s->lock);
        spin_while(nothing_to_do, v, spin_until);
        task_lock(&s->lock);
    }
    if (nothing_to_do(v))
        task_wait(&s->go, &s->lock);
}

/* At the barrier until no reason is left; false: quit. No question stays behind unanswered. */
static bool stand_still(struct vcpu *v)
{
    struct vcpus *s = v->set;
    int64_t spin_until = clock_now() + SPIN_TIME;
    bool quit;

    task_lock(&s->lock);
    if (atomic_fetch_sub(&s->moving, 1) == 1)
        task_broadcast(&s->still);
    for (;;) {
        if (atomic_load(&s->asked) != v->served) {
            answer(v);
            spin_until = clock_now() + SPIN_TIME;
        } else if (must_stand(v)) {
            rest(v, spin_until);
        } else {
            break;
        }
    }
    quit = atomic_load(&s->hold) & VCPU_HOLD_QUIT;
    if (!quit)
        atomic_fetch_add(&s->moving, 1);
    task_unlock(&s->lock);
    return !quit;
}

static void vcpu_thread(void *arg)
{
    struct vcpu *v = arg;
    sigset_t kick;

    kick_target = v->run;
    v->thread = pthread_self();
    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    while (stand_still(v))
        run_until_held(v);
    kick_target = NULL;
}

static bool is_positive(const void *opaque)
{
    return atomic_load((const atomic_int *)opaque) > 0;
}

/* Lock held: until nobody is left of a count whose end is told by still. */
static void wait_for_none(struct vcpus *s, const atomic_int *count)
{
    while (is_positive(count))
        task_wait(&s->still, &s->lock);
}

/* The same without the lock, and with a look before the sleep. */
static void look_for_none(struct vcpus *s, const atomic_int *count)
{
    spin_while(is_positive, count, clock_now() + SPIN_TIME);
    task_lock(&s->lock);
    wait_for_none(s, count);
    task_unlock(&s->lock);
}

/* Lock held. */
static void kick(struct vcpus *s, uint64_t whom)
{
    for (int i = 0; i < s->started; i++)
        if (whom >> i & 1)
            pthread_kill(s->cpu[i].thread, KICK_SIGNAL);
}

/* Lock held. */
static void hold_and_kick(struct vcpus *s, unsigned reason)
{
    unsigned before = atomic_fetch_or(&s->hold, reason);

    if (reason == VCPU_HOLD_QUIT)
        task_broadcast(&s->go); /* the only one that ends a stand */
    if (!before)                /* else whoever held first has kicked */
        kick(s, UINT64_MAX);
}

void vcpus_hold(struct vcpus *s, enum vcpu_hold reason)
{
    task_lock(&s->lock);
    hold_and_kick(s, reason);
    task_unlock(&s->lock);
    look_for_none(s, &s->moving);
}

void vcpus_hold_soon(struct vcpus *s, enum vcpu_hold reason)
{
    task_lock(&s->lock);
    hold_and_kick(s, reason);
    task_unlock(&s->lock);
}

void vcpus_release(struct vcpus *s, enum vcpu_hold reason)
{
    task_lock(&s->lock);
    atomic_fetch_and(&s->hold, ~(unsigned)reason);
    if (!atomic_load(&s->hold))
        task_broadcast(&s->go);
    task_unlock(&s->lock);
}

void vcpus_throttle(struct vcpus *s, uint64_t whom)
{
    uint64_t before;

    task_lock(&s->lock);
    before = atomic_exchange(&s->throttled, whom);
    kick(s, whom & ~before);
    if (before & ~whom)
        task_broadcast(&s->go);
    task_unlock(&s->lock);
}

bool vcpus_held(struct vcpus *s, enum vcpu_hold reason)
{
    return atomic_load(&s->hold) & reason;
}

void vcpus_ask(struct vcpus *s, void (*fn)(struct vcpu *v, void *opaque), void *opaque)
{
    task_lock(&s->lock);
    assert(atomic_load(&s->hold) && !atomic_load(&s->moving));
    wait_for_none(s, &s->busy); /* somebody may have asked and gone away without the answer */
    s->question = fn;
    s->question_opaque = opaque;
    atomic_store(&s->busy, s->started);
    atomic_fetch_add(&s->asked, 1);
    task_broadcast(&s->go);
    task_unlock(&s->lock);
}

void vcpus_await(struct vcpus *s)
{
    look_for_none(s, &s->busy);
}

/* --- life --- */

static bool create_vcpu(struct vcpu *v, struct kvm *k, Error **errp)
{
    v->fd = kvm_ioctl(k->vm, KVM_CREATE_VCPU, (void *)(long)v->index);
    if (v->fd < 0) {
        error_setg_errno(errp, errno, "KVM_CREATE_VCPU %d", v->index);
        return false;
    }
    v->run_size = k->run_size;
    v->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (v->run == MAP_FAILED) {
        v->run = NULL;
        error_setg_errno(errp, errno, "mmap of vCPU %d", v->index);
        return false;
    }
    return true;
}

static bool start_thread(struct vcpu *v, Error **errp)
{
    struct vcpus *s = v->set;
    char name[16];

    snprintf(name, sizeof(name), "vcpu%d", v->index);
    atomic_fetch_add(&s->moving, 1);
    v->task = task_start(name, vcpu_thread, v, errp);
    task_lock(&s->lock);
    if (v->task) {
        wait_for_none(s, &s->moving); /* its thread id is known from here */
        s->started++;
    } else {
        atomic_fetch_sub(&s->moving, 1);
    }
    task_unlock(&s->lock);
    return v->task;
}

bool vcpus_new(struct vcpus *s, struct kvm *k, int count, const struct vcpu_owner *owner, Error **errp)
{
    *s = (struct vcpus){.owner = *owner, .hold = VCPU_HOLD_USER};
    s->cpu = calloc((size_t)count, sizeof(s->cpu[0]));
    if (!s->cpu) {
        error_setg_errno(errp, ENOMEM, "vCPUs");
        return false;
    }
    s->count = count;
    s->may_spin = count < sysconf(_SC_NPROCESSORS_ONLN);
    task_mutex_init(&s->lock);
    task_cond_init(&s->still);
    task_cond_init(&s->go);
    for (int i = 0; i < count; i++)
        s->cpu[i] = (struct vcpu){.index = i, .fd = -1, .set = s};
    if (!install_kick_handler(errp))
        goto fail;
    for (int i = 0; i < count; i++)
        if (!create_vcpu(&s->cpu[i], k, errp) || !start_thread(&s->cpu[i], errp))
            goto fail;
    return true;
fail:
    vcpus_free(s);
    return false;
}

void vcpus_quit(struct vcpus *s)
{
    if (!s->cpu)
        return;
    vcpus_hold_soon(s, VCPU_HOLD_QUIT);
    for (int i = 0; i < s->count; i++) {
        task_join(s->cpu[i].task);
        s->cpu[i].task = NULL;
    }
    s->started = 0;
}

void vcpus_free(struct vcpus *s)
{
    if (!s->cpu)
        return;
    vcpus_quit(s);
    for (int i = 0; i < s->count; i++) {
        if (s->cpu[i].run)
            munmap(s->cpu[i].run, s->cpu[i].run_size);
        if (s->cpu[i].fd >= 0)
            close(s->cpu[i].fd);
    }
    task_cond_destroy(&s->go);
    task_cond_destroy(&s->still);
    task_mutex_destroy(&s->lock);
    free(s->cpu);
    s->cpu = NULL;
}
