/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SaveVMHandlers: how one component saves and loads its state; registered in one process-wide ordered list that the engines walk.
 */
#ifndef PERDURE_SAVEVM_H
#define PERDURE_SAVEVM_H

#include <perdure/stream.h>

struct MigrationState; /* the migration under way; opaque here */

typedef struct SaveVMHandlers {
    /* Whole state at once, under the VM lock, machine stopped. */
    void (*save_state)(VMStream *f, void *opaque);
    /* Always called at the end, also after a failure, also where setup never ran. */
    void (*save_cleanup)(void *opaque);
    int (*save_live_complete_postcopy)(VMStream *f, void *opaque);
    int (*save_live_complete_precopy)(VMStream *f, void *opaque);
    bool (*is_active)(void *opaque);         /* NULL: yes */
    bool (*has_postcopy)(void *opaque);      /* NULL: no */
    bool (*is_active_iterate)(void *opaque); /* NULL: yes */
    /* 0: more to do; 1: done for this stage; negative errno. */
    int (*save_live_iterate)(VMStream *f, void *opaque);
    int (*save_setup)(VMStream *f, void *opaque);
    /* ADDS what is left, in bytes, to the three classes. */
    void (*save_live_pending)(VMStream *f, void *opaque, uint64_t threshold, uint64_t *precopy_only,
                              uint64_t *compatible, uint64_t *postcopy_only);
    int (*load_state)(VMStream *f, void *opaque, int version_id);
    int (*load_setup)(VMStream *f, void *opaque);
    int (*load_cleanup)(void *opaque);
    int (*resume_prepare)(struct MigrationState *s, void *opaque);
} SaveVMHandlers;

/* instance_id -1: the next free one. ops is borrowed until unregistered. 0, or -EEXIST (same idstr and instance), -EINVAL. */
int register_savevm_live(const char *idstr, int instance_id, int version_id, const SaveVMHandlers *ops, void *opaque);
/* Removes every entry whose full id (obj + "/" + idstr where obj is not NULL) and opaque match; silent when none. */
void unregister_savevm(const char *obj, const char *idstr, void *opaque);

/* --- the walks (rules: docs/savevm.md) --- */
bool perdure_savevm_setup(VMStream *f, Error **errp);
/* 1: every component is done for this stage; 0: call again; negative errno with errp. */
int perdure_savevm_iterate(VMStream *f, bool postcopy, Error **errp);
void perdure_savevm_pending(VMStream *f, uint64_t threshold, uint64_t *precopy_only, uint64_t *compatible,
                            uint64_t *postcopy_only);
/* END of the iterables; in_postcopy skips those with has_postcopy. */
bool perdure_savevm_complete_precopy(VMStream *f, bool in_postcopy, Error **errp);
bool perdure_savevm_complete_postcopy(VMStream *f, Error **errp);
/* FULL of every non-iterable component (devices, irqchip, vCPUs). Machine stopped. */
bool perdure_savevm_devices(VMStream *f, Error **errp);
void perdure_savevm_cleanup(void);
bool perdure_savevm_resume_prepare(struct MigrationState *s, Error **errp);
/* A whole state into f: setup, iterate until done, complete, devices, END; cleanup always. Machine stopped. */
bool perdure_savevm_all(VMStream *f, Error **errp);

/* Loads sections up to END: load_setup, sections, mandatory ones present, load_cleanup. */
bool perdure_loadvm_all(VMStream *f, Error **errp);
/* Loads the FULL sections in f (what perdure_savevm_devices wrote), which must hold every non-iterable component exactly once. */
bool perdure_loadvm_devices(VMStream *f, Error **errp);
/* The same checks (names, versions, framing, completeness), loading nothing. */
bool perdure_loadvm_devices_check(VMStream *f, Error **errp);

/* Record types of machine state (docs/wire-format.md). */
enum {
    PERDURE_RECORD_SECTION_START = 0x10,
    PERDURE_RECORD_SECTION_PART = 0x11,
    PERDURE_RECORD_SECTION_END = 0x12,
    PERDURE_RECORD_SECTION_FULL = 0x13,
    PERDURE_RECORD_STATE_END = 0x1f,
};

#endif
