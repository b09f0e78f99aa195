/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pause and resume, the guest's requests, and the reset. */
#include "base/log.h"
#include "machine/acpi.h"
#include "machine/boot.h"
#include "machine/machine_internal.h"

/* --- pause: one at a time; the next one waits for its turn --- */

static bool start_loop(Machine *m, Error **errp)
{
    if (m->loop_started)
        return true;
    return m->loop_started = loop_start(m->loop, errp);
}

bool machine_pause(Machine *m, Error **errp)
{
    bool quit;

    task_lock(&m->lock);
    while (m->paused && !m->quit)
        task_wait(&m->unpaused, &m->lock);
    quit = m->paused;
    m->paused = true;
    task_unlock(&m->lock);
    if (quit) {
        error_setg(errp, "the machine ends");
        return false;
    }
    vcpus_hold(&m->vcpus, VCPU_HOLD_PAUSE);
    loop_park(m->loop);
    return true;
}

/* What was loaded or asked for meanwhile decides who may run. */
static void apply_run_state(Machine *m)
{
    if (m->state.request)
        vcpus_hold_soon(&m->vcpus, VCPU_HOLD_REQUEST);
    else
        vcpus_release(&m->vcpus, VCPU_HOLD_REQUEST);
    if (m->state.running)
        vcpus_release(&m->vcpus, VCPU_HOLD_USER);
    else
        vcpus_hold_soon(&m->vcpus, VCPU_HOLD_USER);
}

void machine_resume(Machine *m)
{
    Error *err = NULL;
    bool ok;

    m->reading = false;
    /* A standby's machine begins without a pause. Not under our lock: a handler that wants it holds the
     * loop's. */
    if (m->paused)
        loop_unpark(m->loop);
    task_lock(&m->lock);
    ok = !m->state.running || start_loop(m, &err);
    apply_run_state(m);
    m->paused = false;
    task_broadcast(&m->unpaused);
    vcpus_release(&m->vcpus, VCPU_HOLD_PAUSE);
    task_unlock(&m->lock);
    if (ok)
        return;
    log_warn("%s", error_get_pretty(err));
    error_free(err);
    machine_tell(m, MACHINE_ERROR);
}

void machine_stop(Machine *m)
{
    task_lock(&m->lock);
    m->state.running = false;
    task_unlock(&m->lock);
    vcpus_hold(&m->vcpus, VCPU_HOLD_USER);
    machine_tell(m, MACHINE_STOPPED);
}

bool machine_running(const Machine *m)
{
    return __atomic_load_n(&m->state.running, __ATOMIC_RELAXED) &&
           !__atomic_load_n(&m->state.request, __ATOMIC_RELAXED);
}

/* --- requests: from a device (loop lock held), a processor, or a user --- */

static void tell_owner(Machine *m, enum guest_request what)
{
    switch (what) {
    case GUEST_REQUEST_POWEROFF:
        machine_tell(m, MACHINE_POWEROFF);
        break;
    case GUEST_REQUEST_PANIC:
        machine_tell(m, MACHINE_PANICKED);
        break;
    default:
        break;
    }
}

/* Lock held, no engine in charge: a reset is the worker's to do. */
static void want_reset(Machine *m, enum guest_request what)
{
    if (what != GUEST_REQUEST_RESET)
        return;
    m->reset_wanted = true;
    task_broadcast(&m->work);
}

void machine_request(Machine *m, enum guest_request what)
{
    void (*on_request)(void *opaque) = m->guest.on_request;
    bool first;

    task_lock(&m->lock);
    first = !m->state.request && what;
    if (first) {
        m->state.request = what;
        vcpus_hold_soon(&m->vcpus, VCPU_HOLD_REQUEST);
        if (!on_request)
            want_reset(m, what);
    }
    task_unlock(&m->lock);
    if (!first)
        return;
    if (on_request)
        on_request(m->guest.on_request_opaque);
    else
        tell_owner(m, what);
}

/* A guest that came from a state file may have ended before it was saved. */
bool machine_start(Machine *m, Error **errp)
{
    enum guest_request request;
    bool ok;

    task_lock(&m->lock);
    ok = start_loop(m, errp);
    if (ok) {
        m->state.running = true;
        apply_run_state(m);
    }
    request = m->guest.on_request ? GUEST_REQUEST_NONE : (enum guest_request)m->state.request;
    want_reset(m, request);
    task_unlock(&m->lock);
    if (!ok)
        return false;
    machine_tell(m, MACHINE_RUNNING);
    tell_owner(m, request);
    return true;
}

void machine_power_button(Machine *m)
{
    loop_lock(m->loop);
    pm_power_button(m->devices.pm);
    loop_unlock(m->loop);
}

/* --- reset --- */

static bool reset_vcpu(Machine *m, int i, const struct boot_entry *entry, Error **errp)
{
    struct vcpu_state *s = m->states[i];

    vcpu_state_power_on(s);
    if (i == 0 && entry)
        boot_apply(entry, s);
    return vcpu_state_set(s, true, errp);
}

static bool reset_hardware(Machine *m, const struct boot_entry *entry, Error **errp)
{
    vcpus_await(&m->vcpus);
    m->reading = false;
    loop_lock(m->loop);
    for (Device *d = m->devices.first; d; d = d->next)
        if (d->class->reset)
            d->class->reset(d);
    loop_unlock(m->loop);
    if (!irqchip_reset(&m->irqchip, errp))
        return false;
    for (int i = 0; i < m->vcpus.count; i++)
        if (!reset_vcpu(m, i, entry, errp))
            return false;
    task_lock(&m->lock);
    m->state.request = GUEST_REQUEST_NONE;
    m->reset_wanted = false;
    vcpus_release(&m->vcpus, VCPU_HOLD_ERROR);
    task_unlock(&m->lock);
    return true;
}

static bool load_kernel(Machine *m, struct boot_entry *ret, Error **errp)
{
    const struct machine_config *c = &m->setup.config;
    struct boot b = {
        .memory = m->guest.memory,
        .kernel = c->kernel,
        .kernel_size = c->kernel_size,
        .initrd = c->initrd,
        .initrd_size = c->initrd_size,
        .cmdline = c->cmdline,
        .rsdp = ACPI_BASE,
    };

    return acpi_load(b.memory, (unsigned)c->cpus, errp) && boot_load(&b, ret, errp);
}

bool machine_reset_paused(Machine *m, Error **errp)
{
    struct boot_entry entry;

    return load_kernel(m, &entry, errp) && reset_hardware(m, &entry, errp);
}

bool machine_power_on_state(Machine *m, Error **errp)
{
    return reset_hardware(m, NULL, errp);
}

bool machine_reset(Machine *m, Error **errp)
{
    bool ok;

    if (!machine_pause(m, errp))
        return false;
    ok = machine_reset_paused(m, errp);
    machine_resume(m);
    if (ok)
        machine_tell(m, MACHINE_RESET);
    return ok;
}

bool machine_boot(Machine *m, Error **errp)
{
    bool ok;

    if (!machine_pause(m, errp))
        return false;
    ok = machine_reset_paused(m, errp);
    machine_resume(m);
    return ok;
}

static bool wants_reset(Machine *m)
{
    bool wanted;

    task_lock(&m->lock);
    wanted = m->state.request == GUEST_REQUEST_RESET && !m->guest.on_request;
    task_unlock(&m->lock);
    return wanted;
}

/* Somebody else may have been quicker: a user's reset, an engine that took charge. */
static void carry_out_reset(Machine *m)
{
    Error *err = NULL;
    bool wanted, ok = true;

    if (!machine_pause(m, NULL)) /* an engine left it paused, and it ends like that */
        return;
    wanted = wants_reset(m);
    if (wanted)
        ok = machine_reset_paused(m, &err);
    machine_resume(m);
    if (wanted && ok)
        machine_tell(m, MACHINE_RESET);
    if (ok)
        return;
    log_warn("reset: %s", error_get_pretty(err));
    error_free(err);
    machine_tell(m, MACHINE_ERROR);
}

/* A guest that resets itself does so on a processor's thread, which cannot wait for itself to stand still. */
static void worker(void *arg)
{
    Machine *m = arg;

    task_lock(&m->lock);
    while (!m->quit) {
        if (!m->reset_wanted) {
            task_wait(&m->work, &m->lock);
            continue;
        }
        m->reset_wanted = false;
        task_unlock(&m->lock);
        carry_out_reset(m);
        task_lock(&m->lock);
    }
    task_unlock(&m->lock);
}

bool machine_run_init(Machine *m, Error **errp)
{
    m->worker = task_start("machine", worker, m, errp);
    return m->worker;
}

void machine_run_destroy(Machine *m)
{
    task_lock(&m->lock);
    m->quit = true;
    task_broadcast(&m->work);
    task_broadcast(&m->unpaused);
    task_unlock(&m->lock);
    task_join(m->worker);
    m->worker = NULL;
}
