/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The replication registry: a list in the order of registration, and walks that survive a component's going.
 *
 * A walk stands in the list by two pointers, the component being called and the one to be called next. It is
 * linked into the registry, so that replication_remove() can move both away from what it frees. Components
 * that register during a walk are not part of it: their serial is larger than that of the newest when the
 * walk began.
 */
#include <perdure/replication.h>

#include "registry/context.h"
#include <assert.h>
#include <stdlib.h>

struct replication_walk {
    ReplicationState *at, *next;
    uint64_t newest;
    bool backward;
    struct replication_walk *outer;
};

static struct replication_list *list(void)
{
    return &registry_context_current()->replication;
}

ReplicationState *replication_new(void *opaque, ReplicationOps *ops)
{
    struct replication_list *l = list();
    ReplicationState *rs = calloc(1, sizeof(*rs));

    assert(ops);
    if (!rs)
        return NULL;
    rs->opaque = opaque;
    rs->ops = ops;
    rs->serial = ++l->serial;
    rs->prev = l->last;
    *(l->last ? &l->last->next : &l->first) = rs;
    l->last = rs;
    return rs;
}

static ReplicationState *neighbour(const struct replication_walk *w, const ReplicationState *rs)
{
    return w->backward ? rs->prev : rs->next;
}

void replication_remove(ReplicationState *rs)
{
    struct replication_list *l = list();

    if (!rs)
        return;
    for (struct replication_walk *w = l->walks; w; w = w->outer) {
        if (w->at == rs)
            w->at = NULL;
        if (w->next == rs)
            w->next = neighbour(w, rs);
    }
    *(rs->prev ? &rs->prev->next : &l->first) = rs->next;
    *(rs->next ? &rs->next->prev : &l->last) = rs->prev;
    free(rs);
}

static void walk_begin(struct replication_walk *w, bool backward)
{
    struct replication_list *l = list();

    *w = (struct replication_walk){
        .next = backward ? l->last : l->first,
        .newest = l->serial,
        .backward = backward,
        .outer = l->walks,
    };
    l->walks = w;
}

static ReplicationState *walk_next(struct replication_walk *w)
{
    do {
        w->at = w->next;
        w->next = w->at ? neighbour(w, w->at) : NULL;
    } while (w->at && w->at->serial > w->newest);
    return w->at;
}

static void walk_end(struct replication_walk *w)
{
    assert(list()->walks == w);
    list()->walks = w->outer;
}

/* An operation failed if it says so or if it set an error; one that gave no reason gets one here. Takes err.
 */
static bool verdict(bool ok, Error *err, const char *what, Error **errp)
{
    if (ok && !err)
        return true;
    if (!err)
        error_setg(&err, "a replicating component could not %s and gave no reason", what);
    error_propagate(errp, err);
    return false;
}

/* Undoes what the start_all number `start` has started, last one first. The error that led here is the one
 * reported. */
static void undo_start(uint64_t start)
{
    struct replication_walk w;
    ReplicationState *rs;

    walk_begin(&w, true);
    while ((rs = walk_next(&w))) {
        Error *err = NULL;

        if (rs->started_by != start)
            continue;
        rs->started_by = 0;
        if (rs->ops->stop)
            rs->ops->stop(rs, false, &err);
        error_free(err);
    }
    walk_end(&w);
}

bool replication_start_all(enum ReplicationMode mode, Error **errp)
{
    uint64_t start = ++list()->starts;
    struct replication_walk w;
    ReplicationState *rs;
    bool ok = true;

    walk_begin(&w, false);
    while (ok && (rs = walk_next(&w))) {
        Error *err = NULL;

        if (!rs->ops->start)
            continue;
        ok = rs->ops->start(rs, mode, &err);
        ok = verdict(ok, err, "start", errp);
        if (ok && w.at) /* else it removed itself */
            w.at->started_by = start;
    }
    walk_end(&w);
    if (!ok)
        undo_start(start);
    return ok;
}

bool replication_do_checkpoint_all(Error **errp)
{
    struct replication_walk w;
    ReplicationState *rs;
    bool ok = true;

    walk_begin(&w, false);
    while (ok && (rs = walk_next(&w))) {
        Error *err = NULL;

        if (!rs->ops->checkpoint)
            continue;
        ok = rs->ops->checkpoint(rs, &err);
        ok = verdict(ok, err, "take the checkpoint", errp);
    }
    walk_end(&w);
    return ok;
}

bool replication_get_error_all(Error **errp)
{
    struct replication_walk w;
    ReplicationState *rs;
    bool ok = true;

    walk_begin(&w, false);
    while (ok && (rs = walk_next(&w))) {
        Error *err = NULL;

        if (!rs->ops->get_error)
            continue;
        ok = rs->ops->get_error(rs, &err);
        ok = verdict(ok, err, "go on", errp);
    }
    walk_end(&w);
    return ok;
}

bool replication_stop_all(bool failover, Error **errp)
{
    struct replication_walk w;
    ReplicationState *rs;
    Error *first = NULL;
    bool ok = true;

    walk_begin(&w, false);
    while ((rs = walk_next(&w))) {
        Error *err = NULL;
        bool stopped;

        rs->started_by = 0;
        if (!rs->ops->stop)
            continue;
        stopped = rs->ops->stop(rs, failover, &err);
        ok &= verdict(stopped, err, "stop", &first);
    }
    walk_end(&w);
    error_propagate(errp, first);
    return ok;
}
