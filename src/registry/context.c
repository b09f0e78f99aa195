/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "registry/context.h"

#include <assert.h>
#include <stdlib.h>

static struct registry_context process_context;
static struct registry_context *current = &process_context;

struct registry_context *registry_context_new(void)
{
    return calloc(1, sizeof(struct registry_context));
}

void registry_context_free(struct registry_context *c)
{
    if (!c)
        return;
    assert(c != current && c != &process_context);
    assert(!c->replication.first && !c->feeds.first && !c->checkpoint.first && !c->savevm.first);
    if (c->checkpoint.lock_ready)
        task_mutex_destroy(&c->checkpoint.lock);
    if (c->feeds.lock_ready)
        task_mutex_destroy(&c->feeds.lock);
    free(c);
}

struct registry_context *registry_context_switch(struct registry_context *c)
{
    struct registry_context *before = current;

    current = c ? c : &process_context;
    return before;
}

struct registry_context *registry_context_current(void)
{
    return current;
}
