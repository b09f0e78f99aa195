/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The commands of the control socket, one table. QMP's names where QMP has one; the project's own begin with
 * perdure-. Each gets the Vm as its opaque pointer. The arguments of each are documented in docs/qmp.md.
 */
#ifndef CONTROL_QMP_COMMANDS_H
#define CONTROL_QMP_COMMANDS_H

#include "control/qmp_server.h"

extern const struct qmp_command qmp_commands[];

#endif
