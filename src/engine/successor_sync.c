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

#define CONFIG_LIMIT (60 * NS_PER_S)
#define BATCH_BYTES  (1u << 20)
#define ROUNDS_MAX   30
#define FEW_PAGES    512

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

static bool introduce(struct successor *su, Error **errp)
{
    struct session *s = su->s;
    struct engine_migration *m = &su->e->migration;

    if (!session_introduce(s, errp) || !session_connect_others(s, errp))
        return false;
    session_set_limit(s, CONFIG_LIMIT);
    if (!session_send_config(s->in, s->out, su->guest, errp))
        return false;
    session_set_limit(s, TIME_NEVER);
    task_lock(&su->e->lock);
    m->outcome = ENGINE_MIGRATION_ACTIVE;
    task_broadcast(&su->e->changed);
    task_unlock(&su->e->lock);
    engine_event(su->e, "MIGRATION", "the backup moves to %s", su->to);
    return true;
}

static bool start(struct successor *su, Error **errp)
{
    uint64_t id;

    session_set_limit(su->s, SUCCESSOR_ANSWER_LIMIT);
    if (!wire_send(su->s->out, WIRE_START, 0, errp) || !successor_expect(su, WIRE_STARTED, &id, errp) ||
        !wire_done(su->s->in, errp))
        return false;
    su->copies = replication_feeds_copy_begin(errp);
    return su->copies;
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
    session_set_limit(su->s, SUCCESSOR_ANSWER_LIMIT);
    perdure_stream_append(su->s->out, su->batch);
    return !perdure_stream_error(su->s->out, errp);
}

static bool may_go_on(struct successor *su, Error **errp)
{
    if (!is_cancelled(su))
        return true;
    error_setg(errp, "given up");
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

static bool catch_up(struct successor *su, Error **errp)
{
    uint64_t before = UINT64_MAX, left;

    for (int round = 0; round < ROUNDS_MAX; round++) {
        if (!send_feeds(su, false, errp) || !send_pages(su, errp))
            return false;
        left = left_now(su);
        if (left <= FEW_PAGES || left > before - before / 4)
            break;
        before = left;
    }
    return true;
}

void successor_run(void *successor)
{
    struct successor *su = successor;
    Error *err = NULL;

    if (!dial(su, &err) || !introduce(su, &err) || !start(su, &err) || !catch_up(su, &err))
        successor_fail(su, err);
    task_lock(&su->e->lock);
    su->ended = true;
    task_broadcast(&su->e->changed);
    task_unlock(&su->e->lock);
}

bool successor_send_last(struct successor *su, Error **errp)
{
    return send_feeds(su, true, errp) && send_pages(su, errp);
}
