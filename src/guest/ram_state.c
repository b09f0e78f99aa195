/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest/ram_state_private.h"

#include "base/bitmap.h"
#include "stream/vmstream.h"
#include <perdure/savevm.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* Pages of one part: 16 MiB, so that whoever walks looks at its clock and its cancel button often enough. */
#define BATCH_PAGES 4096u
#define FEW_PAGES   16u
#define SHARE_WORTH 256u /* fewer are not worth waking anybody for; of a small machine an eighth */
#define CLAIM       GUEST_MEMORY_RUN

/* One a Guest: a process has one, the simulator two. */
static struct ram_state *states;

int ram_state_failed(VMStream *f, Error *err)
{
    vmstream_take_error(f, err);
    return perdure_stream_error(f, NULL);
}

/* --- saving --- */

static void count_pages(struct ram_state *r)
{
    r->next = 0;
    r->left = bitmap_popcount(r->pages, r->guest->memory->page_count);
}

/* What changed meanwhile, and what the pass before has left. */
static bool begin_pass(struct ram_state *r, Error **errp)
{
    bool ok = r->guest->ops->take_changed(r->guest, r->pages, errp);

    count_pages(r);
    return ok;
}

static bool make_encoders(struct ram_state *r, Error **errp)
{
    uint64_t pages = r->guest->memory->page_count;
    bool ok = (r->encoder = page_encoder_new(pages, false, true, errp));

    for (unsigned i = 0; i < lanes_count(r->lanes) && ok; i++)
        ok = (r->lane_encoders[i] = page_encoder_new(pages, false, true, errp));
    return ok;
}

static void free_encoders(struct ram_state *r)
{
    page_encoder_free(r->encoder);
    r->encoder = NULL;
    for (unsigned i = 0; i < LANES_MAX; i++) {
        page_encoder_free(r->lane_encoders[i]);
        r->lane_encoders[i] = NULL;
    }
}

/* Of those that nobody else has: they are the caller's then. */
static unsigned claim_pages(struct ram_state *r, uint64_t pages[CLAIM])
{
    unsigned count = 0;

    task_lock(&r->lock);
    for (; count < CLAIM && r->quota; r->quota--, r->left--) {
        uint64_t page = bitmap_find_next(r->pages, r->guest->memory->page_count, r->next);

        bitmap_clear(r->pages, page);
        r->next = page + 1;
        pages[count++] = page;
    }
    task_unlock(&r->lock);
    return count;
}

/* From where they are: what a guest that runs writes meanwhile will count as changed again. */
static void put_share(struct ram_state *r, VMStream *f, PageEncoder *encoder)
{
    uint64_t pages[CLAIM];
    unsigned count;

    while (!perdure_stream_error(f, NULL) && (count = claim_pages(r, pages)))
        for (unsigned i = 0; i < count; i++)
            page_encode(encoder, f, pages[i], guest_memory_page_host(r->guest->memory, pages[i]));
}

static void put_lane(void *opaque, VMStream *f, unsigned lane)
{
    struct ram_state *r = opaque;

    put_share(r, f, r->lane_encoders[lane]);
}

static bool prepare(struct ram_state *r, Error **errp)
{
    const GuestMemory *m = r->guest->memory;

    r->part = BATCH_PAGES;
    r->pages = calloc(1, bitmap_bytes(m->page_count));
    if (!r->pages) {
        error_setg_errno(errp, ENOMEM, "bitmap of guest RAM");
        return false;
    }
    if (!make_encoders(r, errp) || (r->lanes && !lanes_start(r->lanes, LANES_PUT, put_lane, r, errp)))
        return false;
    if (r->live)
        return r->tracking = r->guest->ops->tracking_start(r->guest, false, errp);
    guest_memory_populated(m, r->pages);
    count_pages(r);
    return true;
}

static int ram_save_setup(VMStream *f, void *opaque)
{
    struct ram_state *r = opaque;
    const GuestMemory *m = r->guest->memory;
    Error *err = NULL;

    if (!prepare(r, &err))
        return ram_state_failed(f, err);
    perdure_stream_put_u8(f, RAM_BLOCKS);
    perdure_stream_put_u32(f, m->block_count);
    for (int i = 0; i < m->block_count; i++) {
        perdure_stream_put_u64(f, m->blocks[i].gpa);
        perdure_stream_put_u64(f, m->blocks[i].size);
    }
    return 0;
}

static bool is_worth_sharing(const struct ram_state *r)
{
    return r->lanes && (r->quota >= SHARE_WORTH || r->quota >= r->guest->memory->page_count / 8);
}

/* A part of up to limit pages. */
static int put_pages(struct ram_state *r, VMStream *f, uint64_t limit)
{
    bool shared;
    Error *err = NULL;

    r->quota = limit < r->left ? limit : r->left;
    shared = is_worth_sharing(r);
    perdure_stream_put_u8(f, shared ? RAM_SHARED : RAM_PAGES);
    if (shared)
        lanes_share(r->lanes);
    put_share(r, f, r->encoder);
    if (r->lanes && !(shared ? lanes_join : lanes_skip)(r->lanes, &err))
        return ram_state_failed(f, err);
    return 0;
}

static int ram_save_iterate(VMStream *f, void *opaque)
{
    struct ram_state *r = opaque;
    Error *err = NULL;
    int status;

    if (r->phase != RAM_PRECOPY)
        return ram_postcopy_iterate(r, f);
    if (r->live && !r->left && !begin_pass(r, &err))
        return ram_state_failed(f, err);
    status = put_pages(r, f, r->part);
    return status < 0 ? status : !r->left;
}

static int ram_save_complete(VMStream *f, void *opaque)
{
    struct ram_state *r = opaque;
    Error *err = NULL;

    if (r->live && !begin_pass(r, &err))
        return ram_state_failed(f, err);
    return put_pages(r, f, UINT64_MAX);
}

static void ram_save_pending(VMStream *f, void *opaque, uint64_t threshold, uint64_t *precopy_only,
                             uint64_t *compatible, uint64_t *postcopy_only)
{
    struct ram_state *r = opaque;

    (void)f, (void)threshold, (void)postcopy_only;
    if (r->phase != RAM_PRECOPY) {
        *compatible += ram_postcopy_left(r) * GUEST_PAGE_SIZE;
        return;
    }
    *precopy_only += r->left * GUEST_PAGE_SIZE;
    if (r->live)
        *precopy_only += r->guest->ops->changed_pages(r->guest) * GUEST_PAGE_SIZE;
}

/* Also where setup never ran, or failed half-way. */
static void ram_save_cleanup(void *opaque)
{
    struct ram_state *r = opaque;

    if (r->tracking)
        r->guest->ops->tracking_stop(r->guest);
    r->tracking = false;
    free_encoders(r);
    r->lanes = NULL;
    free(r->pages);
    r->pages = NULL;
    r->left = 0;
    ram_postcopy_cleanup(r);
}

static bool ram_has_postcopy(void *opaque)
{
    const struct ram_state *r = opaque;

    return r->phase != RAM_PRECOPY || r->missing;
}

/* --- loading --- */

static int ram_load_setup(VMStream *f, void *opaque)
{
    struct ram_state *r = opaque;

    (void)f;
    r->blocks_seen = false;
    return 0;
}

static void take_lane(void *opaque, VMStream *f, unsigned lane)
{
    struct ram_state *r = opaque;

    (void)lane;
    page_decode_all(f, r->guest->memory);
}

/* The stream's blocks must be those of this machine: same places, same sizes. */
static int load_blocks(struct ram_state *r, VMStream *f)
{
    GuestMemory *m = r->guest->memory;
    uint32_t count = perdure_stream_get_u32(f);
    uint64_t total = 0;
    bool same = count == (uint32_t)m->block_count;
    Error *err = NULL;

    for (uint32_t i = 0; i < count && !perdure_stream_error(f, NULL); i++) {
        uint64_t gpa = perdure_stream_get_u64(f), size = perdure_stream_get_u64(f);

        same = same && gpa == m->blocks[i].gpa && size == m->blocks[i].size;
        total += size;
    }
    if (perdure_stream_error(f, NULL))
        return -EBADMSG;
    if (!same) {
        perdure_stream_set_error(f, -EINVAL,
                                 "the state has %" PRIu64 " MiB of RAM, this machine %" PRIu64
                                 " MiB; they must be the same",
                                 total >> 20, m->size >> 20);
        return -EINVAL;
    }
    r->blocks_seen =
        guest_memory_clear(m, &err) && (!r->lanes || lanes_start(r->lanes, LANES_TAKE, take_lane, r, &err));
    return r->blocks_seen ? 0 : ram_state_failed(f, err);
}

/* A part: this stream's pages are in place, and then those of its lanes. */
static int load_pages(struct ram_state *r, VMStream *f, bool shared)
{
    Error *err = NULL;

    if (page_decode_all(f, r->guest->memory) < 0)
        return -EBADMSG;
    if (r->lanes && !(shared ? lanes_join : lanes_skip)(r->lanes, &err))
        return ram_state_failed(f, err);
    return 0;
}

static int ram_load(VMStream *f, void *opaque, int version)
{
    struct ram_state *r = opaque;
    unsigned body = perdure_stream_get_u8(f);

    (void)version;
    if (body == RAM_BLOCKS && !r->blocks_seen)
        return load_blocks(r, f);
    if (body == RAM_PAGES && r->missing)
        return page_decode_missing(f, r->missing) < 0 ? -EBADMSG : 0;
    if ((body == RAM_PAGES || (body == RAM_SHARED && r->lanes)) && r->blocks_seen)
        return load_pages(r, f, body == RAM_SHARED);
    if (body == RAM_MISSING && r->blocks_seen)
        return ram_postcopy_load_missing(r, f);
    perdure_stream_set_error(f, -EBADMSG, "unexpected contents of kind %u", body);
    return -EBADMSG;
}

static int ram_load_cleanup(void *opaque)
{
    struct ram_state *r = opaque;

    r->lanes = NULL;
    missing_free(r->missing);
    r->missing = NULL;
    return 0;
}

/* --- the list --- */

static const SaveVMHandlers ram_handlers = {
    .save_setup = ram_save_setup,
    .save_live_iterate = ram_save_iterate,
    .save_live_complete_precopy = ram_save_complete,
    .save_live_complete_postcopy = ram_postcopy_complete,
    .has_postcopy = ram_has_postcopy,
    .save_live_pending = ram_save_pending,
    .save_cleanup = ram_save_cleanup,
    .load_setup = ram_load_setup,
    .load_state = ram_load,
    .load_cleanup = ram_load_cleanup,
    .resume_prepare = ram_postcopy_resume,
};

static struct ram_state **find(const Guest *g)
{
    struct ram_state **at = &states;

    while (*at && (*at)->guest != g)
        at = &(*at)->chain;
    return at;
}

struct ram_state *ram_state_of(Guest *g)
{
    return *find(g);
}

bool ram_state_register(Guest *g, Error **errp)
{
    struct ram_state *r = calloc(1, sizeof(*r));
    int status = -ENOMEM;

    if (r) {
        r->guest = g;
        task_mutex_init(&r->lock);
        status = register_savevm_live("ram", 0, 1, &ram_handlers, r);
    }
    if (status < 0) {
        error_setg_errno(errp, -status, "cannot register guest RAM for saving");
        if (r)
            task_mutex_destroy(&r->lock);
        free(r);
        return false;
    }
    r->chain = states;
    states = r;
    return true;
}

void ram_state_unregister(Guest *g)
{
    struct ram_state **at = find(g), *r = *at;

    if (!r)
        return;
    *at = r->chain;
    unregister_savevm(NULL, "ram", r);
    ram_save_cleanup(r);
    ram_load_cleanup(r);
    task_mutex_destroy(&r->lock);
    free(r);
}

void ram_state_set_live(Guest *g, bool live)
{
    struct ram_state *r = *find(g);

    assert(r && !r->encoder);
    r->live = live;
}

void ram_state_set_lanes(Guest *g, Lanes *lanes)
{
    struct ram_state *r = *find(g);

    assert(r && !r->encoder);
    r->lanes = lanes;
}

void ram_state_set_part(Guest *g, uint64_t bytes)
{
    struct ram_state *r = *find(g);
    uint64_t pages = bytes / GUEST_PAGE_SIZE;

    assert(r && r->pages);
    if (pages > BATCH_PAGES)
        pages = BATCH_PAGES;
    r->part = pages > FEW_PAGES ? pages : FEW_PAGES;
}

void ram_state_set_packing(Guest *g, bool on)
{
    struct ram_state *r = *find(g);

    assert(r && r->encoder);
    page_encoder_set_packing(r->encoder, on);
    for (unsigned i = 0; i < lanes_count(r->lanes); i++)
        page_encoder_set_packing(r->lane_encoders[i], on);
    r->packing = on;
}
