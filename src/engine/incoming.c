/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Live migration, the destination's half: memory goes into the machine as it comes, since nothing runs here; devices when
 * all of them are here. A state that was cut, or does not fit, leaves a machine that is thrown away. In postcopy
 * (fetch.c) the guest runs before all memory has come, and pages of it go on coming after that.
 */
#include "engine/backup.h"
#include "guest/ram_state.h"
#include <perdure/replication.h>
#include <perdure/savevm.h>

static bool out_of_turn(Error **errp)
{
    error_setg(errp, "a section of a machine's state came out of turn");
    return false;
}

static void on_broken_lane(void *session, const char *why)
{
    link_down(&((struct session *)session)->link, why);
}

static bool make_lanes(struct backup *b, Error **errp)
{
    unsigned count = link_lanes(&b->s->link);

    if (!count)
        return true;
    b->lanes = lanes_new(b->s->link.lanes, count, on_broken_lane, b->s, errp);
    ram_state_set_lanes(b->e->guest, b->lanes);
    return b->lanes;
}

void incoming_free_lanes(struct backup *b)
{
    lanes_free(b->lanes);
    b->lanes = NULL;
}

static bool begin(struct backup *b, Error **errp)
{
    if (b->loading)
        return true;
    b->loading = true; /* also after a failure: some may be set up */
    task_set_pace(TASK_BEHIND);
    return make_lanes(b, errp) && perdure_loadvm_begin(b->s->in, errp);
}

/* Whoever touches what is missing is heard from now on: the devices' load may. */
static bool hear_touches(struct backup *b, Error **errp)
{
    if (b->fetch.missing || !ram_postcopy_missing(b->e->guest))
        return true;
    incoming_free_lanes(b); /* what is pushed does without */
    return fetch_start(b, errp);
}

bool incoming_section(struct backup *b, uint16_t type, uint64_t id, Error **errp)
{
    bool more = type == PERDURE_RECORD_SECTION_PART || type == PERDURE_RECORD_SECTION_END;

    if (!backup_is_destination(b) || !b->replicating) {
        if (!b->loaded || !fetch_is_permitted(b) || !more)
            return out_of_turn(errp);
    } else if (b->loaded) {
        return out_of_turn(errp);
    }
    if (!begin(b, errp))
        return false;
    if (type == PERDURE_RECORD_SECTION_FULL)
        return intake_device(b, errp);
    return perdure_loadvm_record(b->s->in, type, id, errp) && hear_touches(b, errp);
}

static bool load_devices(struct backup *b, Error **errp)
{
    VMStream *f = vmstream_reopen_memory(b->devices);
    uint16_t type;
    uint64_t id;
    bool ok = true;

    if (!f) {
        error_setg(errp, "out of memory");
        return false;
    }
    while (ok && perdure_stream_next(f, &type, &id))
        ok = perdure_loadvm_record(f, type, id, errp);
    ok = ok && !perdure_stream_error(f, errp);
    perdure_stream_close(f);
    return ok;
}

/* In postcopy some memory may still be missing, and the load goes on after the switch. */
static bool complete(struct backup *b, Error **errp)
{
    if (b->fetch.missing) {
        missing_seal(b->fetch.missing);
        return perdure_loadvm_may_run(errp);
    }
    if (!perdure_loadvm_complete(errp))
        return false;
    b->loading = false;
    return perdure_loadvm_cleanup(errp);
}

/* Its disks are those of the state too: all that was forwarded is on the medium, and the records say so. */
static bool settle_disks(struct backup *b, Error **errp)
{
    return replication_get_error_all(errp) && replication_do_checkpoint_all(errp) &&
           session_mark_disks(b->s, GUEST_DISKS_STANDBY, errp);
}

bool incoming_state_end(struct backup *b, Error **errp)
{
    if (!wire_done(b->s->in, errp))
        return false;
    if (b->loaded && fetch_is_permitted(b))
        return fetch_finish(b, errp);
    if (!backup_is_destination(b) || !b->replicating || b->loaded)
        return out_of_turn(errp);
    if (!b->loading) {
        error_setg(errp, "the machine's state is empty");
        return false;
    }
    task_set_pace(TASK_NORMAL);
    b->loaded = (!b->lanes || lanes_end(b->lanes, errp)) && load_devices(b, errp) && complete(b, errp) &&
                settle_disks(b, errp);
    return b->loaded && wire_send(b->s->out, WIRE_LOADED, 0, errp);
}

void incoming_close(struct backup *b)
{
    fetch_stop(b);
    if (b->loading)
        perdure_loadvm_cleanup(NULL);
    b->loading = false;
}
