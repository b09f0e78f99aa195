/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Client: the CLI's end of a control socket.
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <jansson.h>
#include <perdure/error.h>

typedef struct Client Client;

/* To the VM process of that name; past the greeting and qmp_capabilities. */
Client *client_open(const char *name, Error **errp);
/* Runs a command; args is taken (NULL: none). The return value (owned by the caller), or NULL with the
 * command's error. Events are skipped. */
json_t *client_execute(Client *c, const char *command, json_t *args, Error **errp);
void client_close(Client *c); /* NULL is fine */

/* Open, execute, close. */
json_t *client_command(const char *name, const char *command, json_t *args, Error **errp);

/* Of an argument that is a file's name: the VM's process opens it, so a relative one means here, not there.
 */
void client_set_path(json_t *args, const char *key, const char *path);

/* Prints "perdure COMMAND: text" and returns the exit status 1; takes err. */
int client_fail(const char *command, Error *err);

#endif
