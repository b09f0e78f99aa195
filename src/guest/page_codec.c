/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest/page_codec.h"
#include "base/bitmap.h"
#include "guest/page_scan.h"
#include "stream/vmstream.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LINE  64
#define LINES (GUEST_PAGE_SIZE / LINE)
/* A delta of more lines than this saves less than it costs to take apart. */
#define DELTA_LINES_MAX 56
/* Packed to more than this it is not worth the work at the other side. */
#define PACKED_MAX (GUEST_PAGE_SIZE - GUEST_PAGE_SIZE / 8)
/* Of a page: head, mask, all lines. */
#define ENCODED_MAX (2 * sizeof(uint64_t) + GUEST_PAGE_SIZE)
/* So many pages in a row that did not pack: the next are not tried, first one, then twice as many each time. */
#define MISSES_MAX 8
#define SKIP_MAX   256

struct PageEncoder {
    uint64_t page_count;
    uint8_t *shadow; /* NULL: no deltas. Page by page what the other side holds */
    uint64_t *used;  /* pages of the shadow that were written; the others are not looked at */
    bool blank;      /* the other side's copies of those are zero; else anything */
    bool packing;
    unsigned misses, skip,
        skips; /* pages that did not pack, in a row; not to be tried; as many the next time */
    char packed[PACKED_MAX];
    uint8_t still[GUEST_PAGE_SIZE]; /* what is packed: the guest may be writing to the page itself */
};

static const uint8_t zero_page[GUEST_PAGE_SIZE] __attribute__((aligned(GUEST_PAGE_SIZE)));

static size_t shadow_bytes(const PageEncoder *e)
{
    return e->page_count * GUEST_PAGE_SIZE;
}

static bool make_shadow(PageEncoder *e, Error **errp)
{
    void *shadow = mmap(NULL, shadow_bytes(e), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (shadow == MAP_FAILED) {
        error_setg_errno(errp, errno,
                         "shadow of guest RAM, %" PRIu64 " MiB (protect --no-delta does without)",
                         (uint64_t)shadow_bytes(e) >> 20);
        return false;
    }
    e->shadow = shadow;
    /* Page by page: a huge page is milliseconds of clearing in the middle of an epoch. */
    madvise(e->shadow, shadow_bytes(e), MADV_NOHUGEPAGE);
    e->used = calloc(1, bitmap_bytes(e->page_count));
    if (!e->used)
        error_setg_errno(errp, ENOMEM, "shadow of guest RAM");
    return e->used;
}

PageEncoder *page_encoder_new(uint64_t page_count, bool delta, bool blank, Error **errp)
{
    PageEncoder *e = calloc(1, sizeof(*e));

    if (!e) {
        error_setg_errno(errp, ENOMEM, "page encoder");
        return NULL;
    }
    e->page_count = page_count;
    e->blank = blank;
    if (delta && !make_shadow(e, errp)) {
        page_encoder_free(e);
        return NULL;
    }
    return e;
}

void page_encoder_free(PageEncoder *e)
{
    if (!e)
        return;
    if (e->shadow)
        munmap(e->shadow, shadow_bytes(e));
    free(e->used);
    free(e);
}

void page_encoder_reset(PageEncoder *e)
{
    if (!e->shadow)
        return;
    madvise(e->shadow, shadow_bytes(e), MADV_DONTNEED);
    memset(e->used, 0, bitmap_bytes(e->page_count));
    e->blank = true;
}

void page_encoder_set_packing(PageEncoder *e, bool on)
{
    if (on && !e->packing)
        e->misses = e->skip = e->skips = 0;
    e->packing = on;
}

static void note_miss(PageEncoder *e)
{
    if (++e->misses < MISSES_MAX)
        return;
    e->skips = e->skips ? e->skips * 2 : 1;
    if (e->skips > SKIP_MAX)
        e->skips = SKIP_MAX;
    e->skip = e->skips;
}

/* The bytes in e->packed; 0: it stays as it is. */
static int pack(PageEncoder *e, const uint8_t *data)
{
    int size;

    if (!e->packing || (e->skip && e->skip--))
        return 0;
    memcpy(e->still, data, GUEST_PAGE_SIZE);
    size = LZ4_compress_default((const char *)e->still, e->packed, GUEST_PAGE_SIZE, sizeof(e->packed));
    if (size > 0)
        e->misses = e->skips = 0;
    else
        note_miss(e);
    return size > 0 ? size : 0;
}

static void put_head(VMStream *f, uint64_t page, enum page_kind kind)
{
    perdure_stream_put_u64(f, page << 2 | kind);
}

static void put_delta(VMStream *f, uint64_t mask, const uint8_t *data)
{
    perdure_stream_put_u64(f, mask);
    for (; mask; mask &= mask - 1)
        perdure_stream_put_buffer(f, data + __builtin_ctzll(mask) * LINE, LINE);
}

static void put_packed(VMStream *f, const void *data, int size)
{
    perdure_stream_put_u16(f, (uint16_t)size);
    perdure_stream_put_buffer(f, data, (size_t)size);
}

static void update_shadow(uint8_t *shadow, uint64_t mask, const uint8_t *data)
{
    for (; mask; mask &= mask - 1) {
        size_t offset = __builtin_ctzll(mask) * LINE;
        memcpy(shadow + offset, data + offset, LINE);
    }
}

/* The lines in which data differs from what the other side holds. */
static uint64_t differing(const PageEncoder *e, uint64_t page, const uint8_t *data)
{
    if (e->shadow && bitmap_test(e->used, page))
        return page_diff(e->shadow + page * GUEST_PAGE_SIZE, data);
    /* Not the shadow's own zeroes: to read them would cost a page fault, and the write after it another. */
    return e->shadow && e->blank ? page_diff(zero_page, data) : UINT64_MAX;
}

enum page_kind page_encode(PageEncoder *e, VMStream *f, uint64_t page, const uint8_t *data)
{
    uint8_t *shadow = e->shadow ? e->shadow + page * GUEST_PAGE_SIZE : NULL;
    uint64_t mask = differing(e, page, data);
    enum page_kind kind = PAGE_FULL;
    int packed = 0;

    if (page_is_zero(data))
        kind = PAGE_ZERO;
    else if (mask && __builtin_popcountll(mask) <= DELTA_LINES_MAX)
        kind = PAGE_DELTA;
    /* A page that was written and is as before: one line says so, since every page that changed is named. */
    else if (!mask)
        kind = PAGE_DELTA, mask = 1;
    else if ((packed = pack(e, data)))
        kind = PAGE_PACKED;

    put_head(f, page, kind);
    if (kind == PAGE_DELTA)
        put_delta(f, mask, data);
    else if (kind == PAGE_FULL)
        perdure_stream_put_buffer(f, data, GUEST_PAGE_SIZE);
    else if (kind == PAGE_PACKED)
        put_packed(f, e->packed, packed);
    if (shadow && mask) {
        update_shadow(shadow, mask, data);
        bitmap_set(e->used, page);
    }
    return kind;
}

static bool get_packed(VMStream *f, uint64_t page, uint8_t *body)
{
    char packed[PACKED_MAX];
    uint16_t size = perdure_stream_get_u16(f);

    if (perdure_stream_error(f, NULL))
        return false;
    if (size && size <= sizeof(packed) && !perdure_stream_get_buffer(f, packed, size))
        return false;
    if (size && size <= sizeof(packed) &&
        LZ4_decompress_safe(packed, (char *)body, size, GUEST_PAGE_SIZE) == (int)GUEST_PAGE_SIZE)
        return true;
    perdure_stream_set_error(f, -EBADMSG, "page %" PRIu64 ": its packed content is damaged", page);
    return false;
}

/* A page as it came. body: whole, or of a delta the lines one after the other; it may be in the frame itself (in_place). */
struct got_page {
    uint64_t page, mask;
    enum page_kind kind;
    const uint8_t *body;
    bool in_place;
    uint8_t copy[GUEST_PAGE_SIZE];
};

static bool get_body(VMStream *f, struct got_page *g, size_t size)
{
    g->body = vmstream_get_in_place(f, size);
    g->in_place = g->body;
    if (g->in_place)
        return true;
    g->body = g->copy;
    return perdure_stream_get_buffer(f, g->copy, size);
}

static bool get_delta(VMStream *f, struct got_page *g)
{
    g->mask = perdure_stream_get_u64(f);
    if (!g->mask) {
        perdure_stream_set_error(f, -EBADMSG, "page %" PRIu64 ": an empty delta", g->page);
        return false;
    }
    return get_body(f, g, (size_t)__builtin_popcountll(g->mask) * LINE);
}

/* One page of the record: its head and body, checked and unpacked. */
static bool get_page(VMStream *f, uint64_t page_count, struct got_page *g)
{
    uint64_t head = perdure_stream_get_u64(f);

    g->page = head >> 2;
    g->kind = head & 3;
    g->in_place = false;
    g->body = g->copy;
    if (g->page >= page_count) {
        perdure_stream_set_error(f, -EBADMSG, "page %" PRIu64 ": RAM has %" PRIu64 " pages", g->page,
                                 page_count);
        return false;
    }
    switch (g->kind) {
    case PAGE_ZERO:
        return !perdure_stream_error(f, NULL);
    case PAGE_DELTA:
        return get_delta(f, g);
    case PAGE_FULL:
        return get_body(f, g, GUEST_PAGE_SIZE);
    case PAGE_PACKED:
        g->kind = PAGE_FULL;
        return get_packed(f, g->page, g->copy);
    }
    return false;
}

/* Full pages that follow each other, in one frame: they go into RAM together. */
struct run {
    uint64_t first;
    unsigned count;
    const void *pages[GUEST_MEMORY_RUN];
};

static void end_run(GuestMemory *m, struct run *run)
{
    if (run->count)
        guest_memory_place(m, run->first, run->pages, run->count);
    run->count = 0;
}

static void add_to_run(GuestMemory *m, struct run *run, const struct got_page *g)
{
    if (run->count == GUEST_MEMORY_RUN || g->page != run->first + run->count)
        end_run(m, run);
    if (!run->count)
        run->first = g->page;
    run->pages[run->count++] = g->body;
    if (!g->in_place)
        end_run(m, run);
}

static void apply_delta(uint8_t *ram, uint64_t mask, const uint8_t *body)
{
    for (; mask; mask &= mask - 1, body += LINE)
        memcpy(ram + __builtin_ctzll(mask) * LINE, body, LINE);
}

static void apply(GuestMemory *m, struct run *run, const struct got_page *g)
{
    uint8_t *ram = guest_memory_page_host(m, g->page);

    if (g->kind == PAGE_FULL) {
        add_to_run(m, run, g);
        return;
    }
    end_run(m, run); /* it may hold the same page */
    if (g->kind == PAGE_DELTA)
        apply_delta(ram, g->mask, g->body);
    else if (!page_is_zero(ram)) /* a hole stays a hole as long as nobody writes */
        memset(ram, 0, GUEST_PAGE_SIZE);
}

/* m NULL: not applied; map NULL: not listed. */
static int64_t walk(VMStream *f, GuestMemory *m, uint64_t page_count, uint64_t *map)
{
    struct got_page g;
    struct run run = {.count = 0};
    int64_t count = 0;
    bool ok = true;

    while (ok && perdure_stream_left(f)) {
        if (vmstream_left_in_place(f) < ENCODED_MAX)
            end_run(m, &run); /* the next page may be in another frame */
        ok = get_page(f, page_count, &g);
        if (ok && m)
            apply(m, &run, &g);
        if (ok && map)
            bitmap_set(map, g.page);
        count += ok;
    }
    end_run(m, &run);
    return perdure_stream_error(f, NULL) ? -1 : count;
}

int64_t page_decode_all(VMStream *f, GuestMemory *m)
{
    return walk(f, m, m->page_count, NULL);
}

static bool place(VMStream *f, MissingPages *mp, const struct got_page *g)
{
    Error *err = NULL;

    if (g->kind == PAGE_DELTA)
        perdure_stream_set_error(f, -EBADMSG, "page %" PRIu64 ": a delta of a missing page", g->page);
    else if (!missing_place(mp, g->page, g->kind == PAGE_ZERO ? NULL : g->body, &err))
        vmstream_take_error(f, err);
    return !perdure_stream_error(f, NULL);
}

int64_t page_decode_missing(VMStream *f, MissingPages *mp)
{
    struct got_page g;
    int64_t count = 0;

    while (perdure_stream_left(f)) {
        if (!get_page(f, mp->memory->page_count, &g) || !place(f, mp, &g))
            return -1;
        count++;
    }
    return perdure_stream_error(f, NULL) ? -1 : count;
}

int64_t page_check_all(VMStream *f, uint64_t page_count)
{
    return walk(f, NULL, page_count, NULL);
}

int64_t page_list_all(VMStream *f, uint64_t page_count, uint64_t *map)
{
    return walk(f, NULL, page_count, map);
}
