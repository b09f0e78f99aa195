/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The primary's half of a backup's move (successor.h): it asks for it if its user does, and follows. Between two epochs, the
 * guest running and its output held; the running epoch goes on with the successor, which heard from the old backup what was
 * sent of it so far.
 */
#include "engine/primary.h"

#include <stdio.h>
#include <string.h>

#define SUCCEED_LIMIT (5 * NS_PER_S)
#define GRACE_MAX     NS_PER_S /* the old backup has spoken, or is gone: the successor may be about to */
#define LOOK          NS_PER_MS

/* Of what this side's user asked for. */
static void note_outcome(struct primary *p, enum engine_migration_outcome outcome)
{
    task_lock(&p->e->lock);
    if (p->asked_to_move) {
        p->e->migration.outcome = outcome;
        p->e->migration.ended = clock_now();
    }
    task_broadcast(&p->e->changed);
    task_unlock(&p->e->lock);
    p->asked_to_move = false;
}

/* Takes err. */
static void note_stays(struct primary *p, Error *err)
{
    engine_note_error(p->e, err);
    error_free(err);
    note_outcome(p, ENGINE_MIGRATION_FAILED);
}

/* --- what comes before an ack --- */

static bool hear_not_moved(struct primary *p, Error **errp)
{
    char text[WIRE_TEXT_MAX];
    Error *err = NULL;

    if (!wire_get_text(p->s->in, text, errp))
        return false;
    error_setg(&err, "%s", text);
    note_stays(p, err);
    return true;
}

/* Nobody asked it to move. */
static bool hear_out_of_turn(Error **errp)
{
    error_setg(errp, "the backup says out of turn what becomes of its move");
    return false;
}

static bool hear_moved(struct primary *p, Error **errp)
{
    char to[WIRE_TEXT_MAX];

    if (!wire_get_text(p->s->in, to, errp))
        return false;
    if (to[0] && strlen(to) < sizeof(p->moved_to) && !p->moved_to[0] && p->epoch > 1) {
        snprintf(p->moved_to, sizeof(p->moved_to), "%s", to);
        return true;
    }
    error_setg(errp, "the backup says that it has moved, and makes no sense");
    return false;
}

bool follow_expect_ack(struct primary *p, uint64_t *epoch, Error **errp)
{
    uint16_t type;

    while (wire_next(p->s->in, &type, epoch, errp)) {
        if (type != WIRE_MOVED && type != WIRE_NOT_MOVED)
            return primary_take(p, type, WIRE_ACK, errp);
        if (type == WIRE_MOVED ? !hear_moved(p, errp)
            : p->asked_to_move ? !hear_not_moved(p, errp)
                               : !hear_out_of_turn(errp))
            return false;
    }
    return false;
}

/* --- to the successor --- */

static struct session *connect_successor(struct primary *p, Error **errp)
{
    struct wire_hello hello = p->s->hello;
    struct session *t;

    hello.kind = WIRE_KIND_FOLLOW;
    t = session_follow(p->e, p->moved_to, &hello, errp);
    if (t)
        t->hello.kind = WIRE_KIND_MAIN; /* what it becomes */
    return t;
}

static bool stay(struct primary *p, Error *err, Error **errp)
{
    bool ok = wire_send_text(p->s->out, WIRE_STAY, error_get_pretty(err), errp);

    error_prepend(&err, "the backup moved to %s, and cannot be reached there: ", p->moved_to);
    note_stays(p, err);
    return ok;
}

/* Somebody has something to say, or the time is up. */
static void wait_for_word(struct primary *p, struct session *t)
{
    int64_t until = clock_now() + SUCCEED_LIMIT;

    while (!vmstream_has_begun(t->in) && !vmstream_has_begun(p->s->in) && clock_now() < until &&
           !engine_wishes(p->e).quit)
        task_sleep_until(clock_now() + LOOK);
}

/* It lets the old backup read its answer first, for half of that (succeed.c). */
static int64_t grace(const struct session *t)
{
    int64_t half = t->hello.timeout_ns / 2;

    return half < GRACE_MAX ? half : GRACE_MAX;
}

static bool hear_successor(struct primary *p, struct session *t, Error **errp)
{
    uint16_t type;
    uint64_t epoch;

    wait_for_word(p, t);
    session_set_limit(t, vmstream_has_begun(t->in) ? SUCCEED_LIMIT : grace(t));
    if (!wire_next(t->in, &type, &epoch, errp) ||
        (type != WIRE_SUCCEEDED && !session_greeted(t->in, type, WIRE_SUCCEEDED, errp)) ||
        !wire_done(t->in, errp))
        return false;
    if (epoch == p->epoch)
        return true;
    error_setg(errp, "the successor holds another epoch than the backup did");
    return false;
}

/* The successor said nothing: is the old backup one still? By its own word; anything else is for the arbiter. Takes err. */
static bool hear_predecessor(struct primary *p, Error *err, Error **errp)
{
    uint16_t type;
    uint64_t id;
    bool stays;

    session_set_limit(p->s, SUCCEED_LIMIT);
    stays = wire_next(p->s->in, &type, &id, NULL) && type == WIRE_NOT_MOVED && hear_not_moved(p, NULL);
    session_set_limit(p->s, TIME_NEVER);
    if (stays) {
        error_free(err);
        return true;
    }
    note_outcome(p, ENGINE_MIGRATION_FAILED);
    error_prepend(&err, "the backup was let go, and its successor cannot be heard: ");
    link_down(&p->s->link, error_get_pretty(err));
    error_propagate(errp, err);
    return false;
}

/* The successor's session takes the place of the old one, in the engine too. */
static struct session *exchange(struct primary *p, struct session *t)
{
    Engine *e = p->e;
    struct session *old = p->s;

    t->freer = old->freer;
    old->freer = NULL;
    t->arbiter = old->arbiter;
    old->arbiter = NULL;
    t->swapped = old->swapped;
    t->last_ack = old->last_ack;
    task_lock(&e->lock);
    while (e->taking_down)
        task_wait(&e->changed, &e->lock);
    e->session = p->s = t;
    snprintf(e->peer, sizeof(e->peer), "%s", t->peer);
    task_unlock(&e->lock);
    return old;
}

static void take(struct primary *p, struct session *t)
{
    struct session *old = exchange(p, t);
    Error *err = NULL;

    if (engine_wishes(p->e).quit) /* whose end of the link was that of the old one */
        link_down(&t->link, "the engine was told to quit");
    if (!link_start(&t->link, true, &err))
        link_down(&t->link, error_get_pretty(err));
    error_free(err);
    link_down(&old->link, "the backup has moved");
    session_free(old);
    p->handover = false; /* the old backup's user wanted it */
    session_try_mark_disks(t, GUEST_DISKS_PRIMARY);
    note_outcome(p, ENGINE_MIGRATION_COMPLETED);
    engine_event(p->e, "MIGRATION", "the backup has moved to %s", t->peer);
}

/* Should this host lose power now, either of them may have gone on. */
static void mark_both(struct primary *p, struct session *t)
{
    char there[sizeof(t->peer)];

    memcpy(there, t->peer, sizeof(there));
    snprintf(t->peer, sizeof(t->peer), "%.120s or %.120s", there, p->s->peer);
    session_try_mark_disks(t, GUEST_DISKS_PRIMARY);
    memcpy(t->peer, there, sizeof(there));
}

static bool let_go(struct primary *p, struct session *t, Error **errp)
{
    Error *err = NULL;

    mark_both(p, t);
    if (!wire_send(p->s->out, WIRE_LET_GO, 0, errp)) {
        session_free(t);
        return false;
    }
    if (hear_successor(p, t, &err)) {
        take(p, t);
        return true;
    }
    session_free(t);
    return hear_predecessor(p, err, errp);
}

static bool follow(struct primary *p, Error **errp)
{
    Error *err = NULL;
    struct session *t = connect_successor(p, &err);
    bool ok = t ? let_go(p, t, errp) : stay(p, err, errp);

    p->moved_to[0] = 0;
    return ok;
}

/* The user at this side wants it. */
static bool take_wish(struct primary *p, char to[256])
{
    Engine *e = p->e;
    bool wished;

    task_lock(&e->lock);
    wished = e->wish.move &&
             e->role == ENGINE_PRIMARY; /* after a swap it is the backup's, which this side is then */
    if (wished)
        e->wish.move = false;
    memcpy(to, e->move_to, sizeof(e->move_to));
    if (wished)
        e->migration.outcome = ENGINE_MIGRATION_ACTIVE;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
    p->asked_to_move |= wished;
    return wished;
}

void follow_end(struct primary *p)
{
    char to[256];

    take_wish(p, to);
    if (p->asked_to_move) {
        task_lock(&p->e->lock);
        snprintf(p->e->last_error, sizeof(p->e->last_error), "protection ended before the backup had moved");
        task_unlock(&p->e->lock);
    }
    note_outcome(p, ENGINE_MIGRATION_FAILED);
}

/* --- between epochs --- */

bool follow_step(struct primary *p, Error **errp)
{
    char to[256];

    if (p->moved_to[0] && !follow(p, errp))
        return false;
    return !take_wish(p, to) || wire_send_text(p->s->out, WIRE_MOVE, to, errp);
}
