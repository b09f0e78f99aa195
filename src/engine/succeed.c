/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The successor of a backup that moves (successor.h), its half: until it is told otherwise it is fed by the other backup, as by
 * a primary, and never claims. Then the primary's connections, which have come meanwhile, take that one's place.
 */
#include "engine/backup.h"

#include <inttypes.h>
#include <stdio.h>

#define ARRIVAL_LIMIT (10 * NS_PER_S)

static void want(struct backup *b, unsigned kinds)
{
    task_lock(&b->e->lock);
    b->s->arrived.wanted = kinds;
    task_unlock(&b->e->lock);
}

void succeed_await(struct backup *b)
{
    want(b, 1u << WIRE_KIND_HEARTBEAT | 1u << WIRE_KIND_FOLLOW);
}

static void set_peer(struct backup *b, const char *peer)
{
    task_lock(&b->e->lock);
    snprintf(b->s->peer, sizeof(b->s->peer), "%s", peer);
    snprintf(b->e->peer, sizeof(b->e->peer), "%s", peer);
    task_unlock(&b->e->lock);
}

/* Until the predecessor has read the answer. Should it die now, the primary must hear this side before it gives both up. */
static void let_it_read(struct session *s)
{
    int64_t quarter = s->hello.timeout_ns / 4;

    session_linger(s, quarter < SESSION_LINGER / 2 ? quarter : SESSION_LINGER / 2);
}

/* The predecessor has said its last word. */
static bool change_links(struct backup *b, Channel *primary, Error **errp)
{
    wire_send(b->s->out, WIRE_SUCCEEDED, b->epoch, NULL);
    let_it_read(b->s);
    set_peer(b, primary->peer);
    link_down(&b->s->link, "the backup has handed over to this one");
    if (!session_relink(b->s, primary, errp) || !backup_take_connections(b, errp))
        return false;
    want(b, 0);
    return wire_send(b->s->out, WIRE_SUCCEEDED, b->epoch, errp);
}

bool succeed(struct backup *b, uint64_t epoch, Error **errp)
{
    Channel *primary;

    if (!wire_done(b->s->in, errp))
        return false;
    if (!backup_is_successor(b) || !b->epoch || epoch != b->epoch) {
        error_setg(errp, "this side was told out of turn that it is the backup, of epoch %" PRIu64, epoch);
        return false;
    }
    primary = session_await(b->s, WIRE_KIND_FOLLOW, 0, clock_now() + ARRIVAL_LIMIT, errp);
    if (!primary)
        return false;
    b->s->hello.kind = WIRE_KIND_MAIN;
    backup_become_standby(b, "the backup before has handed over");
    return change_links(b, primary, errp);
}
