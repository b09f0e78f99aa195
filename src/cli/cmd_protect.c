/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/task.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_NS (200 * NS_PER_MS)

struct protect_options {
    char name[64], to[256], arbiter[1100], psk[1024];
    int64_t interval, min_epoch, timeout, verify;
    bool insecure, check, no_delta, no_wait, unsafe;
};

static json_t *arguments(const struct protect_options *o)
{
    json_t *args =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:s, s:b, s:b, s:b, s:b}", "to", o->to, "interval-us",
                  (json_int_t)(o->interval / NS_PER_US), "min-epoch-us",
                  (json_int_t)(o->min_epoch / NS_PER_US), "timeout-us", (json_int_t)(o->timeout / NS_PER_US),
                  "verify", (json_int_t)o->verify, "arbiter", o->arbiter, "insecure", o->insecure, "check",
                  o->check, "delta", !o->no_delta, "unsafe-no-output-hold", o->unsafe);

    if (o->psk[0])
        client_set_path(args, "psk", o->psk);
    return args;
}

static void show_progress(const char *state, json_t *s)
{
    json_t *disks = json_object_get(s, "disks");
    json_int_t left = json_integer_value(json_object_get(disks, "sync_left"));

    if (left)
        fprintf(stderr, "\r%s: %" PRIu64 " MiB of disks left to sync, about %" PRIu64 " s   ", state,
                (uint64_t)left >> 20, (uint64_t)json_integer_value(json_object_get(disks, "eta_s")));
    else
        fprintf(stderr, "\r%s: %" PRIu64 " pages left to sync   ", state,
                (uint64_t)json_integer_value(json_object_get(s, "sync_pages_left")));
}

/* Until PROTECTED, or back to UNPROTECTED: with a progress line on a terminal. */
static bool wait_protected(Client *c, Error **errp)
{
    bool tty = isatty(STDERR_FILENO);

    for (;;) {
        json_t *s = client_execute(c, "perdure-status", NULL, errp);
        char state[32];

        if (!s)
            return false;
        snprintf(state, sizeof(state), "%s", json_string_value(json_object_get(s, "state")));
        if (tty)
            show_progress(state, s);
        if (!strcmp(state, "SYNCING")) {
            json_decref(s);
            task_sleep_until(clock_now() + PROGRESS_NS);
            continue;
        }
        if (tty)
            fputc('\n', stderr);
        if (strcmp(state, "PROTECTED"))
            error_setg(errp, "the protection ended in state %s: %s", state,
                       json_string_value(json_object_get(s, "last_error")));
        json_decref(s);
        return !strcmp(state, "PROTECTED");
    }
}

static bool protect(const struct protect_options *o, Error **errp)
{
    Client *c = client_open(o->name, errp);
    json_t *result;
    bool ok;

    if (!c)
        return false;
    result = client_execute(c, "perdure-protect", arguments(o), errp);
    ok = result != NULL;
    json_decref(result);
    if (ok && !o->check && !o->no_wait)
        ok = wait_protected(c, errp);
    client_close(c);
    return ok;
}

int cmd_protect(int argc, char **argv)
{
    struct protect_options o = {
        .arbiter = "manual", .interval = 10 * NS_PER_MS, .min_epoch = NS_PER_MS, .timeout = NS_PER_S};
    const struct option_spec specs[] = {
        {"NAME", NULL, OPTION_STRING, o.name, sizeof(o.name), "the running machine"},
        {"to", "ADDRESS", OPTION_STRING, o.to, sizeof(o.to), "where perdure standby listens (required)"},
        {"interval", "TIME", OPTION_DURATION, &o.interval, 0, "from one checkpoint to the next (10ms)"},
        {"min-epoch", "TIME", OPTION_DURATION, &o.min_epoch, 0,
         "the guest runs at least that long between two (1ms)"},
        {"timeout", "TIME", OPTION_DURATION, &o.timeout, 0, "silence of the peer that counts (1s)"},
        {"arbiter", "KIND", OPTION_STRING, o.arbiter, sizeof(o.arbiter),
         "who decides when the sides lose each other: manual, file:DIR, command:PATH (manual)"},
        {"psk", "FILE", OPTION_STRING, o.psk, sizeof(o.psk), "the pair's key (perdure keygen)"},
        {"insecure", NULL, OPTION_FLAG, &o.insecure, 0, "connect to another host without a key"},
        {"verify", "N", OPTION_INT, &o.verify, 0, "compare all RAM every N checkpoints (0: never)"},
        {"no-delta", NULL, OPTION_FLAG, &o.no_delta, 0,
         "send whole pages; saves a copy of the guest's RAM here"},
        {"check", NULL, OPTION_FLAG, &o.check, 0, "only say whether it would work, and what is missing"},
        {"no-wait", NULL, OPTION_FLAG, &o.no_wait, 0,
         "return once the standby has accepted, before the first sync is done"},
        {"unsafe-no-output-hold", NULL, OPTION_FLAG, &o.unsafe, 0,
         "UNSAFE: let output leave before it is acknowledged (for demonstrations)"},
        {0},
    };
    Error *err = NULL;
    int status = options_begin("Protects a running machine: a backup follows it checkpoint by checkpoint.",
                               specs, argc, argv);

    if (status >= 0)
        return status;
    if (!o.to[0]) {
        fprintf(stderr, "perdure protect: --to is missing: where `perdure standby` listens\n");
        return 2;
    }
    if (!protect(&o, &err))
        return client_fail(argv[0], err);
    if (!strcmp(o.arbiter, "manual") && !o.check)
        fprintf(stderr,
                "perdure protect: arbiter manual: if this host dies, the backup takes over only by "
                "`perdure failover %s --peer-is-dead` there\n",
                o.name);
    return 0;
}
