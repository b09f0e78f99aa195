/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/status_json.h"

static json_t *summary(const struct engine_summary *s)
{
    return json_pack("{s:I, s:I, s:I}", "p50", (json_int_t)s->p50, "p99", (json_int_t)s->p99, "max",
                     (json_int_t)s->max);
}

static json_t *checkpoint(const struct engine_status *s)
{
    return json_pack("{s:I, s:I, s:I, s:o, s:o, s:I, s:o, s:o, s:I, s:I, s:{s:I, s:I, s:I}}", "interval_us",
                     (json_int_t)(s->interval_ns / 1000), "rate_hz", (json_int_t)s->rate_hz, "count",
                     (json_int_t)s->epochs, "pause_us", summary(&s->pause_us), "dirty_pages",
                     summary(&s->dirty_pages), "bytes_per_epoch", (json_int_t)s->bytes_per_epoch, "ack_us",
                     summary(&s->ack_us), "output_held_us", summary(&s->output_held_us), "staging_full",
                     (json_int_t)s->staging_full, "verified", (json_int_t)s->verified, "pages", "zero",
                     (json_int_t)s->pages[0], "delta", (json_int_t)s->pages[1], "full",
                     (json_int_t)s->pages[2]);
}

/* Of the first sync. */
static json_t *disks(const struct engine_status *s)
{
    uint64_t rate = s->sync_bytes_per_s;

    return json_pack("{s:I, s:I, s:I, s:I}", "sync_left", (json_int_t)s->sync_bytes_left, "sync_total",
                     (json_int_t)s->sync_bytes_total, "rate", (json_int_t)rate, "eta_s",
                     (json_int_t)(rate ? s->sync_bytes_left / rate : 0));
}

json_t *status_json(Vm *vm)
{
    const struct machine_config *config = &vm_get_options(vm)->machine;
    int cpus = config->cpus;
    uint64_t memory = config->memory;
    struct engine_status s;
    Machine *m;

    engine_status(vm_engine(vm), &s);
    vm_lock(vm);
    m = vm_machine(vm, NULL);
    if (m) {
        cpus = machine_get_config(m)->cpus;
        memory = machine_get_config(m)->memory;
    }
    vm_unlock(vm);
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:I, s:s, s:s, s:s, s:I, s:o, s:o, s:I, s:s, s:s}", "name",
        config->name, "run_state", vm_run_state(vm), "role", engine_role_name(s.role), "state",
        engine_state_name(s.state), "pair", s.pair, "generation", (json_int_t)s.generation, "epoch",
        (json_int_t)s.epoch, "vcpus", cpus, "memory", (json_int_t)memory, "peer", s.peer, "arbiter",
        s.arbiter, "listen", vm_listens_at(vm), "sync_pages_left", (json_int_t)s.sync_pages_left, "disks",
        disks(&s), "checkpoint", checkpoint(&s), "took_over_ns", (json_int_t)s.took_over_ns, "last_error",
        s.last_error, "report", s.report);
}
