/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One client of the control socket: its task reads requests, runs them and answers. Used by qmp_server.c
 * alone.
 */
#ifndef CONTROL_QMP_CLIENT_H
#define CONTROL_QMP_CLIENT_H

#include "control/qmp_server.h"
#include "stream/channel.h"

struct qmp_client;

/* Takes ch. NULL when there is no memory or no task for it. */
struct qmp_client *qmp_client_new(Channel *ch, const struct qmp_command *commands, void *opaque);
/* data is borrowed. */
void qmp_client_event(struct qmp_client *c, const char *event, json_t *data);
/* Its connection has ended and qmp_client_free() will not wait. */
bool qmp_client_gone(struct qmp_client *c);
/* Waits for the command under way and its answer, cuts the connection; NULL is fine. */
void qmp_client_free(struct qmp_client *c);

#endif
