/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Swap, the primary's half: pause for good, one last epoch, the permission to run. Until the permission is
 * sent the guest may go on here after any failure. From then on only the backup's word that it did not start
 * lets it, or a claim: the backup claims before it says that it runs, so that one of the two answers is
 * "denied". Then this side is the standby of the next generation, with the same state that the other one begins with.
 */
#include "engine/primary.h"
#include "engine/state.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define SETTLE_LIMIT  (50 * NS_PER_MS) /* what waits for the end of an epoch goes on after one */
#define SETTLED_LIMIT (2 * NS_PER_S)   /* and with it the guest, which stands still */

static void forget_wish(struct primary *p)
{
    task_lock(&p->e->lock);
    p->e->wish.swap = false;
    task_broadcast(&p->e->changed);
    task_unlock(&p->e->lock);
}

/* Until the other side's first epoch the standby's state is the one that both sides begin with: its RAM and its
 * disks are here, and so are its devices, as they were sent. */
static bool keep_state(struct primary *p, Error **errp)
{
    if (!p->g->ops->clear(p->g, true, errp))
        return false;
    p->s->last_devices = p->devices;
    p->devices = NULL;
    return true;
}

/* The guest is the other side's, and this one its standby from here on. */
static bool become_backup(struct primary *p, Error **errp)
{
    Engine *e = p->e;
    bool ok;

    primary_give_away(p);
    ok = engine_wishes(e).leave || keep_state(p, errp);
    task_lock(&e->lock);
    e->generation++;
    e->epoch = 0;
    e->last_error[0] = 0;
    memset(&e->figures, 0, sizeof(e->figures));
    task_unlock(&e->lock);
    engine_set_state(e, ENGINE_BACKUP, ENGINE_STANDBY, "swap: the guest is the other side's");
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

/* *ret_more: an epoch was sent, and it was not the last one. */
static bool send_one(struct primary *p, bool *ret_more, Error **errp)
{
    const struct guest_ops *ops = p->g->ops;
    bool settled = !ops->finish_writes || ops->finish_writes(p->g, clock_now() + SETTLE_LIMIT);

    if (!epoch_run(p, WIRE_END_SWAP, errp))
        return false;
    *ret_more = !settled || p->request == GUEST_REQUEST_RESET;
    return p->request != GUEST_REQUEST_RESET || ops->reset(p->g, errp);
}

/* The two sides must be equal after it: a write that is under way is on this side's disk only, and it is this side's
 * place to reset a guest that has asked for it. */
static bool send_last(struct primary *p, bool *ret_settled, Error **errp)
{
    int64_t until = clock_now() + SETTLED_LIMIT;
    bool more = true;

    if (!primary_pause(p, errp))
        return false;
    while (more) {
        if (!send_one(p, &more, errp))
            return false;
        *ret_settled = !more || clock_now() < until;
        if (!*ret_settled)
            return true;
    }
    return true;
}

/* Nothing was handed over. */
static bool stay(struct primary *p)
{
    Error *err = NULL;

    error_setg(&err, "the guest's disks do not end the writes that are under way");
    engine_note_error(p->e, err);
    error_free(err);
    p->handover = false;
    if (p->request == GUEST_REQUEST_RESET) /* it was */
        p->request = GUEST_REQUEST_NONE;
    primary_resume(p);
    return true;
}

static bool hand_over(struct primary *p, bool *ret_settled, Error **errp)
{
    if (!send_last(p, ret_settled, errp))
        return false;
    if (!*ret_settled)
        return stay(p);
    if (p->request == GUEST_REQUEST_POWEROFF || p->request == GUEST_REQUEST_PANIC) {
        p->end = SESSION_GUEST_ENDED; /* there is nothing left to hand over */
        return false;
    }
    return primary_permit(p, errp);
}

bool primary_swap(struct primary *p, Error **errp)
{
    bool settled = true, ok = hand_over(p, &settled, errp);

    if (ok && !settled) {
        forget_wish(p);
    } else if (ok) {
        p->end = SESSION_SWAPPED;
        ok = become_backup(p, errp);
        forget_wish(p);
    } /* else whoever waits learns it from the session's end, and then why */
    return ok;
}
