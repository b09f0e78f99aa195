/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream/lanes.h"
#include "base/task.h"
#include "stream/vmstream.h"
#include <perdure/savevm.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct lane {
    Lanes *lanes;
    unsigned number;
    Channel *ch;
    VMStream *f;
    Task *task;
    uint64_t come, begun, done; /* shares; under the lock */
};

struct Lanes {
    unsigned count;
    struct lane lane[LANES_MAX];
    enum lanes_direction direction;
    void (*work)(void *opaque, VMStream *f, unsigned lane);
    void *opaque;
    void (*broken)(void *opaque, const char *why);
    void *broken_opaque;
    struct task_mutex lock; /* all that follows */
    struct task_cond changed;
    uint64_t over;   /* so many parts of the main stream are */
    uint64_t shared; /* writing: the last part that was to be shared */
    bool ended;
    Error *err;
};

/* Lock held. */
static void take_error(Lanes *l, Error *err)
{
    error_propagate(&l->err, err);
    task_broadcast(&l->changed);
}

static bool check(Lanes *l, Error **errp)
{
    if (l->err && errp)
        error_propagate(errp, error_copy(l->err));
    return !l->err;
}

/* --- a task that writes --- */

/* 0: there will be none. */
static uint64_t await_share(struct lane *lane)
{
    Lanes *l = lane->lanes;
    uint64_t part;

    task_lock(&l->lock);
    while (lane->done == l->shared && !l->ended)
        task_wait(&l->changed, &l->lock);
    part = lane->done == l->shared ? 0 : l->shared;
    task_unlock(&l->lock);
    return part;
}

static bool put_share(struct lane *lane, uint64_t part, Error **errp)
{
    perdure_stream_begin(lane->f, PERDURE_RECORD_SECTION_SHARE, part);
    lane->lanes->work(lane->lanes->opaque, lane->f, lane->number);
    perdure_stream_end(lane->f);
    return perdure_stream_flush(lane->f, errp);
}

static void put_run(void *opaque)
{
    struct lane *lane = opaque;
    Lanes *l = lane->lanes;
    uint64_t part;

    while ((part = await_share(lane))) {
        Error *err = NULL;

        put_share(lane, part, &err);
        task_lock(&l->lock);
        lane->done = part;
        if (err)
            take_error(l, err);
        task_broadcast(&l->changed);
        task_unlock(&l->lock);
    }
}

/* --- a task that reads --- */

static bool next_record(VMStream *f, uint16_t *type, uint64_t *part, Error **errp)
{
    while (perdure_stream_next(f, type, part)) {
        if (!(*type & PERDURE_RECORD_OPTIONAL))
            return true;
        perdure_stream_skip(f);
    }
    perdure_stream_set_error(f, -ECONNRESET, "the other side closed the connection");
    perdure_stream_error(f, errp);
    return false;
}

/* Lock held. A share of that part, which has come, may be taken in. */
static bool may_begin(struct lane *lane, uint64_t part, Error **errp)
{
    Lanes *l = lane->lanes;

    if (part <= lane->done || part <= l->over) {
        error_setg(errp, "a share of part %" PRIu64 " comes again, or late", part);
        return false;
    }
    lane->come = part;
    task_broadcast(&l->changed);
    while (part > l->over + 1 && !l->ended && !l->err)
        task_wait(&l->changed, &l->lock);
    if (!l->ended && !l->err) {
        lane->begun = part;
        return true;
    }
    error_setg(errp, "a share of part %" PRIu64 " has come, which there is not", part);
    return false;
}

static bool begin_share(struct lane *lane, uint64_t part, Error **errp)
{
    bool ok;

    task_lock(&lane->lanes->lock);
    ok = may_begin(lane, part, errp);
    task_unlock(&lane->lanes->lock);
    return ok;
}

static bool take_share(struct lane *lane, Error **errp)
{
    Lanes *l = lane->lanes;
    uint16_t type;
    uint64_t part;

    if (!next_record(lane->f, &type, &part, errp))
        return false;
    if (type != PERDURE_RECORD_SECTION_SHARE) {
        error_setg(errp, "unexpected record of type 0x%x beside the main stream", type);
        return false;
    }
    if (!begin_share(lane, part, errp))
        return false;
    l->work(l->opaque, lane->f, lane->number);
    perdure_stream_done(lane->f);
    if (perdure_stream_error(lane->f, errp))
        return false;
    task_lock(&l->lock);
    lane->done = part;
    task_broadcast(&l->changed);
    task_unlock(&l->lock);
    return true;
}

/* An end that was to be expected is none of a link. */
static bool is_end(const Lanes *l, const Error *err)
{
    int errnum = error_get_errno(err);

    return l->ended && (errnum == ECONNRESET || errnum == ECANCELED || errnum == EPIPE);
}

static void take_run(void *opaque)
{
    struct lane *lane = opaque;
    Lanes *l = lane->lanes;
    char why[256] = "";
    Error *err = NULL;

    while (take_share(lane, &err))
        ;
    task_lock(&l->lock);
    if (!l->err && !is_end(l, err))
        snprintf(why, sizeof(why), "channel %u: %s", lane->number + 1, error_get_pretty(err));
    error_prepend(&err, "channel %u: ", lane->number + 1);
    take_error(l, err);
    task_unlock(&l->lock);
    if (why[0] && l->broken)
        l->broken(l->broken_opaque, why);
}

/* --- the main stream's task --- */

unsigned lanes_count(const Lanes *l)
{
    return l ? l->count : 0;
}

void lanes_share(Lanes *l)
{
    assert(l->direction == LANES_PUT);
    task_lock(&l->lock);
    l->shared = l->over + 1;
    task_broadcast(&l->changed);
    task_unlock(&l->lock);
}

/* Lock held. */
static bool all_have(const Lanes *l, uint64_t part)
{
    for (unsigned i = 0; i < l->count; i++)
        if (l->lane[i].done < part)
            return false;
    return true;
}

/* A lane that writes comes back in any case, and has to: what it writes is its user's. */
/* Lock held. Shares come in order: who has one of a later part has none of this one. */
static void refuse_gaps(Lanes *l, uint64_t part)
{
    for (unsigned i = 0; i < l->count && !l->err; i++)
        if (l->lane[i].done < part && l->lane[i].come > part)
            error_setg(&l->err, "channel %u: there is no share of part %" PRIu64, i + 1, part);
}

bool lanes_join(Lanes *l, Error **errp)
{
    bool ok;

    task_lock(&l->lock);
    while (!all_have(l, l->over + 1) && (l->direction == LANES_PUT || !l->err)) {
        if (l->direction == LANES_TAKE)
            refuse_gaps(l, l->over + 1);
        if (!l->err || l->direction == LANES_PUT)
            task_wait(&l->changed, &l->lock);
    }
    ok = check(l, errp);
    l->over++;
    task_broadcast(&l->changed);
    task_unlock(&l->lock);
    return ok;
}

/* Lock held. The part at hand has no shares. */
static void refuse_shares(Lanes *l)
{
    for (unsigned i = 0; i < l->count && !l->err; i++)
        if (l->lane[i].begun > l->over)
            error_setg(&l->err, "channel %u: a share of part %" PRIu64 ", which is not shared", i + 1,
                       l->lane[i].begun);
}

bool lanes_skip(Lanes *l, Error **errp)
{
    bool ok;

    task_lock(&l->lock);
    refuse_shares(l);
    ok = check(l, errp);
    l->over++;
    task_broadcast(&l->changed);
    task_unlock(&l->lock);
    return ok;
}

bool lanes_end(Lanes *l, Error **errp)
{
    bool ok;

    task_lock(&l->lock);
    refuse_shares(l);
    ok = l->ended || check(l, errp);
    l->ended = true;
    task_broadcast(&l->changed);
    task_unlock(&l->lock);
    return ok;
}

uint64_t lanes_bytes(const Lanes *l)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < lanes_count(l); i++)
        bytes +=
            l->lane[i].f ? perdure_stream_bytes(l->lane[i].f) : 0; /* not every lane may have been started */
    return bytes;
}

/* --- life --- */

Lanes *lanes_new(Channel *const *channels, unsigned count, void (*broken)(void *opaque, const char *why),
                 void *opaque, Error **errp)
{
    Lanes *l = calloc(1, sizeof(*l));

    assert(count && count <= LANES_MAX);
    if (!l) {
        error_setg_errno(errp, ENOMEM, "channels");
        return NULL;
    }
    l->count = count;
    l->broken = broken;
    l->broken_opaque = opaque;
    task_mutex_init(&l->lock);
    task_cond_init(&l->changed);
    for (unsigned i = 0; i < count; i++)
        l->lane[i] = (struct lane){.lanes = l, .number = i, .ch = channels[i]};
    return l;
}

static bool start_lane(struct lane *lane, enum lanes_direction d, Error **errp)
{
    char name[16];

    lane->f = d == LANES_PUT ? vmstream_new_writer(lane->ch) : vmstream_new_reader(lane->ch);
    if (!lane->f) {
        error_setg_errno(errp, ENOMEM, "a stream over a channel");
        return false;
    }
    snprintf(name, sizeof(name), "channel-%u", lane->number + 1);
    lane->task = task_start(name, d == LANES_PUT ? put_run : take_run, lane, errp);
    return lane->task;
}

bool lanes_start(Lanes *l, enum lanes_direction d, void (*work)(void *opaque, VMStream *f, unsigned lane),
                 void *opaque, Error **errp)
{
    bool ok = true;

    assert(!l->work);
    l->direction = d;
    l->work = work;
    l->opaque = opaque;
    for (unsigned i = 0; i < l->count && ok; i++)
        ok = start_lane(&l->lane[i], d, errp);
    return ok;
}

void lanes_free(Lanes *l)
{
    if (!l)
        return;
    lanes_end(l, NULL);
    for (unsigned i = 0; i < l->count; i++) {
        channel_shutdown(l->lane[i].ch);
        task_join(l->lane[i].task);
        perdure_stream_close(l->lane[i].f);
    }
    error_free(l->err);
    task_cond_destroy(&l->changed);
    task_mutex_destroy(&l->lock);
    free(l);
}
