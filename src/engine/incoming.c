/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Live migration, the destination's half: sections go into the machine as they come, since nothing runs here. A state
 * that was cut, or does not fit, leaves a machine that is thrown away.
 */
#include "engine/backup.h"
#include <perdure/replication.h>
#include <perdure/savevm.h>

static bool in_turn(struct backup *b, Error **errp)
{
    if (backup_is_destination(b) && b->replicating && !b->loaded)
        return true;
    error_setg(errp, "a section of a machine's state came out of turn");
    return false;
}

bool incoming_section(struct backup *b, uint16_t type, uint64_t id, Error **errp)
{
    if (!in_turn(b, errp))
        return false;
    if (!b->loading) {
        b->loading = true; /* also after a failure: some may be set up */
        if (!perdure_loadvm_begin(b->s->in, errp))
            return false;
    }
    return perdure_loadvm_record(b->s->in, type, id, errp);
}

/* Its disks are those of the state too: all that was forwarded is on the medium, and the records say so. */
static bool settle_disks(struct backup *b, Error **errp)
{
    return replication_get_error_all(errp) && replication_do_checkpoint_all(errp) &&
           session_mark_disks(b->s, GUEST_DISKS_STANDBY, errp);
}

bool incoming_state_end(struct backup *b, Error **errp)
{
    if (!wire_done(b->s->in, errp) || !in_turn(b, errp))
        return false;
    if (!b->loading) {
        error_setg(errp, "the machine's state is empty");
        return false;
    }
    b->loading = false;
    if (!perdure_loadvm_complete(errp)) {
        perdure_loadvm_cleanup(NULL);
        return false;
    }
    b->loaded = perdure_loadvm_cleanup(errp) && settle_disks(b, errp);
    return b->loaded && wire_send(b->s->out, WIRE_LOADED, 0, errp);
}

void incoming_close(struct backup *b)
{
    if (b->loading)
        perdure_loadvm_cleanup(NULL);
    b->loading = false;
}
