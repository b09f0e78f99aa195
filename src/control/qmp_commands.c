/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/qmp_commands.h"
#include "control/listen.h"
#include "control/migrate.h"
#include "control/protect.h"
#include "control/qmp_args.h"
#include "control/status_json.h"
#include "control/vm.h"

#include <stdio.h>
#include <string.h>

static const char *const no_args[] = {NULL};

/* Runs fn on the machine that runs here, under the lock. A FENCED one stands still for good: a reset would
 * wait for ever for its turn, and the end of the process for the reset. */
static bool with_machine(Vm *vm, bool (*fn)(Machine *m, Error **errp), Error **errp)
{
    struct engine_status s;
    Machine *m;
    bool ok;

    engine_status(vm_engine(vm), &s);
    if (s.elsewhere) {
        error_setg(errp, "this side is %s: the guest runs on the other side; quit this process",
                   engine_state_name(s.state));
        return false;
    }
    /* It may wait for a page, and whoever wants it to do something would wait for it. */
    if (s.state == ENGINE_POSTCOPY_PAUSED) {
        error_setg(
            errp,
            "the guest lacks memory that is at %s, and the link is broken: wait for the source, or quit",
            s.peer);
        return false;
    }
    vm_lock(vm);
    m = vm_machine(vm, errp);
    ok = m && fn(m, errp);
    vm_unlock(vm);
    return ok;
}

static bool query_status(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    const char *state = vm_run_state(opaque);

    if (!qmp_args_only(args, no_args, errp))
        return false;
    *ret = json_pack("{s:s, s:b}", "status", state, "running", !strcmp(state, "running"));
    return true;
}

static bool query_name(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    if (!qmp_args_only(args, no_args, errp))
        return false;
    *ret = json_pack("{s:s}", "name", vm_get_options(opaque)->machine.name);
    return true;
}

static bool query_block(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    json_t *list = json_array();
    Machine *m;

    if (!qmp_args_only(args, no_args, errp)) {
        json_decref(list);
        return false;
    }
    vm_lock(opaque);
    m = vm_machine(opaque, NULL);
    for (int i = 0; m && i < machine_get_config(m)->disk_count; i++) {
        const struct machine_disk *d = &machine_get_config(m)->disks[i];
        json_array_append_new(list, json_pack("{s:s, s:{s:s, s:b, s:s}}", "device", d->id, "inserted", "file",
                                              d->path, "ro", d->readonly, "drv", "raw"));
    }
    vm_unlock(opaque);
    *ret = list;
    return true;
}

static bool do_stop(Machine *m, Error **errp)
{
    (void)errp;
    machine_stop(m);
    return true;
}

static bool stop(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    (void)ret;
    return qmp_args_only(args, no_args, errp) && with_machine(opaque, do_stop, errp);
}

static bool cont(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    (void)ret;
    return qmp_args_only(args, no_args, errp) && with_machine(opaque, machine_start, errp);
}

static bool do_reset(Machine *m, Error **errp)
{
    (void)errp;
    machine_request(m, GUEST_REQUEST_RESET);
    return true;
}

static bool system_reset(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    (void)ret;
    return qmp_args_only(args, no_args, errp) && with_machine(opaque, do_reset, errp);
}

static bool do_powerdown(Machine *m, Error **errp)
{
    (void)errp;
    machine_power_button(m);
    return true;
}

static bool system_powerdown(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    (void)ret;
    return qmp_args_only(args, no_args, errp) && with_machine(opaque, do_powerdown, errp);
}

/* What would be lost by it, or go on elsewhere, against the user's expectation. */
static bool may_quit(const struct engine_status *s, Error **errp)
{
    if (s->role == ENGINE_PRIMARY && s->state == ENGINE_PROTECTED)
        error_setg(errp,
                   "the guest is protected and would go on at %s: `unprotect` first to end it, `swap` to "
                   "hand it over, or quit with force",
                   s->peer);
    else if (s->elsewhere && (s->state == ENGINE_POSTCOPY || s->state == ENGINE_POSTCOPY_PAUSED))
        error_setg(errp,
                   "the guest runs at %s, and part of its memory is here only: it would be lost (quit with "
                   "force)",
                   s->peer);
    else
        return true;
    return false;
}

static bool quit(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    static const char *const names[] = {"force", NULL};
    struct engine_status s;
    bool force = false;

    (void)ret;
    if (!qmp_args_only(args, names, errp) || !qmp_arg_bool(args, "force", &force, errp))
        return false;
    engine_status(vm_engine(opaque), &s);
    if (!force && !may_quit(&s, errp))
        return false;
    vm_quit(opaque);
    return true;
}

static bool perdure_status(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    if (!qmp_args_only(args, no_args, errp))
        return false;
    *ret = status_json(opaque);
    return true;
}

static bool perdure_unprotect(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    static const char *const names[] = {"force", NULL};
    bool force = false;

    (void)ret;
    return qmp_args_only(args, names, errp) && qmp_arg_bool(args, "force", &force, errp) &&
           engine_unprotect(vm_engine(opaque), force, errp);
}

static bool perdure_failover(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    static const char *const names[] = {"peer-is-dead", NULL};
    bool dead = false;

    (void)ret;
    return qmp_args_only(args, names, errp) && qmp_arg_bool(args, "peer-is-dead", &dead, errp) &&
           engine_failover(vm_engine(opaque), dead, errp);
}

static bool perdure_swap(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    static const char *const names[] = {"leave", NULL};
    bool leave = false;

    (void)ret;
    return qmp_args_only(args, names, errp) && qmp_arg_bool(args, "leave", &leave, errp) &&
           engine_swap(vm_engine(opaque), leave, errp);
}

const struct qmp_command qmp_commands[] = {
    {"query-status", query_status},
    {"query-name", query_name},
    {"query-block", query_block},
    {"stop", stop},
    {"cont", cont},
    {"system_reset", system_reset},
    {"system_powerdown", system_powerdown},
    {"quit", quit},
    {"perdure-status", perdure_status},
    {"perdure-protect", protect_command},
    {"perdure-unprotect", perdure_unprotect},
    {"perdure-failover", perdure_failover},
    {"perdure-swap", perdure_swap},
    {"migrate", migrate_command},
    {"query-migrate", migrate_query},
    {"migrate_cancel", migrate_cancel_command},
    {"migrate-set-parameters", migrate_set_parameters},
    {"query-migrate-parameters", migrate_query_parameters},
    {"migrate-pause", migrate_pause_command},
    {"migrate-recover", migrate_recover_command},
    {"migrate-backup", migrate_backup_command},
    {"perdure-listen", listen_command},
    {NULL, NULL},
};
