/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list behind register_savevm_live(), for the two walkers (savevm_save.c, savevm_load.c): entries in the
 * order of registration.
 */
#ifndef REGISTRY_SAVEVM_LIST_H
#define REGISTRY_SAVEVM_LIST_H

#include <perdure/savevm.h>

struct savevm_entry {
    char idstr[256];
    uint32_t instance;
    int version;
    uint32_t section_id; /* never used again; means something within one stream only */
    const SaveVMHandlers *ops;
    void *opaque;
    /* of the load under way */
    bool started, ended;     /* START (or FULL) and END were seen */
    uint64_t stream_section; /* the section id that the stream uses */
    int stream_version;
    struct savevm_entry *next;
};

struct savevm_entry *savevm_first(void);
struct savevm_entry *savevm_find(const char *idstr, uint32_t instance);
/* Between the two no entry may go. */
void savevm_walk_begin(void);
void savevm_walk_end(void);

static inline bool savevm_is_active(const struct savevm_entry *e)
{
    return !e->ops->is_active || e->ops->is_active(e->opaque);
}

static inline bool savevm_has_postcopy(const struct savevm_entry *e)
{
    return e->ops->has_postcopy && e->ops->has_postcopy(e->opaque);
}

#endif
