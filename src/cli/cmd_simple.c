/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The commands that are one command of the control socket, with at most one flag.
 */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"

#include <stdio.h>

struct simple {
    const char *what;    /* for --help */
    const char *command; /* of the control socket */
    const char *flag;    /* option, and argument of the command; NULL: none */
    const char *flag_help;
};

static int simple(const struct simple *s, int argc, char **argv)
{
    char name[64];
    bool flag = false;
    const struct option_spec specs[] = {
        {"NAME", NULL, OPTION_STRING, name, sizeof(name), "the machine"},
        {s->flag, NULL, OPTION_FLAG, &flag, 0, s->flag_help},
        {0},
    };
    Error *err = NULL;
    int status = options_begin(s->what, specs, argc, argv);
    json_t *result;

    if (status >= 0)
        return status;
    result = client_command(name, s->command, flag ? json_pack("{s:b}", s->flag, 1) : NULL, &err);
    if (!result)
        return client_fail(argv[0], err);
    json_decref(result);
    return 0;
}

int cmd_unprotect(int argc, char **argv)
{
    static const struct simple s = {
        "Ends the protection; the machine runs on here, unprotected.", "perdure-unprotect", "force",
        "do not wait for peer or arbiter: you know that the other side does not run"};
    return simple(&s, argc, argv);
}

int cmd_migrate_cancel(int argc, char **argv)
{
    static const struct simple s = {
        "Ends a migration; the machine runs on here.", "migrate_cancel", "force",
        "do not wait for destination or arbiter: you know that it does not run there"};
    return simple(&s, argc, argv);
}

int cmd_migrate_pause(int argc, char **argv)
{
    static const struct simple s = {
        "At the source, in postcopy: breaks the link, and does not make it anew before migrate-recover.",
        "migrate-pause", NULL, NULL};
    return simple(&s, argc, argv);
}

int cmd_failover(int argc, char **argv)
{
    static const struct simple s = {
        "At the backup: takes over. A primary that answers hands over; else the arbiter is asked.",
        "perdure-failover", "peer-is-dead",
        "you know that the primary does not run (needed with the manual arbiter)"};
    return simple(&s, argc, argv);
}

/* Of a machine that nobody could protect to, should the link break now. */
static void hint_to_listen(const char *name)
{
    json_t *s = client_command(name, "perdure-status", NULL, NULL);
    const char *listen = json_string_value(json_object_get(s, "listen"));

    if (listen && !listen[0])
        fprintf(stderr,
                "perdure swap: this process is the backup now, and listens at nothing: if the link breaks, "
                "the primary "
                "can come again only after `perdure listen %s --listen ADDRESS` here\n",
                name);
    json_decref(s);
}

int cmd_swap(int argc, char **argv)
{
    static const struct simple s = {
        "At the primary: hands the running machine to the backup, and becomes its backup.", "perdure-swap",
        NULL, NULL};
    int status = simple(&s, argc, argv);

    if (status == 0 && argc == 2 && argv[1][0] != '-')
        hint_to_listen(argv[1]);
    return status;
}

int cmd_stop(int argc, char **argv)
{
    static const struct simple s = {"Holds the machine still.", "stop", NULL, NULL};
    return simple(&s, argc, argv);
}

int cmd_resume(int argc, char **argv)
{
    static const struct simple s = {"Lets a stopped machine run again.", "cont", NULL, NULL};
    return simple(&s, argc, argv);
}

int cmd_reset(int argc, char **argv)
{
    static const struct simple s = {"Presses the machine's reset button.", "system_reset", NULL, NULL};
    return simple(&s, argc, argv);
}

int cmd_powerdown(int argc, char **argv)
{
    static const struct simple s = {
        "Presses the machine's power button: its system shuts down, if it listens to the button.",
        "system_powerdown", NULL, NULL};
    return simple(&s, argc, argv);
}

int cmd_quit(int argc, char **argv)
{
    static const struct simple s = {
        "Ends the machine's process at once.", "quit", "force",
        "also while protected (the backup takes over), or when another host still needs its memory"};
    return simple(&s, argc, argv);
}
