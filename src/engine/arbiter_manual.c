/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * manual: nobody is asked. The primary goes on; the backup takes over only when the user vouches, and a former
 * primary starts again only then. In a swap
 * it is the other way round from the permission to run on: that is with the backup, and the primary may not
 * go on by itself.
 */
#include "engine/arbiter_kinds.h"

#include <stdlib.h>

static enum arbiter_answer claim(Arbiter *a, const struct arbiter_claim *c, int64_t deadline, Error **errp)
{
    (void)a;
    (void)deadline;
    if (c->returning) {
        error_setg(errp, "nobody but you can say whether '%s' runs at %s", c->vm, c->peer);
        return ARBITER_UNKNOWN;
    }
    if ((c->side == ARBITER_BACKUP) == c->permitted)
        return ARBITER_GRANTED;
    if (c->side == ARBITER_PRIMARY)
        error_setg(errp, "the link broke while the other side was taking over: look whether '%s' runs there",
                   c->vm);
    else
        error_setg(errp, "nobody but you can say whether the primary at %s is dead", c->peer);
    return ARBITER_UNKNOWN;
}

static void manual_free(Arbiter *a)
{
    free(a);
}

static const struct arbiter_ops manual_ops = {.claim = claim, .free = manual_free};

Arbiter *arbiter_manual_new(const char *rest, Error **errp)
{
    Arbiter *a = calloc(1, sizeof(*a));

    (void)rest;
    if (a)
        a->ops = &manual_ops;
    else
        error_setg(errp, "out of memory");
    return a;
}
