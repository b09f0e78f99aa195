/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Live migration, the source's half. The savevm list is walked over the link while the guest runs, pass by pass (RAM is
 * one component of it), then once more with the guest paused, the devices with it. The destination loads all that into
 * its machine, and says so; only then it is permitted to run.
 *
 * Until the permission is sent the guest goes on here after any failure. From then on it is as in a swap: only the
 * destination's word that it did not start lets it, or a claim.
 */
#include "engine/primary.h"
#include "engine/state.h"
#include "guest/ram_state.h"
#include <perdure/replication.h>
#include <perdure/savevm.h>

#define SETTLE_MAX 3

uint64_t precopy_bytes(const struct primary *p)
{
    return perdure_stream_bytes(p->s->out) + lanes_bytes(p->lanes) + p->lane_bytes;
}

static void tell(struct primary *p, uint64_t left)
{
    struct engine_migration *m = &p->e->migration;
    const struct converge *c = &p->converge;

    task_lock(&p->e->lock);
    m->bytes_sent = precopy_bytes(p);
    m->bytes_left = left;
    m->bandwidth = converge_bandwidth(c);
    m->throttle = p->throttled;
    m->packs = packing_is_on(&p->packing);
    m->expected_ns = converge_expected(c, left);
    m->looked = clock_now();
    p->e->figures.sync_pages_left = left / GUEST_PAGE_SIZE;
    task_unlock(&p->e->lock);
}

/* What is left was changed since it began. */
static void tell_pass(struct primary *p, uint64_t left, int64_t began)
{
    struct engine_migration *m = &p->e->migration;
    int64_t took = clock_now() - began;

    task_lock(&p->e->lock);
    m->passes++;
    if (!p->paused && took > 0)
        m->dirty_rate = (uint64_t)((double)left * NS_PER_S / (double)took);
    task_unlock(&p->e->lock);
}

static uint64_t bytes_left(struct primary *p)
{
    uint64_t precopy, any, postcopy;

    perdure_savevm_pending(p->s->out, 0, &precopy, &any, &postcopy);
    return precopy + any + postcopy;
}

/* --- while the guest runs --- */

static bool make_lanes(struct primary *p, Error **errp)
{
    unsigned count = link_lanes(&p->s->link);

    p->lanes = count ? lanes_new(p->s->link.lanes, count, NULL, NULL, errp) : NULL;
    ram_state_set_lanes(p->g, p->lanes);
    return p->lanes || !count;
}

void precopy_free_lanes(struct primary *p)
{
    if (p->lanes)
        p->lane_bytes = lanes_bytes(p->lanes);
    lanes_free(p->lanes);
    p->lanes = NULL;
}

static bool begin(struct primary *p, Error **errp)
{
    p->saving = true; /* also after a failure: some may be set up */
    ram_state_set_live(p->g, true);
    task_set_pace(TASK_BEHIND);
    primary_limit_send(p);
    if (!make_lanes(p, errp) || !perdure_savevm_setup(p->s->out, errp) ||
        !perdure_stream_flush(p->s->out, errp)) /* the destination's lanes wait for it */
        return false;
    p->packing.how = p->s->migrate.packing;
    ram_state_set_packing(p->g, packing_is_on(&p->packing));
    return true;
}

static int64_t deadline(struct primary *p)
{
    int64_t limit = p->s->migrate.deadline_ns;

    return limit ? p->e->migration.began + limit : TIME_NEVER;
}

/* The user may change his mind on the way. */
static void take_changes(struct primary *p)
{
    const struct engine_migrate_params *now = &p->e->migrate_now;
    struct engine_migrate_params *mine = &p->s->migrate;

    task_lock(&p->e->lock);
    mine->downtime_ns = now->downtime_ns;
    mine->deadline_ns = now->deadline_ns;
    mine->on_slow = now->on_slow;
    mine->max_bandwidth = now->max_bandwidth;
    task_unlock(&p->e->lock);
    p->converge.downtime_ns = mine->downtime_ns;
    p->converge.until = deadline(p);
    pace_set(&p->pace, mine->max_bandwidth, clock_now());
}

static void wait_for_turn(struct primary *p)
{
    int64_t until = clock_now() + PACE_SLICE;

    task_lock(&p->e->lock);
    task_wait_until(&p->e->changed, &p->e->lock, p->pace.due < until ? p->pace.due : until);
    task_unlock(&p->e->lock);
}

bool primary_pace(struct primary *p, Error **errp)
{
    uint64_t bytes = precopy_bytes(p);

    if (p->s->hello.kind != WIRE_KIND_MIGRATE)
        return true;
    pace_sent(&p->pace, bytes - p->paced, clock_now());
    p->paced = bytes;
    take_changes(p);
    while (clock_now() < p->pace.due) {
        if (!primary_may_go_on(p) || !primary_hear(p, errp))
            return false;
        wait_for_turn(p);
        take_changes(p);
    }
    return true;
}

bool precopy_may_send(struct primary *p, Error **errp)
{
    if (!primary_may_go_on(p) || !primary_hear(p, errp) ||
        (!p->paused && (!primary_pace(p, errp) || !primary_request_before_epochs(p, errp))))
        return false;
    ram_state_set_part(p->g, p->paused ? UINT64_MAX : pace_part(&p->pace, converge_bandwidth(&p->converge)));
    primary_limit_send(p);
    return primary_feed(p, 1, &p->crc, errp) && replication_get_error_all(errp);
}

struct part precopy_begin_part(struct primary *p)
{
    /* The main connection is waited for as the others are. */
    return (struct part){precopy_bytes(p), clock_now(), vmstream_waited(p->s->out)};
}

void precopy_end_part(struct primary *p, const struct part *part)
{
    uint64_t bytes = precopy_bytes(p) - part->bytes;
    int64_t ns = clock_now() - part->began;

    converge_sent(&p->converge, bytes, ns);
    packing_sent(&p->packing, bytes, ns, vmstream_waited(p->s->out) - part->waited);
    ram_state_set_packing(p->g, packing_is_on(&p->packing));
}

bool precopy_await_noted(struct primary *p, Error **errp)
{
    uint64_t id;
    bool ok;

    session_set_limit(p->s, PRIMARY_ANSWER_LIMIT);
    ok = wire_send(p->s->out, WIRE_PROBE, 0, errp) && primary_expect(p, WIRE_PROBE_OK, &id, errp) &&
         wire_done(p->s->in, errp);
    session_set_limit(p->s, TIME_NEVER);
    return ok;
}

/* *ret_over: that was the end of a pass. */
static bool send_part(struct primary *p, bool *ret_over, Error **errp)
{
    struct part part = precopy_begin_part(p);
    int status;

    if (!precopy_may_send(p, errp))
        return false;
    status = perdure_savevm_iterate(p->s->out, false, errp);
    if (status < 0 || !perdure_stream_flush(p->s->out, errp))
        return false;
    precopy_end_part(p, &part);
    *ret_over = status;
    return true;
}

/* A pass, or what there is time for until the deadline. */
static bool send_pass(struct primary *p, uint64_t *ret_left, Error **errp)
{
    int64_t began = clock_now();
    bool over = false;

    do {
        if (!send_part(p, &over, errp))
            return false;
        *ret_left = bytes_left(p);
        tell(p, *ret_left);
    } while (!over && (p->paused || clock_now() < p->converge.until));
    if (over)
        tell_pass(p, *ret_left, began);
    return true;
}

static bool is_too_slow(struct primary *p, enum converge_verdict v, uint64_t left, Error **errp)
{
    if (p->s->migrate.on_slow != ENGINE_SLOW_CANCEL)
        return false;
    error_setg(errp,
               "%s: with %llu MiB left at %llu MiB/s the guest would stand still for %lld ms; a longer "
               "--downtime, or "
               "--on-slow throttle",
               v == CONVERGE_LATE ? "the deadline has passed"
                                  : "the guest changes its memory faster than the link carries it",
               (unsigned long long)left >> 20, (unsigned long long)converge_bandwidth(&p->converge) >> 20,
               (long long)(converge_expected(&p->converge, left) / NS_PER_MS));
    return true;
}

/* From now on it has half the time that it had. */
static bool slow_down(struct primary *p)
{
    unsigned runs = 100 - p->throttled;

    if (p->s->migrate.on_slow != ENGINE_SLOW_THROTTLE || !p->g->ops->throttle ||
        p->throttled >= GUEST_THROTTLE_MAX)
        return false;
    p->throttled = runs > 2 ? 100 - runs / 2 : GUEST_THROTTLE_MAX;
    p->g->ops->throttle(p->g, p->throttled);
    converge_slowed(&p->converge);
    return true;
}

/* The guest is to run there before the rest has come. What fits into the downtime is sent before. */
static bool wants_postcopy(struct primary *p, enum converge_verdict v, uint64_t left)
{
    const struct engine_migrate_params *m = &p->s->migrate;

    if (!p->s->hello.postcopy)
        return false;
    if (m->postcopy)
        return left && converge_expected(&p->converge, left) > m->downtime_ns;
    return (v == CONVERGE_SLOW || v == CONVERGE_LATE) && m->on_slow == ENGINE_SLOW_POSTCOPY;
}

/* What is still on its way, in the buffers of each channel, would be waited for in the pause. It is not any more, after this, nor is what
 * changed while it was waited for here. */
static bool settle(struct primary *p, uint64_t *ret_left, Error **errp)
{
    return precopy_await_noted(p, errp) && send_pass(p, ret_left, errp);
}

/* That took its time. *ret_fits: the guest has not changed too much meanwhile, or has been given time enough. */
static bool settle_again(struct primary *p, unsigned times, bool *ret_fits, Error **errp)
{
    uint64_t left;

    if (!settle(p, &left, errp))
        return false;
    *ret_fits = times >= SETTLE_MAX || converge_expected(&p->converge, left) <= p->s->migrate.downtime_ns;
    return true;
}

static bool send_running(struct primary *p, Error **errp)
{
    enum converge_verdict v = CONVERGE_AGAIN;
    unsigned settled = 0;
    bool fits = false;
    uint64_t left;

    converge_begin(&p->converge, p->s->migrate.downtime_ns, deadline(p));
    while (v == CONVERGE_AGAIN) {
        engine_event(p->e, "MIGRATION_PASS", "pass %llu", (unsigned long long)p->e->migration.passes + 1);
        if (!send_pass(p, &left, errp))
            return false;
        v = converge_pass(&p->converge, left, clock_now());
        if (wants_postcopy(p, v, left))
            return postcopy_tell(p, errp);
        if (v == CONVERGE_SWITCH && !settle_again(p, ++settled, &fits, errp))
            return false;
        if ((v == CONVERGE_SWITCH && !fits) || (v == CONVERGE_SLOW && slow_down(p)))
            v = CONVERGE_AGAIN;
    }
    return v == CONVERGE_SWITCH || !is_too_slow(p, v, left, errp);
}

/* --- the switch --- */

/* Its disks' writes up to the pause. What is still in flight is issued again over there. */
static bool send_writes(struct primary *p, Error **errp)
{
    bool more = true;

    while (more) {
        if (!primary_feed(p, 1, &p->crc, errp))
            return false;
        task_lock(&p->e->lock);
        more = p->e->feed_waiting;
        task_unlock(&p->e->lock);
    }
    return true;
}

static bool send_last_pass(struct primary *p, Error **errp)
{
    uint64_t left;

    return p->postcopy || send_pass(p, &left, errp); /* in postcopy there is next to nothing to send */
}

/* Little is left: the last pass was sent in the pause. */
static bool send_rest(struct primary *p, Error **errp)
{
    VMStream *out = p->s->out;

    primary_limit_send(p);
    if (!send_writes(p, errp) || !replication_get_error_all(errp) ||
        (p->g->ops->begin_save && !p->g->ops->begin_save(p->g, errp)) ||
        (p->postcopy && !postcopy_tell_last(p, errp)) ||
        !perdure_savevm_complete_precopy(out, p->postcopy, errp) || !perdure_savevm_devices(out, errp))
        return false;
    perdure_stream_begin(out, PERDURE_RECORD_STATE_END, 0);
    perdure_stream_end(out);
    return perdure_stream_flush(out, errp);
}

/* A guest that has just switched itself off is not moved: it ends here. */
static bool ended(struct primary *p)
{
    p->request = p->g->ops->request(p->g);
    if (p->request == GUEST_REQUEST_POWEROFF || p->request == GUEST_REQUEST_PANIC)
        p->end = SESSION_GUEST_ENDED;
    return p->end != SESSION_OPEN;
}

static bool await_loaded(struct primary *p, Error **errp)
{
    uint64_t id;
    bool ok;

    session_set_limit(p->s, PRIMARY_ANSWER_LIMIT);
    ok = primary_expect(p, WIRE_LOADED, &id, errp) && wire_done(p->s->in, errp);
    session_set_limit(p->s, TIME_NEVER);
    return ok;
}

/* When each step of the downtime was over. */
struct steps {
    int64_t begin, paused, sent, loaded, runs;
};

static void tell_steps(struct primary *p, const struct steps *t)
{
    struct engine_migration *m = &p->e->migration;

    task_lock(&p->e->lock);
    p->e->serves = p->postcopy;
    m->bytes_sent = precopy_bytes(p);
    p->e->figures.sync_pages_left = 0;
    if (!p->postcopy)
        m->bytes_left = 0;
    m->pause_ns = t->paused - t->begin;
    m->send_ns = t->sent - t->paused;
    m->load_ns = t->loaded - t->sent;
    m->start_ns = t->runs - t->loaded;
    m->downtime_ns = t->runs - t->begin;
    if (!p->postcopy) {
        m->ended = t->runs;
        m->outcome = ENGINE_MIGRATION_COMPLETED; /* told once the state says so */
    }
    task_unlock(&p->e->lock);
}

static bool hand_over(struct primary *p, Error **errp)
{
    struct steps t = {0};

    /* Before the destination can claim, and before the pause: it waits for a disk. */
    if (!session_mark_disks(p->s, GUEST_DISKS_PRIMARY, errp) ||
        (p->g->ops->settle_disks && !p->g->ops->settle_disks(p->g, errp)))
        return false;
    task_set_pace(TASK_NORMAL); /* the guest waits for it now */
    t.begin = clock_now();
    if (!primary_pause(p, errp))
        return false;
    t.paused = clock_now();
    if (ended(p) || !send_last_pass(p, errp) || !send_rest(p, errp))
        return false;
    t.sent = clock_now();
    /* Before the permission; while the destination loads. */
    if (!session_hold_disks(p->s, GUEST_DISKS_OFFERED, errp) || !await_loaded(p, errp) ||
        !primary_may_go_on(p))
        return false;
    t.loaded = clock_now();
    if (!primary_permit(p, errp))
        return false;
    t.runs = clock_now();
    tell_steps(p, &t);
    return true;
}

static void begin_to_send(struct primary *p)
{
    task_lock(&p->e->lock);
    p->e->migration.outcome = ENGINE_MIGRATION_ACTIVE;
    task_unlock(&p->e->lock);
    engine_event(p->e, "MIGRATION", "disks and memory are sent");
    p->paced = precopy_bytes(p); /* the configuration does not count */
}

static bool send_all(struct primary *p, Error **errp)
{
    if (!primary_start_replication(p, errp))
        return false;
    begin_to_send(p);
    return primary_feed_sync(p, errp) && begin(p, errp) && send_running(p, errp) && hand_over(p, errp);
}

/* A link that broke under a write may still hold what the destination said before. */
static void let_peer_explain(struct primary *p, Error **errp)
{
    Error *said = NULL;

    if (p->end != SESSION_OPEN || p->peer_failed || p->permitted)
        return;
    session_set_limit(p->s, 0);
    if (!primary_hear(p, &said) && p->peer_failed) {
        error_free(*errp);
        *errp = said;
        said = NULL;
    }
    error_free(said);
}

void primary_migrate(struct primary *p, Error **errp)
{
    if (!send_all(p, errp)) {
        let_peer_explain(p, errp);
        return;
    }
    primary_give_away(p);
    p->end = SESSION_MIGRATED;
    if (p->postcopy)
        postcopy_serve(p);
    if (p->end == SESSION_MIGRATED)
        precopy_end(p);
}

void precopy_end(struct primary *p)
{
    engine_set_state(p->e, ENGINE_PRIMARY, ENGINE_MIGRATED, "the destination runs the guest");
    task_lock(&p->e->lock);
    p->e->serves = false;
    task_broadcast(&p->e->changed);
    task_unlock(&p->e->lock);
    if (p->e->owner.migrated)
        p->e->owner.migrated(p->e->owner.opaque);
}
