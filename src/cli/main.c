/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/commands.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"run", cmd_run, "boot a virtual machine"},
    {"standby", cmd_standby, "wait for a primary and be its backup"},
    {"protect", cmd_protect, "keep a running machine's backup, checkpoint by checkpoint"},
    {"unprotect", cmd_unprotect, "end the protection; the machine runs on here"},
    {"failover", cmd_failover, "at the backup: take over"},
    {"swap", cmd_swap, "at the primary: change roles with the backup"},
    {"migrate", cmd_migrate, "move a running machine to another host"},
    {"migrate-set", cmd_migrate_set, "change how it is moved, also on the way"},
    {"migrate-set", cmd_migrate_set, "change how it is moved, also on the way"},
    {"migrate-cancel", cmd_migrate_cancel, "keep it here after all"},
    {"migrate-pause", cmd_migrate_pause, "postcopy: break the link, and wait"},
    {"migrate-recover", cmd_migrate_recover, "postcopy: make a broken link anew, now"},
    {"migrate-backup", cmd_migrate_backup, "move a machine's backup to another host"},
    {"listen", cmd_listen, "let a machine's process be reached as a standby"},
    {"list", cmd_list, "the virtual machines of this host"},
    {"status", cmd_status, "role, state and figures of one or all"},
    {"top", cmd_top, "a live view of them"},
    {"stop", cmd_stop, "hold a machine still"},
    {"resume", cmd_resume, "let it run again"},
    {"reset", cmd_reset, "press its reset button"},
    {"powerdown", cmd_powerdown, "press its power button"},
    {"shutdown", cmd_shutdown, "swap if protected, else power off, and wait"},
    {"quit", cmd_quit, "end a machine's process at once"},
    {"keygen", cmd_keygen, "make a pre-shared key for two hosts"},
};

static void usage(FILE *f)
{
    fprintf(f, "Usage: perdure COMMAND [OPTION]...\nKeeps a virtual machine alive when the computer under it "
               "dies.\n\n");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].what);
    fprintf(f, "\nperdure COMMAND --help tells more. Exit status: 0 done, 1 failed, 2 usage.\n");
}

static void log_to_stderr(enum log_level level, const char *text)
{
    fprintf(stderr, "perdure: %s%s\n", level == LOG_LEVEL_WARN ? "warning: " : "", text);
}

int main(int argc, char **argv)
{
    log_set_sink(log_to_stderr);
    if (argc >= 2 && !strcmp(argv[1], "--version")) {
        puts("perdure " PERDURE_VERSION);
        return 0;
    }
    if (argc >= 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
        usage(stdout);
        return 0;
    }
    for (size_t i = 0; argc >= 2 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (!strcmp(commands[i].name, argv[1]))
            return commands[i].run(argc - 1, argv + 1);
    }
    if (argc >= 2)
        fprintf(stderr, "perdure: unknown command '%s'; see perdure --help\n", argv[1]);
    else
        usage(stderr);
    return 2;
}
