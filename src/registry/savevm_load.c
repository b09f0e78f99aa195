/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "registry/savevm_list.h"

#include <errno.h>
#include <inttypes.h>

enum load_mode {
    LOAD_ALL,     /* sections of every kind, up to STATE_END */
    LOAD_DEVICES, /* FULL sections, up to the end of the stream */
    CHECK_DEVICES /* the same, without calling a handler */
};

static void forget_last_load(void)
{
    for (struct savevm_entry *e = savevm_first(); e; e = e->next)
        e->started = e->ended = e->whole = false;
}

/* The text of the stream's first error, under the name of the section that it happened in. */
static bool section_failed(VMStream *f, const struct savevm_entry *e, Error **errp)
{
    Error *err = NULL;

    perdure_stream_error(f, &err);
    error_prepend(&err, "loading %s.%u: ", e->idstr, e->instance);
    error_propagate(errp, err);
    return false;
}

static bool call_handler(VMStream *f, struct savevm_entry *e, Error **errp)
{
    int status;

    if (!e->ops->load_state) {
        error_setg(errp, "section %s.%u: the component here cannot load", e->idstr, e->instance);
        return false;
    }
    status = e->ops->load_state(f, e->opaque, e->stream_version);
    if (status < 0)
        perdure_stream_set_error(f, status, "its handler failed with error %d", -status);
    perdure_stream_done(f);
    return !perdure_stream_error(f, NULL) || section_failed(f, e, errp);
}

/* A machine's live components begin before its first device is loaded, which may build on them. */
static bool begins_in_time(const struct savevm_entry *e, Error **errp)
{
    const struct savevm_entry *device = savevm_first();

    while (device && !device->whole)
        device = device->next;
    if (device)
        error_setg(errp, "section %s.%u begins after device %s.%u was loaded", e->idstr, e->instance,
                   device->idstr, device->instance);
    return !device;
}

/* The head of START and FULL: which component it is for, and whether that may have it. */
static struct savevm_entry *read_head(VMStream *f, uint64_t id, bool full, Error **errp)
{
    char idstr[256];
    uint32_t instance, version;
    struct savevm_entry *e;

    if (!perdure_stream_get_string(f, idstr, sizeof(idstr))) {
        perdure_stream_error(f, errp);
        return NULL;
    }
    instance = perdure_stream_get_u32(f);
    version = perdure_stream_get_u32(f);
    if (perdure_stream_error(f, errp))
        return NULL;
    e = savevm_find(idstr, instance);
    if (!e || !(full ? !!e->ops->save_state : savevm_is_live(e))) {
        error_setg(errp, "unknown savevm section or instance '%s.%u': this machine has no such %s", idstr,
                   instance, full ? "device" : "live component");
        return NULL;
    }
    if (version > (uint32_t)e->version) {
        error_setg(errp, "device %s.%u: stream has version %u, this build knows %d", idstr, instance, version,
                   e->version);
        return NULL;
    }
    if (full ? e->whole : e->started) {
        error_setg(errp, "section %s.%u is there twice", idstr, instance);
        return NULL;
    }
    if (!full && !begins_in_time(e, errp))
        return NULL;
    e->stream_version = version;
    if (full) {
        e->whole = true;
    } else {
        e->started = true;
        e->stream_section = id;
    }
    return e;
}

/* PART and END name their section by the id that its START had. */
static struct savevm_entry *find_open_section(uint64_t id, Error **errp)
{
    struct savevm_entry *e = savevm_first();

    while (e && !(e->started && !e->ended && e->stream_section == id))
        e = e->next;
    if (!e)
        error_setg(errp, "section %" PRIu64 " goes on without having started", id);
    return e;
}

static bool load_section(VMStream *f, uint16_t type, uint64_t id, enum load_mode mode, Error **errp)
{
    bool named = type == PERDURE_RECORD_SECTION_START || type == PERDURE_RECORD_SECTION_FULL;
    struct savevm_entry *e =
        named ? read_head(f, id, type == PERDURE_RECORD_SECTION_FULL, errp) : find_open_section(id, errp);

    if (!e)
        return false;
    if (type == PERDURE_RECORD_SECTION_END)
        e->ended = true;
    if (type == PERDURE_RECORD_SECTION_START && !e->ops->save_setup)
        perdure_stream_done(f); /* what nobody wrote nobody loads */
    else if (mode == CHECK_DEVICES)
        perdure_stream_skip(f);
    else
        return call_handler(f, e, errp);
    return !perdure_stream_error(f, NULL) || section_failed(f, e, errp);
}

static bool is_section(uint16_t type, enum load_mode mode)
{
    if (mode != LOAD_ALL)
        return type == PERDURE_RECORD_SECTION_FULL;
    return type >= PERDURE_RECORD_SECTION_START && type <= PERDURE_RECORD_SECTION_FULL;
}

static bool skip_optional(VMStream *f, uint16_t type, Error **errp)
{
    if (!(type & PERDURE_RECORD_OPTIONAL)) {
        error_setg(errp, "unknown record of type 0x%x in the machine state; a newer perdure wrote it", type);
        return false;
    }
    perdure_stream_skip(f);
    return true;
}

static bool incomplete(const struct savevm_entry *e, const char *what, Error **errp)
{
    error_setg(errp, "the state has no %s %s.%u, which this machine needs", what, e->idstr, e->instance);
    return false;
}

/* Every component that would have saved something must have been there, whole; in_postcopy: or will be. */
static bool check_complete(enum load_mode mode, bool in_postcopy, Error **errp)
{
    for (struct savevm_entry *e = savevm_first(); e; e = e->next) {
        if (e->ops->save_state && !e->whole)
            return incomplete(e, "section", errp);
        if (mode == LOAD_ALL && savevm_is_live(e) && savevm_is_active(e) && !e->started)
            return incomplete(e, "section", errp);
        if (e->started && !e->ended && savevm_has_end(e) && !(in_postcopy && savevm_has_postcopy(e)))
            return incomplete(e, "end of section", errp);
    }
    return true;
}

/* The sections of devices, up to the end of the stream. */
static bool load_devices(VMStream *f, enum load_mode mode, Error **errp)
{
    uint16_t type;
    uint64_t id;

    forget_last_load();
    while (perdure_stream_next(f, &type, &id)) {
        if (!is_section(type, mode)) {
            if (!skip_optional(f, type, errp))
                return false;
        } else if (!load_section(f, type, id, mode, errp)) {
            return false;
        }
    }
    return !perdure_stream_error(f, errp) && check_complete(mode, false, errp);
}

static bool walk_devices(VMStream *f, enum load_mode mode, Error **errp)
{
    bool ok;

    savevm_walk_begin();
    ok = load_devices(f, mode, errp);
    savevm_walk_end();
    return ok;
}

bool perdure_loadvm_devices(VMStream *f, Error **errp)
{
    return walk_devices(f, LOAD_DEVICES, errp);
}

bool perdure_loadvm_devices_check(VMStream *f, Error **errp)
{
    return walk_devices(f, CHECK_DEVICES, errp);
}

/* --- a whole state, record by record --- */

static bool load_setup(VMStream *f, Error **errp)
{
    for (struct savevm_entry *e = savevm_first(); e; e = e->next) {
        int status = e->ops->load_setup && savevm_is_active(e) ? e->ops->load_setup(f, e->opaque) : 0;

        if (status < 0) {
            error_setg_errno(errp, -status, "%s.%u is not ready to load", e->idstr, e->instance);
            return false;
        }
    }
    return true;
}

bool perdure_loadvm_begin(VMStream *f, Error **errp)
{
    bool ok;

    forget_last_load();
    savevm_walk_begin();
    ok = load_setup(f, errp);
    savevm_walk_end();
    return ok;
}

bool perdure_loadvm_record(VMStream *f, uint16_t type, uint64_t id, Error **errp)
{
    bool ok;

    savevm_walk_begin();
    ok =
        is_section(type, LOAD_ALL) ? load_section(f, type, id, LOAD_ALL, errp) : skip_optional(f, type, errp);
    savevm_walk_end();
    return ok;
}

bool perdure_loadvm_complete(Error **errp)
{
    return check_complete(LOAD_ALL, false, errp);
}

bool perdure_loadvm_may_run(Error **errp)
{
    return check_complete(LOAD_ALL, true, errp);
}

bool perdure_loadvm_cleanup(Error **errp)
{
    struct savevm_entry *failed = NULL;
    int first = 0;

    for (struct savevm_entry *e = savevm_first(); e; e = e->next) {
        int status = e->ops->load_cleanup ? e->ops->load_cleanup(e->opaque) : 0;

        if (status < 0 && !failed) {
            failed = e;
            first = status;
        }
    }
    if (failed)
        error_setg_errno(errp, -first, "%s.%u could not finish its load", failed->idstr, failed->instance);
    return !failed;
}

static bool load_records(VMStream *f, Error **errp)
{
    uint16_t type;
    uint64_t id;

    while (perdure_stream_next(f, &type, &id)) {
        if (type != PERDURE_RECORD_STATE_END) {
            if (!perdure_loadvm_record(f, type, id, errp))
                return false;
            continue;
        }
        perdure_stream_done(f);
        return !perdure_stream_error(f, errp) && perdure_loadvm_complete(errp);
    }
    if (!perdure_stream_error(f, errp))
        error_setg(errp, "the machine state ends before its end record");
    return false;
}

bool perdure_loadvm_all(VMStream *f, Error **errp)
{
    bool ok = perdure_loadvm_begin(f, errp) && load_records(f, errp);

    return perdure_loadvm_cleanup(ok ? errp : NULL) && ok;
}
