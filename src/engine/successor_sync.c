/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bringing a successor up to date, while the primary's epochs go on coming: all of RAM and of the replicating components, then what
 * epochs changed meanwhile, and again, as long as that gets less.
 */
#include "engine/successor_private.h"
#include "base/bitmap.h"
#include "base/crc32c.h"
#include <perdure/replication_feed.h>

#include <string.h>

#define PATIENCE        (60 * NS_PER_S) /* nobody waits for it */
#define BATCH_BYTES     (1u << 20)
#define SLOW_ROUNDS_MAX 10 /* that left hardly less than the one before */
#define FEW_PAGES       512
#define LAST_ROUND_MIN  NS_PER_S

static bool is_cancelled(struct successor *su)
{
    bool yes;

    task_lock(&su->e->lock);
    yes = su->cancelled;
    task_unlock(&su->e->lock);
    return yes;
}

bool successor_expect(struct successor *su, enum wire_record want, uint64_t *id, Error **errp)
{
    uint16_t type;

    return wire_next(su->s->in, &type, id, errp) &&
           (type == want || session_greeted(su->s->in, type, want, errp));
}

void successor_fail(struct successor *su, Error *err)
{
    task_lock(&su->e->lock);
    if (su->failure)
        error_free(err);
    else
        su->failure = err;
    task_unlock(&su->e->lock);
}

static void tell_progress(struct successor *su, uint64_t left)
{
    struct engine_migration *m = &su->e->migration;

    task_lock(&su->e->lock);
    m->bytes_sent = perdure_stream_bytes(su->s->out);
    m->bytes_left = left;
    m->looked = clock_now();
    task_unlock(&su->e->lock);
}

/* From here on successor_stop() can end what is under way on the link. */
static bool dial(struct successor *su, Error **errp)
{
    struct session *s = session_dial(su->e, su->to, &su->hello, SESSION_CONNECT_LIMIT, errp);
    bool cancelled;

    if (!s)
        return false;
    task_lock(&su->e->lock);
    cancelled = su->cancelled;
    if (!cancelled)
        su->s = s;
    task_unlock(&su->e->lock);
    if (cancelled) {
        session_free(s);
        error_setg(errp, "given up");
    }
    return !cancelled;
}

/* False: given up meanwhile, and the guest is not ours to look at any more. */
static bool note_reached(struct successor *su, Error **errp)
{
    task_lock(&su->e->lock);
    su->reached = !su->cancelled;
    task_unlock(&su->e->lock);
    if (!su->reached)
        error_setg(errp, "given up");
    return su->reached;
}

static void note_accepted(struct successor *su)
{
    task_lock(&su->e->lock);
    if (!su->cancelled)
        su->e->migration.outcome = ENGINE_MIGRATION_ACTIVE;
    task_broadcast(&su->e->changed);
    task_unlock(&su->e->lock);
    engine_event(su->e, "MIGRATION", "the backup moves to %s", su->to);
}

static bool introduce(struct successor *su, Error **errp)
{
    struct session *s = su->s;

    return session_introduce(s, errp) && session_connect_others(s, errp) && note_reached(su, errp);
}

static bool configure(struct successor *su, Error **errp)
{
    struct session *s = su->s;

    session_set_limit(s, PATIENCE);
    if (!session_send_config(s->in, s->out, su->guest, errp))
        return false;
    session_set_limit(s, TIME_NEVER);
    note_accepted(su);
    return true;
}

static bool start(struct successor *su, Error **errp)
{
    uint64_t id;

    session_set_limit(su->s, PATIENCE);
    if (!wire_send(su->s->out, WIRE_START, 0, errp) || !successor_expect(su, WIRE_STARTED, &id, errp) ||
        !wire_done(su->s->in, errp))
        return false;
    su->copies = replication_feeds_copy_begin(errp);
    return su->copies;
}

/* A successor that cannot go on says why; what is written to it then is lost. */
static bool hear(struct successor *su, Error **errp)
{
    uint16_t type;
    uint64_t id;

    if (!vmstream_has_begun(su->s->in))
        return true;
    return wire_next(su->s->in, &type, &id, errp) && session_greeted(su->s->in, type, WIRE_FAIL, errp);
}

/* What is in batch; it counts for the first epoch's checksum. */
static bool ship(struct successor *su, bool counts, Error **errp)
{
    size_t size;
    const void *frames;

    if (perdure_stream_error(su->batch, errp))
        return false;
    frames = perdure_stream_memory(su->batch, &size);
    if (counts)
        su->crc = crc32c(su->crc, frames, size);
    channel_set_deadline(su->s->link.main, su->until < TIME_NEVER ? su->until : clock_now() + PATIENCE);
    perdure_stream_append(su->s->out, su->batch);
    return !perdure_stream_error(su->s->out, errp);
}

static bool may_go_on(struct successor *su, Error **errp)
{
    if (is_cancelled(su))
        error_setg(errp, "given up");
    else if (su->home && (link_is_down(su->home) || engine_wishes(su->e).quit))
        error_setg(errp, "protection ends");
    else if (clock_now() > su->until)
        error_setg(errp, "the link to it is too slow for what the guest changes");
    else
        return hear(su, errp);
    return false;
}

static bool send_feeds(struct successor *su, bool last, Error **errp)
{
    bool more = true;

    while (more) {
        perdure_stream_rewind(su->batch);
        if (!may_go_on(su, errp) ||
            !replication_feeds_copy(su->batch, WIRE_FEED, 1, BATCH_BYTES, last, &more, errp) ||
            !ship(su, true, errp))
            return false;
    }
    return true;
}

static uint64_t take_changed(struct successor *su)
{
    uint64_t count = su->guest->memory->page_count;

    task_lock(&su->lock);
    memcpy(su->taken, su->changed, bitmap_bytes(count));
    memset(su->changed, 0, bitmap_bytes(count));
    task_unlock(&su->lock);
    return bitmap_popcount(su->taken, count);
}

/* Those of the round from there on. Returns where it goes on. */
static uint64_t encode_batch(struct successor *su, uint64_t page)
{
    GuestMemory *m = su->guest->memory;
    int left = SUCCESSOR_BATCH_PAGES;

    perdure_stream_rewind(su->batch);
    perdure_stream_begin(su->batch, WIRE_SYNC_PAGES, 0);
    task_lock(&su->lock);
    for (; page < m->page_count && left--; page = bitmap_find_next(su->taken, m->page_count, page + 1))
        page_encode(su->encoder, su->batch, page, guest_memory_page_host(m, page));
    task_unlock(&su->lock);
    perdure_stream_end(su->batch);
    return page;
}

static bool send_pages(struct successor *su, Error **errp)
{
    uint64_t count = su->guest->memory->page_count, left = take_changed(su);
    uint64_t page = bitmap_find_next(su->taken, count, 0);

    while (page < count) {
        if (!may_go_on(su, errp))
            return false;
        page = encode_batch(su, page);
        if (!ship(su, false, errp))
            return false;
        left -= left < SUCCESSOR_BATCH_PAGES ? left : SUCCESSOR_BATCH_PAGES;
        tell_progress(su, left * GUEST_PAGE_SIZE + replication_feeds_copy_left());
    }
    return perdure_stream_flush(su->s->out, errp);
}

static uint64_t left_now(struct successor *su)
{
    uint64_t pages;

    task_lock(&su->lock);
    pages = bitmap_popcount(su->changed, su->guest->memory->page_count);
    task_unlock(&su->lock);
    return pages + replication_feeds_copy_left() / GUEST_PAGE_SIZE;
}

/* Of the link, in this round; the last one must not hold the primary's output for long. */
static bool is_little(struct successor *su, uint64_t left, uint64_t bytes, int64_t took)
{
    double rate = took > 0 ? (double)bytes / (double)took : 0; /* per ns */

    return left <= FEW_PAGES || (double)left * GUEST_PAGE_SIZE < rate * (double)successor_last_round(su) / 4;
}

static bool send_round(struct successor *su, uint64_t *ret_left, bool *ret_little, Error **errp)
{
    uint64_t before = perdure_stream_bytes(su->s->out);
    int64_t began = clock_now();

    if (!send_feeds(su, false, errp) || !send_pages(su, errp))
        return false;
    *ret_left = left_now(su);
    *ret_little = is_little(su, *ret_left, perdure_stream_bytes(su->s->out) - before, clock_now() - began);
    return true;
}

static bool catch_up(struct successor *su, Error **errp)
{
    uint64_t before = UINT64_MAX, left;
    bool little = false;
    int slow = 0;

    while (slow < SLOW_ROUNDS_MAX) {
        if (!send_round(su, &left, &little, errp))
            return false;
        if (little)
            return true;
        slow += left > before - before / 4;
        before = left;
    }
    error_setg(errp, "the guest changes its memory faster than the link to %s carries it", su->to);
    return false;
}

/* A link that broke under a write may still hold what the successor said before. */
static void let_it_explain(struct successor *su, Error **errp)
{
    Error *said = NULL;

    if (!su->s)
        return;
    session_set_limit(su->s, 0);
    if (!hear(su, &said) && !perdure_stream_error(su->s->in, NULL)) {
        error_free(*errp);
        *errp = said;
        return;
    }
    error_free(said);
}

void successor_run(void *successor)
{
    struct successor *su = successor;
    Error *err = NULL;

    if (!dial(su, &err) || !introduce(su, &err) || !configure(su, &err) || !start(su, &err) ||
        !catch_up(su, &err)) {
        let_it_explain(su, &err);
        successor_fail(su, err);
    }
    task_lock(&su->e->lock);
    su->ended = true;
    task_broadcast(&su->e->changed);
    task_unlock(&su->e->lock);
}

int64_t successor_last_round(const struct successor *su)
{
    return su->hello.timeout_ns > LAST_ROUND_MIN ? su->hello.timeout_ns : LAST_ROUND_MIN;
}

bool successor_send_last(struct successor *su, struct link *home, int64_t until, Error **errp)
{
    su->home = home;
    su->until = until;
    return send_feeds(su, true, errp) && send_pages(su, errp);
}
