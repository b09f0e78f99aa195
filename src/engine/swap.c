/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Swap, the primary's half: pause for good, one last epoch, the permission to run. Until the permission is
 * sent the guest may go on here after any failure. From then on only the backup's word that it did not start
 * lets it, or a claim: the backup claims before its first instruction, so that one of the two answers is
 * "denied".
 */
#include "engine/primary.h"
#include "engine/state.h"

#include <errno.h>
#include <inttypes.h>

static void forget_wish(struct primary *p)
{
    task_lock(&p->e->lock);
    p->e->wish.swap = false;
    task_broadcast(&p->e->changed);
    task_unlock(&p->e->lock);
}

/* The other side runs: this machine becomes an empty standby. */
static bool become_backup(struct primary *p, Error **errp)
{
    Engine *e = p->e;
    bool ok;

    primary_give_away(p);
    ok = p->g->ops->clear(p->g, false, errp);
    task_lock(&e->lock);
    e->generation++;
    e->epoch = 0;
    task_unlock(&e->lock);
    engine_set_state(e, ENGINE_BACKUP, ENGINE_LISTENING, "swap: the other side runs");
    return ok;
}

static bool not_started(struct primary *p, Error **errp)
{
    char text[WIRE_TEXT_MAX];

    if (!wire_get_text(p->s->in, text, errp))
        return false;
    p->permitted = false;
    p->peer_failed = true; /* it gave up the generation */
    error_setg(errp, "the other side could not take over: %s", text);
    return false;
}

static bool await_running(struct primary *p, Error **errp)
{
    uint16_t type;
    uint64_t id;

    if (!wire_next(p->s->in, &type, &id, errp))
        return false;
    if (type == WIRE_NOT_STARTED)
        return not_started(p, errp);
    if (type != WIRE_RUNNING)
        wire_unexpected(p->s->in, type, "waiting for the other side to run");
    else if (id != p->s->hello.generation + 1)
        perdure_stream_set_error(
            p->s->in, -EBADMSG, "the other side says that it runs in generation %" PRIu64 ", not in %" PRIu64,
            id, p->s->hello.generation + 1);
    return wire_done(p->s->in, errp);
}

bool primary_permit(struct primary *p, Error **errp)
{
    bool ok;

    session_set_limit(p->s, PRIMARY_ANSWER_LIMIT);
    p->permitted = true;
    ok = wire_send(p->s->out, WIRE_RUN, p->epoch, errp) && await_running(p, errp);
    session_set_limit(p->s, TIME_NEVER);
    return ok;
}

static bool hand_over(struct primary *p, Error **errp)
{
    if (!epoch_run(p, WIRE_END_SWAP, errp))
        return false;
    if (p->request == GUEST_REQUEST_POWEROFF || p->request == GUEST_REQUEST_PANIC) {
        p->end = SESSION_GUEST_ENDED; /* there is nothing left to hand over */
        return false;
    }
    return primary_permit(p, errp);
}

bool primary_swap(struct primary *p, Error **errp)
{
    bool ok = hand_over(p, errp);

    if (ok) {
        p->end = SESSION_SWAPPED;
        ok = become_backup(p, errp);
        if (!ok) /* of no use as a standby: the new primary finds the link closed */
            link_down(&p->s->link, "the old primary could not be cleared");
        forget_wish(p);
    } /* else whoever waits learns it from the session's end, and then why */
    return ok;
}
