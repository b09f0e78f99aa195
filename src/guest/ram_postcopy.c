/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest/ram_state_private.h"

#include "base/bitmap.h"
#include <perdure/savevm.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Pages of one pass: little, since pages that somebody waits for share the link with it. */
#define PUSH_PAGES 64u

static uint64_t page_count(const struct ram_state *r)
{
    return r->guest->memory->page_count;
}

/* --- runs of pages: u64 first, u64 count, to the end of the record --- */

static void put_run(VMStream *f, uint64_t first, uint64_t count)
{
    perdure_stream_put_u64(f, first);
    perdure_stream_put_u64(f, count);
}

static bool get_run(VMStream *f, uint64_t pages, uint64_t *ret_first, uint64_t *ret_count)
{
    uint64_t first = perdure_stream_get_u64(f), count = perdure_stream_get_u64(f);

    if (perdure_stream_error(f, NULL))
        return false;
    if (first >= pages || !count || count > pages - first) {
        perdure_stream_set_error(f, -EBADMSG,
                                 "%" PRIu64 " missing pages from %" PRIu64 " on: RAM has %" PRIu64, count,
                                 first, pages);
        return false;
    }
    *ret_first = first;
    *ret_count = count;
    return true;
}

static void put_runs(VMStream *f, const uint64_t *map, uint64_t pages)
{
    uint64_t first = bitmap_find_next(map, pages, 0), end;

    for (; first < pages; first = bitmap_find_next(map, pages, end)) {
        for (end = first; end < pages && bitmap_test(map, end); end++)
            ;
        put_run(f, first, end - first);
    }
}

/* --- the source --- */

bool ram_postcopy_begin(Guest *g, Error **errp)
{
    struct ram_state *r = ram_state_of(g);

    assert(r->live && r->phase == RAM_PRECOPY);
    r->later = calloc(1, bitmap_bytes(page_count(r)));
    r->fresh = calloc(1, bitmap_bytes(page_count(r)));
    if (!r->later || !r->fresh) {
        error_setg_errno(errp, ENOMEM, "bitmap of guest RAM");
        return false;
    }
    r->urgent = page_encoder_new(page_count(r), false, true, errp);
    if (!r->urgent)
        return false;
    page_encoder_set_packing(r->urgent, r->packing); /* for good: it has a task of its own */
    r->lanes = NULL;
    r->phase = RAM_TELLING;
    return true;
}

void ram_postcopy_push(Guest *g)
{
    struct ram_state *r = ram_state_of(g);

    assert(r->phase == RAM_TELLING);
    r->phase = RAM_PUSHING;
}

uint64_t ram_postcopy_told(Guest *g)
{
    const struct ram_state *r = ram_state_of(g);

    return bitmap_popcount(r->fresh, page_count(r));
}

/* What changed since the last time, or was left by a pass that ended early, and was not among what is still to come. */
static int put_missing(struct ram_state *r, VMStream *f)
{
    Error *err = NULL;

    memcpy(r->fresh, r->pages, bitmap_bytes(page_count(r)));
    memset(r->pages, 0, bitmap_bytes(page_count(r)));
    r->left = 0;
    if (!r->guest->ops->take_changed(r->guest, r->fresh, &err))
        return ram_state_failed(f, err);
    for (size_t i = 0; i < bitmap_words(page_count(r)); i++)
        r->fresh[i] &= ~r->later[i];
    bitmap_or(r->later, r->fresh, page_count(r));
    perdure_stream_put_u8(f, RAM_MISSING);
    put_runs(f, r->fresh, page_count(r));
    return 1;
}

/* The next one that nobody has sent yet; it is ours then. */
static bool take_page(struct ram_state *r, uint64_t *ret_page)
{
    uint64_t pages = page_count(r);
    bool found;

    task_lock(&r->lock);
    *ret_page = bitmap_find_next(r->later, pages, r->push_at);
    if (*ret_page == pages)
        *ret_page = bitmap_find_next(r->later, pages, 0);
    found = *ret_page < pages;
    if (found) {
        bitmap_clear(r->later, *ret_page);
        r->push_at = *ret_page + 1;
    }
    task_unlock(&r->lock);
    return found;
}

/* 1: that was the last of them. */
static int put_later(struct ram_state *r, VMStream *f, uint64_t limit)
{
    uint64_t page;

    perdure_stream_put_u8(f, RAM_PAGES);
    for (; limit; limit--) {
        if (!take_page(r, &page))
            return 1;
        page_encode(r->encoder, f, page, guest_memory_page_host(r->guest->memory, page));
    }
    return 0;
}

int ram_postcopy_iterate(struct ram_state *r, VMStream *f)
{
    return r->phase == RAM_TELLING ? put_missing(r, f) : put_later(r, f, PUSH_PAGES);
}

int ram_postcopy_complete(VMStream *f, void *opaque)
{
    int status = put_later(opaque, f, UINT64_MAX);

    return status < 0 ? status : 0;
}

uint64_t ram_postcopy_left(struct ram_state *r)
{
    uint64_t left;

    task_lock(&r->lock);
    left = bitmap_popcount(r->later, page_count(r));
    task_unlock(&r->lock);
    return left;
}

bool ram_postcopy_put(Guest *g, VMStream *f, uint64_t page, Error **errp)
{
    struct ram_state *r = ram_state_of(g);

    if (page >= page_count(r)) {
        error_setg(errp, "the destination asks for page %" PRIu64 ": RAM has %" PRIu64, page, page_count(r));
        return false;
    }
    task_lock(&r->lock);
    bitmap_clear(r->later, page);
    r->push_at = page + 1;
    task_unlock(&r->lock);
    page_encode(r->urgent, f, page, guest_memory_page_host(r->guest->memory, page));
    return true;
}

/* What was on its way when the link broke may not have come: the destination says what it lacks. */
int ram_postcopy_resume(struct MigrationState *s, void *opaque)
{
    struct ram_state *r = opaque;
    uint64_t first, count;

    if (r->phase != RAM_PUSHING)
        return 0;
    memset(r->later, 0, bitmap_bytes(page_count(r)));
    while (perdure_stream_left(s->in)) {
        if (!get_run(s->in, page_count(r), &first, &count))
            return -EBADMSG;
        bitmap_set_range(r->later, first, count);
    }
    return perdure_stream_error(s->in, NULL);
}

void ram_postcopy_cleanup(struct ram_state *r)
{
    page_encoder_free(r->urgent);
    r->urgent = NULL;
    free(r->later);
    free(r->fresh);
    r->later = r->fresh = NULL;
    r->phase = RAM_PRECOPY;
    r->push_at = 0;
}

/* --- the destination --- */

MissingPages *ram_postcopy_missing(Guest *g)
{
    struct ram_state *r = ram_state_of(g);

    return r ? r->missing : NULL;
}

static bool can_be_missing(struct ram_state *r, Error **errp)
{
    Guest *g = r->guest;

    if (r->missing)
        return true;
    if (g->ops->missing_new)
        r->missing = g->ops->missing_new(g, errp);
    else
        error_setg(errp, "this machine cannot run while pages of its RAM are missing");
    return r->missing;
}

int ram_postcopy_load_missing(struct ram_state *r, VMStream *f)
{
    uint64_t first, count;
    Error *err = NULL;

    if ((r->lanes && !lanes_end(r->lanes, &err)) || !can_be_missing(r, &err))
        return ram_state_failed(f, err);
    r->lanes = NULL;
    while (perdure_stream_left(f)) {
        if (!get_run(f, page_count(r), &first, &count))
            return -EBADMSG;
        if (!missing_discard(r->missing, first, count, &err))
            return ram_state_failed(f, err);
    }
    return perdure_stream_error(f, NULL);
}

void ram_postcopy_put_missing(Guest *g, VMStream *f)
{
    MissingPages *mp = ram_postcopy_missing(g);
    uint64_t first, count, from = 0;

    while (missing_find(mp, from, &first, &count)) {
        put_run(f, first, count);
        from = first + count;
    }
}
