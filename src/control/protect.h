/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * perdure-protect: checks everything that protection needs on this side, lists all that is missing at once,
 * and starts it.
 */
#ifndef CONTROL_PROTECT_H
#define CONTROL_PROTECT_H

#include "control/qmp_server.h"

/* A qmp_command's run; opaque is the Vm. */
bool protect_command(void *opaque, json_t *args, json_t **ret_result, Error **errp);

#endif
