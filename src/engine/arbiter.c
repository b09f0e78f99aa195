/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/arbiter_kinds.h"
#include "base/task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static arbiter_factory_fn *factory;

static const struct {
    const char *prefix;
    Arbiter *(*make)(const char *rest, Error **errp);
} kinds[] = {
    {"manual", arbiter_manual_new},
    {"file:", arbiter_file_new},
    {"command:", arbiter_command_new},
};

void arbiter_set_factory(arbiter_factory_fn *fn)
{
    factory = fn;
}

static Arbiter *make(const char *spec, Error **errp)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t n = strlen(kinds[i].prefix);
        bool takes_rest = kinds[i].prefix[n - 1] == ':';

        if (!strncmp(spec, kinds[i].prefix, n) && (takes_rest ? spec[n] == '/' : !spec[n]))
            return kinds[i].make(spec + n, errp);
    }
    error_setg(errp, "arbiter '%s' is none of manual, file:/DIR, command:/PATH", spec);
    return NULL;
}

Arbiter *arbiter_new(const char *spec, Error **errp)
{
    Error *err = NULL;
    Arbiter *a = factory ? factory(spec, &err) : NULL;

    if (!a && !err)
        a = make(spec, &err);
    error_propagate(errp, err);
    if (a)
        snprintf(a->kind, sizeof(a->kind), "%s", spec);
    return a;
}

enum arbiter_answer arbiter_claim(Arbiter *a, const struct arbiter_claim *c, int64_t deadline, Error **errp)
{
    return a->ops->claim(a, c, deadline, errp);
}

bool arbiter_gave_up(const struct arbiter_claim *c, int64_t deadline)
{
    return clock_now() >= deadline || (c->given_up && c->given_up(c->opaque));
}

void arbiter_kill_all(void)
{
    arbiter_command_kill();
}

void arbiter_free(Arbiter *a)
{
    if (a)
        a->ops->free(a);
}
