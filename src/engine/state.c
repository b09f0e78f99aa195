/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/state.h"
#include "engine/engine_private.h"
#include "base/log.h"

#include <assert.h>

#define PRIMARY(from, to, when)                                                                              \
    {                                                                                                        \
        ENGINE_PRIMARY, ENGINE_##from, ENGINE_PRIMARY, ENGINE_##to, when                                     \
    }
#define BACKUP(from, to, when)                                                                               \
    {                                                                                                        \
        ENGINE_BACKUP, ENGINE_##from, ENGINE_BACKUP, ENGINE_##to, when                                       \
    }

const struct engine_transition engine_transitions[] = {
    PRIMARY(UNPROTECTED, SYNCING, "protect: the backup accepted the configuration"),
    PRIMARY(SYNCING, PROTECTED, "the first epoch is acknowledged"),
    PRIMARY(SYNCING, UNPROTECTED,
            "given up before the first epoch was sent, or in agreement with the backup"),
    PRIMARY(SYNCING, ASKING, "the link was lost after the first epoch was sent"),
    PRIMARY(PROTECTED, UNPROTECTED,
            "unprotect, the end of the guest, or a failure, in agreement with the backup"),
    PRIMARY(PROTECTED, ASKING, "the link was lost"),
    PRIMARY(ASKING, UNPROTECTED, "granted, or the user vouched"),
    PRIMARY(ASKING, FENCED, "denied"),
    PRIMARY(UNPROTECTED, FENCED, "denied after all, when the user had vouched"),
    {ENGINE_PRIMARY, ENGINE_PROTECTED, ENGINE_BACKUP, ENGINE_STANDBY, "swap: the guest is the other side's"},
    PRIMARY(UNPROTECTED, MIGRATING, "migrate: the destination accepted the configuration"),
    PRIMARY(MIGRATING, UNPROTECTED, "cancelled, or failed, before the destination was permitted to run"),
    PRIMARY(MIGRATING, ASKING, "the link was lost after the permission to run was sent"),
    PRIMARY(MIGRATING, MIGRATED, "the destination runs"),
    PRIMARY(MIGRATING, POSTCOPY, "the destination runs, and fetches memory from here"),
    PRIMARY(ASKING, POSTCOPY_PAUSED, "denied, in postcopy: the destination runs, and lacks memory"),
    PRIMARY(POSTCOPY, POSTCOPY_PAUSED, "the link was lost"),
    PRIMARY(POSTCOPY_PAUSED, POSTCOPY, "the link is back"),
    PRIMARY(POSTCOPY, MIGRATED, "the destination has all memory"),
    PRIMARY(POSTCOPY_PAUSED, MIGRATED, "the destination had all memory before the link was lost"),
    PRIMARY(POSTCOPY, UNPROTECTED, "at the destination: all memory is here"),
    PRIMARY(POSTCOPY_PAUSED, UNPROTECTED, "at the destination: all memory was here before the link was lost"),
    {ENGINE_BACKUP, ENGINE_PROMOTING, ENGINE_PRIMARY, ENGINE_POSTCOPY,
     "the guest runs here, and lacks memory"},
    BACKUP(LISTENING, MIGRATING, "the configuration of a migration was accepted"),
    BACKUP(MIGRATING, LISTENING, "the migration was given up, or failed"),
    BACKUP(MIGRATING, PROMOTING, "the source gave its permission"),
    BACKUP(LISTENING, SYNCING, "a primary's configuration was accepted"),
    BACKUP(SYNCING, LISTENING, "given up before the first epoch was acknowledged"),
    BACKUP(SYNCING, STANDBY, "the first epoch was loaded, compared and acknowledged"),
    BACKUP(STANDBY, LISTENING,
           "the primary ended protection or the guest ended; or this side failed and said so"),
    BACKUP(STANDBY, ASKING, "the link was lost"),
    BACKUP(STANDBY, PROMOTING, "swap: the primary gave its permission"),
    BACKUP(ASKING, PROMOTING, "granted, or the user vouched"),
    BACKUP(ASKING, LISTENING, "denied, or told by the primary that it was granted"),
    BACKUP(PROMOTING, LISTENING, "the state could not be started, or says that the guest ended"),
    {ENGINE_BACKUP, ENGINE_PROMOTING, ENGINE_PRIMARY, ENGINE_UNPROTECTED, "the guest runs here"},
    {ENGINE_BACKUP, ENGINE_PROMOTING, ENGINE_PRIMARY, ENGINE_SYNCING,
     "swap: the guest is this side's, and runs once the other side has acknowledged its first epoch"},
};
const int engine_transition_count = sizeof(engine_transitions) / sizeof(engine_transitions[0]);

const char *engine_role_name(enum engine_role r)
{
    return r == ENGINE_PRIMARY ? "primary" : "backup";
}

const char *engine_state_name(enum engine_state s)
{
    static const char *const names[] = {
        [ENGINE_UNPROTECTED] = "UNPROTECTED", [ENGINE_PROTECTED] = "PROTECTED",
        [ENGINE_FENCED] = "FENCED",           [ENGINE_LISTENING] = "LISTENING",
        [ENGINE_STANDBY] = "STANDBY",         [ENGINE_PROMOTING] = "PROMOTING",
        [ENGINE_SYNCING] = "SYNCING",         [ENGINE_ASKING] = "ASKING",
        [ENGINE_MIGRATING] = "MIGRATING",     [ENGINE_MIGRATED] = "MIGRATED",
        [ENGINE_POSTCOPY] = "POSTCOPY",       [ENGINE_POSTCOPY_PAUSED] = "POSTCOPY_PAUSED",
    };

    return names[s];
}

bool engine_transition_allowed(enum engine_role role, enum engine_state from, enum engine_role new_role,
                               enum engine_state to)
{
    for (int i = 0; i < engine_transition_count; i++) {
        const struct engine_transition *t = &engine_transitions[i];

        if (t->role == role && t->from == from && t->new_role == new_role && t->to == to)
            return true;
    }
    return false;
}

void engine_set_state(Engine *e, enum engine_role role, enum engine_state to, const char *why)
{
    enum engine_role old_role;
    enum engine_state from;
    bool allowed;

    task_lock(&e->lock);
    old_role = e->role;
    from = e->state;
    allowed = engine_transition_allowed(old_role, from, role, to);
    if (allowed) {
        e->role = role;
        e->state = to;
        task_broadcast(&e->changed);
    }
    task_unlock(&e->lock);
    if (!allowed)
        log_warn("%s: refused to go from %s %s to %s %s (%s)", e->vm, engine_role_name(old_role),
                 engine_state_name(from), engine_role_name(role), engine_state_name(to), why);
    assert(allowed);
    engine_event(e, "PERDURE_STATE", "%s %s -> %s%s%s: %s", engine_role_name(old_role),
                 engine_state_name(from), role == old_role ? "" : engine_role_name(role),
                 role == old_role ? "" : " ", engine_state_name(to), why);
}
