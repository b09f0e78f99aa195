/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The status of a VM as JSON: what perdure-status answers and `perdure status --json` prints (docs/qmp.md has
 * every member).
 */
#ifndef CONTROL_STATUS_JSON_H
#define CONTROL_STATUS_JSON_H

#include "control/vm.h"

/* Owned by the caller. */
json_t *status_json(Vm *vm);

#endif
