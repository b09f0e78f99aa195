/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making and ending a machine, and its whole state to and from a stream. */
#include "base/log.h"
#include "guest/ram_state.h"
#include "machine/machine_disks.h"
#include "machine/machine_internal.h"
#include "net/output_buffer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define TSC_TOLERANCE_PPM 250
#define CONSOLE_LIMIT     (1u << 20)

_Static_assert(MACHINE_CPUS_MAX <= 64, "vcpus_throttle() has a bit for each");

void machine_tell(Machine *m, enum machine_event ev)
{
    if (m->listener)
        m->listener(m->listener_opaque, ev);
}

void machine_set_listener(Machine *m, void (*fn)(void *opaque, enum machine_event ev), void *opaque)
{
    m->listener_opaque = opaque;
    m->listener = fn;
}

Guest *machine_guest(Machine *m)
{
    return &m->guest;
}

const struct machine_config *machine_get_config(const Machine *m)
{
    return &m->setup.config;
}

/* --- processors --- */

static void on_triple_fault(void *opaque)
{
    machine_request(opaque, GUEST_REQUEST_RESET);
}

static void on_vcpu_failed(void *opaque, const char *text)
{
    log_warn("%s", text);
    machine_tell(opaque, MACHINE_ERROR);
}

static bool on_ring_full(void *opaque, Error **errp)
{
    return dirty_log_relieve(&((Machine *)opaque)->dirty, errp);
}

/* Without the hardware for it KVM accepts a frequency above its own too, and then moves each processor's TSC
 * forward now and then: they disagree, which no guest with two processors survives for long. */
static bool scale_tsc(const struct kvm *k, int fd, uint64_t khz)
{
    return kvm_has(k, KVM_CAP_TSC_CONTROL) && kvm_ioctl(fd, KVM_SET_TSC_KHZ, (void *)(uintptr_t)khz) == 0;
}

/* From the configuration: the same frequency as where the guest was started, or
 * one that KVM scales to it. */
static bool check_tsc(Machine *m, int fd, Error **errp)
{
    int here = kvm_ioctl(fd, KVM_GET_TSC_KHZ, NULL);
    uint64_t there = m->setup.tsc_khz, off;

    if (here <= 0) {
        error_setg(errp, "KVM does not know the frequency of this host's TSC");
        return false;
    }
    if (!there) {
        m->setup.tsc_khz = (uint32_t)here;
        return true;
    }
    off = there > (uint64_t)here ? there - (uint64_t)here : (uint64_t)here - there;
    if (off * 1000000 <= there * TSC_TOLERANCE_PPM || scale_tsc(&m->kvm, fd, there))
        return true;
    error_setg(errp,
               "the guest's TSC runs at %llu kHz, this host's at %d kHz and "
               "cannot be scaled",
               (unsigned long long)there, here);
    return false;
}

static bool set_cpuid(Machine *m, struct vcpu *v, Error **errp)
{
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
    } all = {.head.nent = 0};
    struct cpuid mine;

    cpuid_for_cpu(&m->setup.cpuid, (unsigned)v->index, (unsigned)m->vcpus.count, &mine);
    all.head.nent = mine.count;
    for (uint32_t i = 0; i < mine.count; i++)
        all.entries[i] = mine.entries[i];
    return kvm_call(v->fd, KVM_SET_CPUID2, &all, "KVM_SET_CPUID2", errp);
}

/* One bank of machine check registers, which are part of the state, instead of
 * KVM's 32. Without: the default stays. */
static void limit_machine_check(struct vcpu *v)
{
    uint64_t one_bank = 1;

    kvm_ioctl(v->fd, KVM_X86_SETUP_MCE, &one_bank);
}

static bool choose_cpuid(Machine *m, bool from_stream, Error **errp)
{
    struct cpuid supported;

    if (!cpuid_supported(&m->kvm, &supported, errp))
        return false;
    if (from_stream)
        return cpuid_check(&m->setup.cpuid, &supported, errp);
    return cpuid_make(&supported, m->setup.config.cpu_model, &m->setup.cpuid, errp);
}

static bool make_vcpus(Machine *m, bool from_stream, Error **errp)
{
    struct vcpu_owner owner = {.bus = &m->bus,
                               .loop = m->loop,
                               .triple_fault = on_triple_fault,
                               .failed = on_vcpu_failed,
                               .ring_full = on_ring_full,
                               .opaque = m};

    if (!choose_cpuid(m, from_stream, errp) ||
        !vcpus_new(&m->vcpus, &m->kvm, m->setup.config.cpus, &owner, errp))
        return false;
    for (int i = 0; i < m->vcpus.count; i++) {
        struct vcpu *v = &m->vcpus.cpu[i];

        limit_machine_check(v);
        if (!check_tsc(m, v->fd, errp))
            return false;
        if (!from_stream)
            cpuid_add_timing(&m->setup.cpuid, m->setup.tsc_khz);
        if (!set_cpuid(m, v, errp) || !(m->states[i] = vcpu_state_new(&m->kvm, v, errp)))
            return false;
    }
    return dirty_log_add_rings(&m->dirty, &m->vcpus, errp);
}

/* --- memory, devices --- */

static bool make_memory(Machine *m, Error **errp)
{
    m->guest.memory = guest_memory_new(m->setup.config.memory, errp);
    if (!m->guest.memory)
        return false;
    for (int i = 0; i < m->guest.memory->block_count; i++) {
        const struct ram_block *b = &m->guest.memory->blocks[i];

        if (!kvm_set_slot(&m->kvm, (unsigned)i, b->gpa, b->size, b->host, false, errp))
            return false;
    }
    return dirty_log_init(&m->dirty, &m->kvm, m->guest.memory, errp);
}

static size_t type_on_serial(void *opaque, const void *buf, size_t n)
{
    return serial_input(opaque, buf, n);
}

static bool attach_console(Machine *m, Error **errp)
{
    const struct console_device line = {.input = type_on_serial, .opaque = m->devices.serial};

    if (!console_attach(m->console, &line, errp))
        return false;
    serial_on_room(m->devices.serial, console_feed, m->console);
    return true;
}

static ReplicationGroup *make_disk_group(const struct machine_config *c, Error **errp)
{
    struct replication_group_options o = {.journal_size = 0};

    replication_group_register();
    return machine_journal_path(c, o.journal, sizeof(o.journal), errp) ? replication_group_new(&o, errp)
                                                                       : NULL;
}

/* What a failover goes on from is an epoch's state; a disk that both sides see would be further. */
static void say_unprotectable(Machine *m)
{
    const struct machine_config *c = &m->setup.config;

    for (int i = 0; i < c->disk_count && !m->guest.unprotectable; i++) {
        if (!c->disks[i].shared)
            continue;
        snprintf(m->unprotectable, sizeof(m->unprotectable),
                 "disk %s is shared (shared=on): a backup needs a copy of its own, as of the last "
                 "acknowledged epoch",
                 c->disks[i].id);
        m->guest.unprotectable = m->unprotectable;
    }
}

static bool make_devices(Machine *m, bool elsewhere, Error **errp)
{
    machine_host_init(m);
    net_output_buffer_register();
    console_gate_register();
    if (!machine_host_map_fixed(m, errp))
        return false;
    m->console = console_new("--console", m->setup.config.console, m->loop, errp);
    if (!m->console)
        return false;
    m->gate = console_gate_new("console", console_write, m->console, CONSOLE_LIMIT, errp);
    if (!m->gate || !channels_open(&m->channels, &m->setup.config, m->loop, errp))
        return false;
    m->disks = make_disk_group(&m->setup.config, errp);
    if (!m->disks)
        return false;
    m->devices = (struct device_table){.host = &m->host,
                                       .setup = &m->setup,
                                       .gate = m->gate,
                                       .channels = &m->channels,
                                       .disks = m->disks,
                                       .elsewhere = elsewhere};
    return device_table_make(&m->devices, errp) && attach_console(m, errp) &&
           channels_attach(&m->channels, m->devices.console, errp);
}

/* --- sections of the state --- */

static const VMStateField machine_fields[] = {
    VMSTATE_U8(struct Machine, state.request, 1),
    VMSTATE_BOOL(struct Machine, state.running, 1),
    VMSTATE_END,
};

/* Everything at once, in the order in which interrupts travel (vcpu_state.h), which is not that of the
 * sections.
 */
bool machine_begin_save(Machine *m, Error **errp)
{
    if (!irqchip_read(&m->irqchip, errp))
        return false;
    vcpu_states_ask(&m->vcpus, m->states);
    m->reading = true;
    return true;
}

/* The first of the sections for which KVM is asked. An engine has begun before; each save reads anew. */
static bool machine_pre_save(void *opaque, Error **errp)
{
    Machine *m = opaque;

    if (!m->reading && !machine_begin_save(m, errp))
        return false;
    m->reading = false;
    return true;
}

static bool machine_post_load(void *opaque, int version, Error **errp)
{
    struct machine_state *s = &((Machine *)opaque)->state;

    (void)version;
    if (s->request <= GUEST_REQUEST_PANIC)
        return true;
    error_setg(errp, "machine: unknown request %u", s->request);
    s->request = GUEST_REQUEST_NONE;
    return false;
}

static const VMStateDescription machine_vmstate = {
    .name = "machine",
    .version = 1,
    .minimum_version = 1,
    .fields = machine_fields,
    .pre_save = machine_pre_save,
    .post_load = machine_post_load,
};

/* The order of loading: RAM first; LAPICs before the IOAPIC, which may signal them at once; devices after
 * both. The order of saving: "machine" before those, since it reads them. */
static bool register_state(Machine *m, Error **errp)
{
    m->registered = true;
    if (!ram_state_register(&m->guest, errp) || !perdure_vmstate_register(&machine_vmstate, 0, m, errp))
        return false;
    for (int i = 0; i < m->vcpus.count; i++)
        if (!perdure_vmstate_register(&vcpu_vmstate, i, m->states[i], errp))
            return false;
    return perdure_vmstate_register(&irqchip_vmstate, 0, &m->irqchip, errp) &&
           perdure_vmstate_register(&kvmclock_vmstate, 0, &m->irqchip, errp);
}

static void unregister(Machine *m)
{
    if (!m->registered)
        return;
    perdure_vmstate_unregister(&kvmclock_vmstate, &m->irqchip);
    perdure_vmstate_unregister(&irqchip_vmstate, &m->irqchip);
    for (int i = 0; i < m->vcpus.count; i++)
        perdure_vmstate_unregister(&vcpu_vmstate, m->states[i]);
    perdure_vmstate_unregister(&machine_vmstate, m);
    ram_state_unregister(&m->guest);
}

/* --- the whole --- */

/* Where the guest has been: nowhere; in a state file; on another host, where it still runs. */
enum origin { FROM_NOWHERE, FROM_FILE, FROM_HOST };

static bool make_all(Machine *m, enum origin origin, Error **errp)
{
    if (!kvm_open(&m->kvm, m->setup.config.dirty_ring, errp) || !make_memory(m, errp) ||
        !irqchip_create(&m->irqchip, &m->kvm, errp))
        return false;
    m->loop = loop_new(errp);
    return m->loop && make_vcpus(m, origin != FROM_NOWHERE, errp) && register_state(m, errp) &&
           make_devices(m, origin == FROM_HOST, errp) && machine_announce_init(m, errp) &&
           throttle_init(&m->throttle, m->loop, &m->vcpus, &m->dirty, errp) && machine_run_init(m, errp);
}

/* Takes setup's contents. */
static Machine *make(struct machine_setup *setup, enum origin origin, Error **errp)
{
    Machine *m = calloc(1, sizeof(*m));

    if (!m) {
        error_setg_errno(errp, ENOMEM, "machine");
        machine_setup_free(setup);
        return NULL;
    }
    m->setup = *setup;
    m->kvm.fd = m->kvm.vm = -1;
    m->guest.ops = &machine_guest_ops;
    say_unprotectable(m);
    task_mutex_init(&m->lock);
    task_cond_init(&m->unpaused);
    task_cond_init(&m->work);
    if (make_all(m, origin, errp))
        return m;
    machine_free(m);
    return NULL;
}

Machine *machine_new(const struct machine_config *config, Error **errp)
{
    struct machine_setup setup;

    return machine_setup_new(&setup, config, errp) ? make(&setup, FROM_NOWHERE, errp) : NULL;
}

static Machine *make_from_stream(VMStream *f, const struct machine_config *host, enum origin origin,
                                 Error **errp)
{
    struct machine_setup setup;

    if (!machine_setup_load(&setup, f, errp))
        return NULL;
    if (machine_setup_map(&setup, host, errp))
        return make(&setup, origin, errp);
    machine_setup_free(&setup);
    return NULL;
}

Machine *machine_new_from_stream(VMStream *f, const struct machine_config *host, Error **errp)
{
    Machine *m = make_from_stream(f, host, FROM_HOST, errp);

    if (!m || machine_check_shared_disks(&m->devices, errp))
        return m;
    machine_free(m);
    return NULL;
}

/* Devices go with the loop still there but nobody else: no processor, no
 * worker. */
static void destroy_devices(Machine *m)
{
    if (!m->loop)
        return;
    loop_lock(m->loop);
    throttle_destroy(&m->throttle);
    if (m->announce_timer)
        loop_timer_free(m->announce_timer);
    if (m->console)
        console_detach(m->console);
    channels_detach(&m->channels);
    device_table_destroy(&m->devices);
    replication_group_free(m->disks);
    channels_close(&m->channels);
    console_gate_free(m->gate);
    console_free(m->console);
    loop_unlock(m->loop);
    loop_free(m->loop);
}

void machine_free(Machine *m)
{
    if (!m)
        return;
    if (m->worker)
        machine_run_destroy(m);
    vcpus_quit(&m->vcpus);
    unregister(m);
    destroy_devices(m);
    for (int i = 0; i < m->vcpus.count; i++)
        vcpu_state_free(m->states[i]);
    vcpus_free(&m->vcpus);
    dirty_log_destroy(&m->dirty);
    kvm_close(&m->kvm);
    if (m->guest.memory)
        guest_memory_free(m->guest.memory);
    machine_setup_free(&m->setup);
    task_cond_destroy(&m->work);
    task_cond_destroy(&m->unpaused);
    task_mutex_destroy(&m->lock);
    free(m);
}

bool machine_save(Machine *m, VMStream *f, Error **errp)
{
    bool ok;

    if (!machine_pause(m, errp))
        return false;
    machine_setup_save(&m->setup, f);
    ok = perdure_savevm_all(f, errp);
    machine_resume(m);
    return ok;
}

Machine *machine_restore(VMStream *f, const struct machine_config *host, Error **errp)
{
    Machine *m = make_from_stream(f, host, FROM_FILE, errp);

    if (m && perdure_loadvm_all(f, errp) && m->guest.ops->take_over(&m->guest, errp))
        return m;
    machine_free(m);
    return NULL;
}
