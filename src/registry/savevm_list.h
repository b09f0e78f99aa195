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
    bool started, ended;     /* START and END were seen */
    bool whole;              /* FULL was seen */
    uint64_t stream_section; /* the section id that the stream uses */
    int stream_version;
    struct savevm_entry *next;
};

struct savevm_entry *savevm_first(void);
struct savevm_entry *savevm_find(const char *idstr, uint32_t instance);
/* Between the two no entry may go. */
void savevm_walk_begin(void);
void savevm_walk_end(void);

/* It has a section that begins with START; what it sends first may be nothing. */
static inline bool savevm_is_live(const struct savevm_entry *e)
{
    return e->ops->save_setup || e->ops->save_live_iterate || e->ops->save_live_complete_precopy ||
           e->ops->save_live_complete_postcopy;
}

/* Its section is closed by END. */
static inline bool savevm_has_end(const struct savevm_entry *e)
{
    return e->ops->save_live_complete_precopy || e->ops->save_live_complete_postcopy;
}

static inline bool savevm_is_active(const struct savevm_entry *e)
{
    return !e->ops->is_active || e->ops->is_active(e->opaque);
}

static inline bool savevm_has_postcopy(const struct savevm_entry *e)
{
    return e->ops->has_postcopy && e->ops->has_postcopy(e->opaque);
}

#endif
