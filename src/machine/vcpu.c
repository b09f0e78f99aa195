/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/vcpu.h"
#include "machine/vcpu_exit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define KICK_SIGNAL (SIGRTMIN + 1)

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

static void run_until_held(struct vcpu *v)
{
    enum run_result result = RUN_AGAIN;

    while (result != RUN_BROKEN) {
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_RELAXED);
        atomic_signal_fence(memory_order_seq_cst); /* the order that the header explains */
        if (atomic_load(&v->set->hold))
            break;
        result = run_once(v);
    }
    while (result != RUN_BROKEN && result != RUN_INTERRUPTED) {
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_RELAXED);
        result = run_once(v);
    }
}

/* At the barrier until no reason is left; false: quit. */
static bool stand_still(struct vcpus *s)
{
    bool quit;

    task_lock(&s->lock);
    if (--s->moving == 0)
        task_broadcast(&s->still);
    while (atomic_load(&s->hold) && !(atomic_load(&s->hold) & VCPU_HOLD_QUIT))
        task_wait(&s->go, &s->lock);
    quit = atomic_load(&s->hold) & VCPU_HOLD_QUIT;
    if (!quit)
        s->moving++;
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
    while (stand_still(v->set))
        run_until_held(v);
    kick_target = NULL;
}

static void wait_still(struct vcpus *s)
{
    while (s->moving > 0)
        task_wait(&s->still, &s->lock);
}

/* Lock held. */
static void hold_and_kick(struct vcpus *s, unsigned reason)
{
    unsigned before = atomic_fetch_or(&s->hold, reason);

    task_broadcast(&s->go); /* those at the barrier look for QUIT */
    if (before)
        return; /* whoever held first has kicked */
    for (int i = 0; i < s->started; i++)
        pthread_kill(s->cpu[i].thread, KICK_SIGNAL);
}

void vcpus_hold(struct vcpus *s, enum vcpu_hold reason)
{
    task_lock(&s->lock);
    hold_and_kick(s, reason);
    wait_still(s);
    task_unlock(&s->lock);
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

bool vcpus_held(struct vcpus *s, enum vcpu_hold reason)
{
    return atomic_load(&s->hold) & reason;
}

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
    task_lock(&s->lock);
    s->moving++;
    task_unlock(&s->lock);
    v->task = task_start(name, vcpu_thread, v, errp);
    task_lock(&s->lock);
    if (v->task) {
        wait_still(s); /* its thread id is known from here */
        s->started++;
    } else {
        s->moving--;
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
