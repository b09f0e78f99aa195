/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/qmp_args.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool qmp_arg_bool(json_t *args, const char *name, bool *ret, Error **errp)
{
    json_t *v = json_object_get(args, name);

    if (v && !json_is_boolean(v)) {
        error_setg(errp, "argument '%s' must be true or false", name);
        return false;
    }
    if (v)
        *ret = json_is_true(v);
    return true;
}

bool qmp_arg_int(json_t *args, const char *name, int64_t min, int64_t max, int64_t *ret, Error **errp)
{
    json_t *v = json_object_get(args, name);

    if (!v)
        return true;
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max) {
        error_setg(errp, "argument '%s' must be a whole number from %" PRId64 " to %" PRId64, name, min, max);
        return false;
    }
    *ret = json_integer_value(v);
    return true;
}

bool qmp_arg_string(json_t *args, const char *name, char *ret, size_t size, Error **errp)
{
    json_t *v = json_object_get(args, name);

    if (!v)
        return true;
    if (!json_is_string(v) || json_string_length(v) >= size ||
        strlen(json_string_value(v)) != json_string_length(v)) {
        error_setg(errp, "argument '%s' must be a string of at most %zu bytes", name, size - 1);
        return false;
    }
    snprintf(ret, size, "%s", json_string_value(v));
    return true;
}

bool qmp_args_only(json_t *args, const char *const *names, Error **errp)
{
    const char *key;
    json_t *value;

    json_object_foreach(args, key, value)
    {
        size_t i = 0;
        while (names[i] && strcmp(names[i], key))
            i++;
        if (!names[i]) {
            error_setg(errp, "unknown argument '%s'", key);
            return false;
        }
    }
    return true;
}
