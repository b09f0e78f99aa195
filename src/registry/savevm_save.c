/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "registry/savevm_list.h"

#include <errno.h>

static void begin_named(VMStream *f, uint16_t type, const struct savevm_entry *e)
{
    perdure_stream_begin(f, type, e->section_id);
    perdure_stream_put_string(f, e->idstr);
    perdure_stream_put_u32(f, e->instance);
    perdure_stream_put_u32(f, e->version);
}

/* Closes the section whatever came of it; status: what the handler said. */
static bool end_section(VMStream *f, const struct savevm_entry *e, int status, Error **errp)
{
    Error *err = NULL;

    perdure_stream_end(f);
    if (status < 0)
        perdure_stream_set_error(f, status, "its handler failed with error %d", -status);
    if (!perdure_stream_error(f, &err))
        return true;
    error_prepend(&err, "saving %s.%u: ", e->idstr, e->instance);
    error_propagate(errp, err);
    return false;
}

static bool setup_walk(VMStream *f, Error **errp)
{
    for (struct savevm_entry *e = savevm_first(); e; e = e->next) {
        int status;

        if (!savevm_is_live(e) || !savevm_is_active(e))
            continue;
        begin_named(f, PERDURE_RECORD_SECTION_START, e);
        status = e->ops->save_setup ? e->ops->save_setup(f, e->opaque) : 0;
        if (!end_section(f, e, status, errp))
            return false;
    }
    return true;
}

bool perdure_savevm_setup(VMStream *f, Error **errp)
{
    bool ok;

    savevm_walk_begin();
    ok = setup_walk(f, errp);
    savevm_walk_end();
    return ok;
}

static bool takes_part(const struct savevm_entry *e, bool postcopy)
{
    return e->ops->save_live_iterate && savevm_is_active(e) &&
           (!e->ops->is_active_iterate || e->ops->is_active_iterate(e->opaque)) &&
           (!postcopy || savevm_has_postcopy(e));
}

/* Stops at the first component that is not done: those behind it change fast, and would be sent over and
 * over. */
static int iterate_walk(VMStream *f, bool postcopy, Error **errp)
{
    for (struct savevm_entry *e = savevm_first(); e; e = e->next) {
        int status;

        if (!takes_part(e, postcopy))
            continue;
        perdure_stream_begin(f, PERDURE_RECORD_SECTION_PART, e->section_id);
        status = e->ops->save_live_iterate(f, e->opaque);
        if (!end_section(f, e, status, errp))
            return perdure_stream_error(f, NULL);
        if (status == 0)
            return 0;
    }
    return 1;
}

int perdure_savevm_iterate(VMStream *f, bool postcopy, Error **errp)
{
    int status;

    savevm_walk_begin();
    status = iterate_walk(f, postcopy, errp);
    savevm_walk_end();
    return status;
}

void perdure_savevm_pending(VMStream *f, uint64_t threshold, uint64_t *precopy_only, uint64_t *compatible,
                            uint64_t *postcopy_only)
{
    *precopy_only = *compatible = *postcopy_only = 0;
    savevm_walk_begin();
    for (struct savevm_entry *e = savevm_first(); e; e = e->next) {
        if (e->ops->save_live_pending && savevm_is_active(e))
            e->ops->save_live_pending(f, e->opaque, threshold, precopy_only, compatible, postcopy_only);
    }
    savevm_walk_end();
}

/* One END section by the handler that the caller chose. */
static bool complete_one(VMStream *f, struct savevm_entry *e, int (*complete)(VMStream *f, void *opaque),
                         Error **errp)
{
    perdure_stream_begin(f, PERDURE_RECORD_SECTION_END, e->section_id);
    return end_section(f, e, complete(f, e->opaque), errp);
}

bool perdure_savevm_complete_precopy(VMStream *f, bool in_postcopy, Error **errp)
{
    bool ok = true;

    savevm_walk_begin();
    for (struct savevm_entry *e = savevm_first(); e && ok; e = e->next) {
        if (e->ops->save_live_complete_precopy && savevm_is_active(e) &&
            !(in_postcopy && savevm_has_postcopy(e)))
            ok = complete_one(f, e, e->ops->save_live_complete_precopy, errp);
    }
    savevm_walk_end();
    return ok;
}

bool perdure_savevm_complete_postcopy(VMStream *f, Error **errp)
{
    bool ok = true;

    savevm_walk_begin();
    for (struct savevm_entry *e = savevm_first(); e && ok; e = e->next) {
        if (e->ops->save_live_complete_postcopy && savevm_is_active(e) && savevm_has_postcopy(e))
            ok = complete_one(f, e, e->ops->save_live_complete_postcopy, errp);
    }
    savevm_walk_end();
    return ok;
}

bool perdure_savevm_devices(VMStream *f, Error **errp)
{
    bool ok = true;

    savevm_walk_begin();
    for (struct savevm_entry *e = savevm_first(); e && ok; e = e->next) {
        if (!e->ops->save_state)
            continue;
        begin_named(f, PERDURE_RECORD_SECTION_FULL, e);
        e->ops->save_state(f, e->opaque);
        ok = end_section(f, e, 0, errp);
    }
    savevm_walk_end();
    return ok;
}

void perdure_savevm_cleanup(void)
{
    savevm_walk_begin();
    for (struct savevm_entry *e = savevm_first(); e; e = e->next) {
        if (e->ops->save_cleanup)
            e->ops->save_cleanup(e->opaque);
    }
    savevm_walk_end();
}

bool perdure_savevm_resume_prepare(struct MigrationState *s, Error **errp)
{
    struct savevm_entry *e;
    int status = 0;

    savevm_walk_begin();
    for (e = savevm_first(); e; e = e->next) {
        if (e->ops->resume_prepare && savevm_is_active(e) &&
            (status = e->ops->resume_prepare(s, e->opaque)) < 0)
            break;
    }
    if (e)
        error_setg_errno(errp, -status, "%s.%u cannot resume the migration", e->idstr, e->instance);
    savevm_walk_end();
    return !e;
}

bool perdure_savevm_all(VMStream *f, Error **errp)
{
    bool ok = perdure_savevm_setup(f, errp);
    int done = 0;

    while (ok && !done) {
        done = perdure_savevm_iterate(f, false, errp);
        ok = done >= 0;
    }
    ok = ok && perdure_savevm_complete_precopy(f, false, errp) && perdure_savevm_devices(f, errp);
    if (ok) {
        perdure_stream_begin(f, PERDURE_RECORD_STATE_END, 0);
        perdure_stream_end(f);
        ok = perdure_stream_flush(f, errp);
    }
    perdure_savevm_cleanup();
    return ok;
}
