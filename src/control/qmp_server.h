/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP server: the control socket. QMP's wire conventions: greeting, qmp_capabilities, {execute, arguments,
 * id}, {return | error}, timestamped events; several clients at once, a task each.
 *
 * A command runs on its client's task; commands that change the machine serialise themselves (control/vm.h).
 * A client that does not read for a second is disconnected: it never holds up the machine.
 */
#ifndef CONTROL_QMP_SERVER_H
#define CONTROL_QMP_SERVER_H

#include <jansson.h>
#include <perdure/error.h>

typedef struct QmpServer QmpServer;

struct qmp_command {
    const char *name;
    /* args: an object, never NULL (borrowed). *ret_result (NULL: an empty object) is the server's; false with
     * errp. */
    bool (*run)(void *opaque, json_t *args, json_t **ret_result, Error **errp);
};

/* commands: ends with a NULL name; borrowed. path: made with mode 0600; a stale socket there is replaced, a
 * live one refused. */
QmpServer *qmp_server_new(const char *path, const struct qmp_command *commands, void *opaque, Error **errp);
/* To every client past its qmp_capabilities. data is taken; NULL is fine. Any task. */
void qmp_server_event(QmpServer *s, const char *event, json_t *data);
/* Is anybody connected? */
bool qmp_server_has_clients(QmpServer *s);
void qmp_server_free(QmpServer *s); /* removes the socket; NULL is fine */

#endif
