/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/migrate.h"
#include "base/task.h"
#include "control/peer_check.h"
#include "control/qmp_args.h"
#include "control/vm.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHANNELS_USUAL 4 /* with two processors a third quicker than two */

struct migrate_args {
    struct engine_migrate_params params;
    char psk[1024];
    bool insecure;
};

/* By enum engine_on_slow, and enum engine_packing. */
static const char *const on_slow_words[] = {"throttle", "pause", "cancel", "postcopy", NULL};
static const char *const packing_words[] = {"auto", "on", "off", NULL};

/* *ret: the place of the argument's word among these; as it was if there is none. */
static bool parse_word(json_t *args, const char *name, const char *const *words, int *ret, Error **errp)
{
    char word[16] = "", all[64] = "";
    size_t used = 0; /* the words are ours, and few */

    if (!qmp_arg_string(args, name, word, sizeof(word), errp))
        return false;
    for (int i = 0; word[0] && words[i]; i++) {
        if (!strcmp(word, words[i])) {
            *ret = i;
            return true;
        }
        used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "", words[i]);
    }
    if (word[0])
        error_setg(errp, "argument '%s' is one of %s, not '%s'", name, all, word);
    return !word[0];
}

/* QMP's own name for it, in ms. */
static bool parse_downtime_limit(json_t *args, int64_t *downtime_us, Error **errp)
{
    int64_t ms = -1;

    if (!qmp_arg_int(args, "downtime-limit", 1, 600000, &ms, errp))
        return false;
    if (ms >= 0 && *downtime_us >= 0) {
        error_setg(errp, "arguments 'downtime-limit' and 'downtime-us' say the same: give one of them");
        return false;
    }
    *downtime_us = ms >= 0 ? ms * 1000 : *downtime_us;
    return true;
}

/* What may be said before a migration, with it, and on the way. */
static bool parse_change(json_t *args, struct engine_migrate_change *c, Error **errp)
{
    int64_t downtime = -1, deadline = -1;

    if (!qmp_arg_int(args, "downtime-us", 1000, 600 * INT64_C(1000000), &downtime, errp) ||
        !parse_downtime_limit(args, &downtime, errp) ||
        !qmp_arg_int(args, "deadline-us", 0, 7 * 86400 * INT64_C(1000000), &deadline, errp) ||
        !qmp_arg_int(args, "max-bandwidth", 0, INT64_MAX, &c->max_bandwidth, errp) ||
        !parse_word(args, "on-slow", on_slow_words, &c->on_slow, errp))
        return false;
    c->downtime_ns = downtime < 0 ? -1 : downtime * NS_PER_US;
    c->deadline_ns = deadline < 0 ? -1 : deadline * NS_PER_US;
    return true;
}

/* One processor has nothing to share. */
static int64_t default_channels(void)
{
    return sysconf(_SC_NPROCESSORS_ONLN) > 1 ? CHANNELS_USUAL : 1;
}

static bool parse_channels(json_t *args, unsigned *ret, Error **errp)
{
    int64_t channels = default_channels();
    bool ok = qmp_arg_int(args, "channels", 1, ENGINE_CHANNELS_MAX, &channels, errp);

    *ret = (unsigned)channels;
    return ok;
}

static bool parse_timeout(json_t *args, int64_t *ret_ns, Error **errp)
{
    int64_t timeout = *ret_ns / NS_PER_US;
    bool ok = qmp_arg_int(args, "timeout-us", 10000, 3600 * INT64_C(1000000), &timeout, errp);

    *ret_ns = timeout * NS_PER_US;
    return ok;
}

static bool parse(Vm *vm, json_t *args, struct migrate_args *a, Error **errp)
{
    static const char *const names[] = {
        "uri",     "downtime-us", "downtime-limit", "deadline-us", "on-slow",  "timeout-us", "max-bandwidth",
        "arbiter", "psk",         "insecure",       "postcopy",    "compress", "channels",   NULL};
    struct engine_migrate_change change = ENGINE_MIGRATE_NO_CHANGE;
    struct engine_migrate_params *p = &a->params;
    int packing;

    engine_migrate_get(vm_engine(vm), p);
    packing = (int)p->packing;
    p->to[0] = 0; /* one that is under way has its own */
    if (!qmp_args_only(args, names, errp) || !parse_change(args, &change, errp) ||
        !parse_timeout(args, &p->timeout_ns, errp) ||
        !qmp_arg_string(args, "uri", p->to, sizeof(p->to), errp) ||
        !qmp_arg_string(args, "arbiter", p->arbiter, sizeof(p->arbiter), errp) ||
        !qmp_arg_string(args, "psk", a->psk, sizeof(a->psk), errp) ||
        !qmp_arg_bool(args, "insecure", &a->insecure, errp) ||
        !qmp_arg_bool(args, "postcopy", &p->postcopy, errp) || !parse_channels(args, &p->channels, errp) ||
        !parse_word(args, "compress", packing_words, &packing, errp))
        return false;
    p->packing = (enum engine_packing)packing;
    engine_migrate_params_change(p, &change);
    if (!p->to[0])
        error_setg(errp,
                   "argument 'uri' is missing: tcp:HOST:PORT or unix:PATH where `perdure standby` listens");
    return p->to[0];
}

bool migrate_command(void *opaque, json_t *args, json_t **ret_result, Error **errp)
{
    struct migrate_args a = {0};
    Vm *vm = opaque;

    (void)ret_result;
    return parse(vm, args, &a, errp) && peer_check(vm, a.params.to, a.psk, a.insecure, errp) &&
           transport_socket_set_security(vm_transport(vm), a.psk, a.insecure, errp) &&
           engine_migrate(vm_engine(vm), &a.params, errp);
}

bool migrate_set_parameters(void *opaque, json_t *args, json_t **ret_result, Error **errp)
{
    static const char *const names[] = {"downtime-us", "downtime-limit", "deadline-us",
                                        "on-slow",     "max-bandwidth",  NULL};
    struct engine_migrate_change change = ENGINE_MIGRATE_NO_CHANGE;

    (void)ret_result;
    return qmp_args_only(args, names, errp) && parse_change(args, &change, errp) &&
           engine_migrate_set(vm_engine(opaque), &change, errp);
}

bool migrate_query_parameters(void *opaque, json_t *args, json_t **ret_result, Error **errp)
{
    static const char *const names[] = {NULL};
    struct engine_migrate_params p;

    if (!qmp_args_only(args, names, errp))
        return false;
    engine_migrate_get(vm_engine(opaque), &p);
    *ret_result = json_pack(
        "{s:I, s:I, s:I, s:I, s:s}", "downtime-limit", (json_int_t)(p.downtime_ns / NS_PER_MS), "downtime-us",
        (json_int_t)(p.downtime_ns / NS_PER_US), "deadline-us", (json_int_t)(p.deadline_ns / NS_PER_US),
        "max-bandwidth", (json_int_t)p.max_bandwidth, "on-slow", on_slow_words[p.on_slow]);
    return true;
}

const char *migrate_status_name(const struct engine_status *s)
{
    static const char *const names[] = {
        [ENGINE_MIGRATION_NONE] = "none",     [ENGINE_MIGRATION_SETUP] = "setup",
        [ENGINE_MIGRATION_ACTIVE] = "active", [ENGINE_MIGRATION_COMPLETED] = "completed",
        [ENGINE_MIGRATION_FAILED] = "failed", [ENGINE_MIGRATION_CANCELLED] = "cancelled",
    };

    if (s->state == ENGINE_POSTCOPY)
        return "postcopy-active";
    if (s->state == ENGINE_POSTCOPY_PAUSED)
        return "postcopy-paused";
    if (s->state == ENGINE_MIGRATING && s->migration.outcome != ENGINE_MIGRATION_SETUP)
        return "active"; /* to the very end: the guest does not go on here before */
    if (s->state == ENGINE_ASKING && s->migration.outcome == ENGINE_MIGRATION_FAILED)
        return "device";
    return names[s->migration.outcome];
}

static const char *error_of(const struct engine_status *s)
{
    if (s->state == ENGINE_POSTCOPY_PAUSED)
        return s->last_error;
    if (s->migration.outcome != ENGINE_MIGRATION_FAILED)
        return "";
    if (s->state == ENGINE_FENCED)
        return "the link broke at the switch, and the arbiter let the destination run the guest: quit this "
               "process";
    if (s->role == ENGINE_BACKUP && !s->last_error[0])
        return "the source ended it";
    return s->last_error;
}

static json_t *in_us(int64_t ns)
{
    return json_integer(ns / NS_PER_US);
}

bool migrate_query(void *opaque, json_t *args, json_t **ret_result, Error **errp)
{
    static const char *const names[] = {NULL};
    const struct engine_migration *m;
    struct engine_status s;
    int64_t until;

    if (!qmp_args_only(args, names, errp))
        return false;
    engine_status(vm_engine(opaque), &s);
    m = &s.migration;
    until = m->ended                                                            ? m->ended
            : m->outcome == ENGINE_MIGRATION_ACTIVE && s.state != ENGINE_ASKING ? clock_now()
                                                                                : m->looked;
    *ret_result = json_pack(
        "{s:s, s:I, s:I, s:o, s:I, s:i, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:b}, s:{s:o, s:o, s:o, s:o}, s:I, "
        "s:I, "
        "s:s}",
        "status", migrate_status_name(&s), "total-time",
        (json_int_t)(m->began && until > m->began ? (until - m->began) / NS_PER_MS : 0), "downtime",
        (json_int_t)(m->downtime_ns / NS_PER_MS), "downtime-us", in_us(m->downtime_ns), "expected-downtime",
        (json_int_t)(m->expected_ns / NS_PER_MS), "cpu-throttle-percentage", (int)m->throttle, "ram",
        "transferred", (json_int_t)m->bytes_sent, "remaining", (json_int_t)m->bytes_left, "passes",
        (json_int_t)m->passes, "bandwidth", (json_int_t)m->bandwidth, "dirty-rate", (json_int_t)m->dirty_rate,
        "postcopy-requests", (json_int_t)m->asked, "compressing", (int)m->packs, "downtime-parts-us", "pause",
        in_us(m->pause_ns), "send", in_us(m->send_ns), "load", in_us(m->load_ns), "start", in_us(m->start_ns),
        "disk-remaining", (json_int_t)s.sync_bytes_left, "recoveries", (json_int_t)m->resumed, "error-desc",
        error_of(&s));
    return true;
}

bool migrate_cancel_command(void *opaque, json_t *args, json_t **ret_result, Error **errp)
{
    static const char *const names[] = {"force", NULL};
    bool force = false;

    (void)ret_result;
    return qmp_args_only(args, names, errp) && qmp_arg_bool(args, "force", &force, errp) &&
           engine_migrate_cancel(vm_engine(opaque), force, errp);
}

bool migrate_pause_command(void *opaque, json_t *args, json_t **ret_result, Error **errp)
{
    static const char *const names[] = {NULL};

    (void)ret_result;
    return qmp_args_only(args, names, errp) && engine_migrate_pause(vm_engine(opaque), errp);
}

bool migrate_recover_command(void *opaque, json_t *args, json_t **ret_result, Error **errp)
{
    static const char *const names[] = {"uri", NULL};
    char to[256] = "";

    (void)ret_result;
    return qmp_args_only(args, names, errp) && qmp_arg_string(args, "uri", to, sizeof(to), errp) &&
           engine_migrate_recover(vm_engine(opaque), to, errp);
}

/* What the primary would use for it was said with `protect`, and what the backup would when it began to listen. */
static bool set_security(Vm *vm, const char *psk, bool insecure, Error **errp)
{
    struct engine_status s;

    if (!psk[0] && !insecure)
        return true;
    engine_status(vm_engine(vm), &s);
    if (s.role == ENGINE_BACKUP)
        return transport_socket_set_security(vm_transport(vm), psk, insecure, errp);
    error_setg(errp, "arguments 'psk' and 'insecure' are for the backup, which connects: say them there");
    return false;
}

bool migrate_backup_command(void *opaque, json_t *args, json_t **ret_result, Error **errp)
{
    static const char *const names[] = {"uri", "psk", "insecure", NULL};
    char to[256] = "", psk[1024] = "";
    bool insecure = false;

    (void)ret_result;
    if (!qmp_args_only(args, names, errp) || !qmp_arg_string(args, "uri", to, sizeof(to), errp) ||
        !qmp_arg_string(args, "psk", psk, sizeof(psk), errp) ||
        !qmp_arg_bool(args, "insecure", &insecure, errp))
        return false;
    if (!to[0])
        error_setg(
            errp,
            "argument 'uri' is missing: tcp:HOST:PORT or unix:PATH where another `perdure standby` listens");
    return to[0] && set_security(opaque, psk, insecure, errp) &&
           engine_move_backup(vm_engine(opaque), to, errp);
}
