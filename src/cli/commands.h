/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The commands of the program: each has its run function (argv[0] is the command's name; the result is the
 * exit status: 0 done, 1 failed, 2 usage) and one line in main.c's table.
 */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

int cmd_run(int argc, char **argv);
int cmd_standby(int argc, char **argv);
int cmd_protect(int argc, char **argv);
int cmd_unprotect(int argc, char **argv);
int cmd_failover(int argc, char **argv);
int cmd_swap(int argc, char **argv);
int cmd_migrate(int argc, char **argv);
int cmd_migrate_set(int argc, char **argv);
int cmd_migrate_set(int argc, char **argv);
int cmd_migrate_cancel(int argc, char **argv);
int cmd_migrate_pause(int argc, char **argv);
int cmd_migrate_recover(int argc, char **argv);
int cmd_migrate_backup(int argc, char **argv);
int cmd_listen(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_reset(int argc, char **argv);
int cmd_powerdown(int argc, char **argv);
int cmd_shutdown(int argc, char **argv);
int cmd_quit(int argc, char **argv);
int cmd_keygen(int argc, char **argv);

#endif
