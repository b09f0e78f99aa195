/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of a machine on this host as a service manager wants it: a protected one goes on at its backup, any
 * other is told to switch itself off.
 */
#include "base/task.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LOOK_AGAIN (200 * NS_PER_MS)

static bool command(const char *name, const char *what, Error **errp)
{
    json_t *result = client_command(name, what, NULL, errp);

    json_decref(result);
    return result;
}

/* It does not stand by afterwards, and says so: the guest is not held back there for its sake. */
static bool hand_over(const char *name, Error **errp)
{
    json_t *args = json_pack("{sb}", "leave", 1);
    json_t *result = args ? client_command(name, "perdure-swap", args, errp) : NULL;

    if (!args)
        error_setg(errp, "out of memory");
    json_decref(result);
    return result;
}

static void read_text(json_t *s, const char *key, char *buf, size_t size)
{
    json_t *v = json_object_get(s, key);

    snprintf(buf, size, "%s", json_is_string(v) ? json_string_value(v) : "");
}

/* Until nobody answers any more. */
static bool wait_gone(const char *name, int64_t deadline, Error **errp)
{
    while (clock_now() < deadline) {
        Client *c = client_open_within(name, NS_PER_S, NULL);

        if (!c)
            return true;
        client_close(c);
        task_sleep_until(clock_now() + LOOK_AGAIN);
    }
    error_setg_errno(errp, ETIMEDOUT, "%s still runs: its guest did not switch itself off in time", name);
    return false;
}

/* A backup, and a side that the arbiter decided against, has no guest to ask. */
static bool end_process(const char *name, int64_t deadline, Error **errp)
{
    return command(name, "quit", errp) && wait_gone(name, deadline, errp);
}

static bool end_machine(const char *name, int64_t deadline, Error **errp)
{
    json_t *s = client_command(name, "perdure-status", NULL, errp);
    char role[16], state[16];

    if (!s)
        return false;
    read_text(s, "role", role, sizeof(role));
    read_text(s, "state", state, sizeof(state));
    json_decref(s);
    if (!strcmp(role, "backup") || !strcmp(state, "FENCED"))
        return end_process(name, deadline, errp);
    if (!strcmp(state, "PROTECTED"))
        return hand_over(name, errp) && end_process(name, deadline, errp);
    return command(name, "system_powerdown", errp) && wait_gone(name, deadline, errp);
}

int cmd_shutdown(int argc, char **argv)
{
    char name[64];
    int64_t timeout = 90 * NS_PER_S;
    const struct option_spec specs[] = {
        {"NAME", NULL, OPTION_STRING, name, sizeof(name), "the machine"},
        {"timeout", "TIME", OPTION_DURATION, &timeout, 0, "how long its system may take (90s)"},
        {0},
    };
    Error *err = NULL;
    int status =
        options_begin("Ends a machine here: a protected one goes on at its backup (swap), any other has "
                      "its power button pressed; waits until its process has ended.",
                      specs, argc, argv);

    if (status >= 0)
        return status;
    return end_machine(name, clock_now() + timeout, &err) ? 0 : client_fail(argv[0], err);
}
