/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Arguments of a control command: each getter takes one member by name, checks its type and range, and leaves
 * *ret as it was when the member is absent. qmp_args_only() refuses members that the command does not know.
 */
#ifndef CONTROL_QMP_ARGS_H
#define CONTROL_QMP_ARGS_H

#include <jansson.h>
#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

bool qmp_arg_bool(json_t *args, const char *name, bool *ret, Error **errp);
bool qmp_arg_int(json_t *args, const char *name, int64_t min, int64_t max, int64_t *ret, Error **errp);
bool qmp_arg_string(json_t *args, const char *name, char *ret, size_t size, Error **errp);
bool qmp_args_only(json_t *args, const char *const *names, Error **errp); /* names: ends with NULL */

#endif
