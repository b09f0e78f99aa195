/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Client: the CLI's end of a control socket.
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <jansson.h>
#include <perdure/error.h>
#include <stdint.h>

typedef struct Client Client;

/* To the VM process of that name; past the greeting and qmp_capabilities. */
Client *client_open(const char *name, Error **errp);
/* The same, but every wait for the process, now and in later calls, lasts at most timeout_ns. After one that
 * passed (errno ETIMEDOUT) the connection is of no use any more. */
Client *client_open_within(const char *name, int64_t timeout_ns, Error **errp);
/* Events that come while an answer is waited for go to fn: event borrowed. Without one they are skipped. */
void client_on_event(Client *c, void (*fn)(void *opaque, json_t *event), void *opaque);
/* Runs a command; args is taken (NULL: none). The return value (owned by the caller), or NULL with the
 * command's error. */
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
