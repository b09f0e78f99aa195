/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "registry/savevm_list.h"

#include "registry/context.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct savevm_list *list(void)
{
    return &registry_context_current()->savevm;
}

struct savevm_entry *savevm_first(void)
{
    return list()->first;
}

struct savevm_entry *savevm_find(const char *idstr, uint32_t instance)
{
    struct savevm_entry *e = list()->first;

    while (e && (e->instance != instance || strcmp(e->idstr, idstr)))
        e = e->next;
    return e;
}

void savevm_walk_begin(void)
{
    list()->walks++;
}

void savevm_walk_end(void)
{
    list()->walks--;
}

static uint32_t next_instance(const char *idstr)
{
    uint32_t next = 0;

    for (struct savevm_entry *e = list()->first; e; e = e->next) {
        if (!strcmp(e->idstr, idstr) && e->instance >= next)
            next = e->instance + 1;
    }
    return next;
}

int register_savevm_live(const char *idstr, int instance_id, int version_id, const SaveVMHandlers *ops,
                         void *opaque)
{
    struct savevm_entry *e, **last = &list()->first;
    uint32_t instance = instance_id == -1 ? next_instance(idstr) : (uint32_t)instance_id;

    if (!idstr[0] || strlen(idstr) >= sizeof(e->idstr) || instance > INT32_MAX || version_id < 0 || !ops)
        return -EINVAL;
    if (savevm_find(idstr, instance))
        return -EEXIST;
    e = calloc(1, sizeof(*e));
    if (!e)
        return -ENOMEM;
    snprintf(e->idstr, sizeof(e->idstr), "%s", idstr);
    e->instance = instance;
    e->version = version_id;
    e->section_id = list()->next_section_id++;
    e->ops = ops;
    e->opaque = opaque;
    while (*last)
        last = &(*last)->next;
    *last = e;
    return 0;
}

static bool id_matches(const struct savevm_entry *e, const char *obj, const char *idstr)
{
    size_t n = obj ? strlen(obj) : 0;

    if (!obj)
        return !strcmp(e->idstr, idstr);
    return !strncmp(e->idstr, obj, n) && e->idstr[n] == '/' && !strcmp(e->idstr + n + 1, idstr);
}

void unregister_savevm(const char *obj, const char *idstr, void *opaque)
{
    struct savevm_entry **at = &list()->first, *e;

    while ((e = *at)) {
        if (e->opaque == opaque && id_matches(e, obj, idstr)) {
            assert(!list()->walks && "a component may not go while its state is saved or loaded");
            *at = e->next;
            free(e);
        } else {
            at = &e->next;
        }
    }
}
