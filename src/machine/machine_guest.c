/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the engines see of the machine: guest_ops. */
#include "base/log.h"
#include "machine/machine_disks.h"
#include "machine/machine_internal.h"
#include "machine/state_match.h"

static const int64_t announce_at_ms[MACHINE_ANNOUNCEMENTS] = {0, 50, 150, 300, 550, 1000};

Machine *machine_of(Guest *g)
{
    return (Machine *)g;
}

static bool guest_pause(Guest *g, Error **errp)
{
    return machine_pause(machine_of(g), errp);
}

static void guest_resume(Guest *g)
{
    machine_resume(machine_of(g));
}

static bool guest_tracking_start(Guest *g, bool equal, Error **errp)
{
    return dirty_log_start(&machine_of(g)->dirty, equal, errp);
}

static void guest_tracking_stop(Guest *g)
{
    dirty_log_stop(&machine_of(g)->dirty);
}

/* The loop runs meanwhile, for it is there that writes end; processors that stand still ask for no more of them. */
static bool guest_finish_writes(Guest *g, int64_t until)
{
    Machine *m = machine_of(g);

    while (!replication_group_settle(m->disks, clock_now())) {
        loop_unpark(m->loop);
        replication_group_settle(m->disks, until);
        loop_park(m->loop);
        if (clock_now() >= until)
            return replication_group_settle(m->disks, until);
    }
    return true;
}

static bool guest_begin_save(Guest *g, Error **errp)
{
    return machine_begin_save(machine_of(g), errp);
}

/* Paused, each call looks again: what a live pass left over may be older than
 * what the log says now. */
static bool guest_collect(Guest *g, Staging *s, bool live, bool *ret_more, Error **errp)
{
    struct dirty_log *d = &machine_of(g)->dirty;

    if ((!live || !dirty_log_pending(d)) && !dirty_log_harvest(d, errp))
        return false;
    dirty_log_copy(d, s, ret_more);
    return true;
}

static bool guest_take_changed(Guest *g, uint64_t *map, Error **errp)
{
    return dirty_log_take(&machine_of(g)->dirty, map, errp);
}

static MissingPages *guest_missing_new(Guest *g, Error **errp)
{
    return missing_uffd_new(g->memory, errp);
}

static void guest_throttle(Guest *g, unsigned percent)
{
    throttle_set(&machine_of(g)->throttle, percent);
}

static uint64_t guest_changed_pages(Guest *g)
{
    return dirty_log_estimate(&machine_of(g)->dirty);
}

static enum guest_request guest_pending_request(Guest *g)
{
    return (enum guest_request)machine_of(g)->state.request;
}

static bool guest_reset(Guest *g, Error **errp)
{
    if (!machine_reset_paused(machine_of(g), errp))
        return false;
    machine_tell(machine_of(g), MACHINE_RESET);
    return true;
}

static bool guest_mark_disks(Guest *g, const struct guest_disk_mark *mark, Error **errp)
{
    Machine *m = machine_of(g);

    Error *err = NULL;

    replication_group_set_pair(m->disks, mark->pair, mark->generation);
    if (!machine_mark_disks(&m->setup.config, mark, errp))
        return false;
    /* No record names the journal any more: one that cannot be removed is in nobody's way, least of all a
     * takeover's. */
    if (machine_mark_is_final(mark) && !replication_group_remove_journal(m->disks, &err))
        log_warn("%s", error_get_pretty(err));
    error_free(err);
    return true;
}

static bool guest_hold_disks(Guest *g, enum guest_disk_hold how, Error **errp)
{
    return machine_hold_disks(&machine_of(g)->devices, how, errp);
}

static bool guest_settle_disks(Guest *g, Error **errp)
{
    return machine_settle_disks(&machine_of(g)->devices, errp);
}

static bool guest_save_config(Guest *g, VMStream *f, Error **errp)
{
    machine_setup_save(&machine_of(g)->setup, f);
    return !perdure_stream_error(f, errp);
}

/* The guest may have slept for long: its watchdogs are told. Not every guest
 * listens. */
static void tell_clocks(Machine *m)
{
    for (int i = 0; i < m->vcpus.count; i++)
        kvm_ioctl(m->vcpus.cpu[i].fd, KVM_KVMCLOCK_CTRL, NULL);
}

static bool guest_take_over(Guest *g, Error **errp)
{
    Machine *m = machine_of(g);

    if (!irqchip_set_clock(&m->irqchip, errp))
        return false;
    tell_clocks(m);
    loop_lock(m->loop);
    for (Device *d = m->devices.first; d; d = d->next)
        if (d->class->take_over)
            d->class->take_over(d);
    loop_unlock(m->loop);
    return true;
}

/* Switches may miss one announcement, and learn late which port they forward
 * to: several, within a second. */
static void on_announce(void *opaque)
{
    Machine *m = opaque;

    for (Device *d = m->devices.first; d; d = d->next)
        if (d->class->announce)
            d->class->announce(d);
    if (++m->announce_next < MACHINE_ANNOUNCEMENTS)
        loop_timer_set(m->announce_timer, m->announce_begin + announce_at_ms[m->announce_next] * NS_PER_MS);
}

static void guest_announce(Guest *g)
{
    Machine *m = machine_of(g);

    loop_lock(m->loop);
    m->announce_next = 0;
    m->announce_begin = clock_now();
    loop_timer_set(m->announce_timer, m->announce_begin);
    loop_unlock(m->loop);
}

bool machine_announce_init(Machine *m, Error **errp)
{
    m->announce_timer = loop_timer_new(m->loop, on_announce, m);
    if (!m->announce_timer)
        error_setg(errp, "out of memory for the announcement timer");
    return m->announce_timer;
}

static bool guest_clear(Guest *g, bool keep_ram, Error **errp)
{
    Machine *m = machine_of(g);

    vcpus_hold(&m->vcpus, VCPU_HOLD_USER);
    m->state.running = false;
    return machine_power_on_state(m, errp) && (keep_ram || guest_memory_clear(m->guest.memory, errp));
}

static bool guest_section_matches(Guest *g, const char *section, const void *sent, const void *loaded,
                                  size_t size)
{
    (void)g;
    return state_match(section, sent, loaded, size);
}

const struct guest_ops machine_guest_ops = {
    .pause = guest_pause,
    .resume = guest_resume,
    .tracking_start = guest_tracking_start,
    .tracking_stop = guest_tracking_stop,
    .finish_writes = guest_finish_writes,
    .begin_save = guest_begin_save,
    .collect = guest_collect,
    .take_changed = guest_take_changed,
    .missing_new = guest_missing_new,
    .changed_pages = guest_changed_pages,
    .throttle = guest_throttle,
    .request = guest_pending_request,
    .reset = guest_reset,
    .mark_disks = guest_mark_disks,
    .hold_disks = guest_hold_disks,
    .settle_disks = guest_settle_disks,
    .save_config = guest_save_config,
    .take_over = guest_take_over,
    .announce = guest_announce,
    .clear = guest_clear,
    .section_matches = guest_section_matches,
};
