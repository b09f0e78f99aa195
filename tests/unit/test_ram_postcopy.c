/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RAM of a postcopy, both sides in one process: what is told, pushed, asked for, lost and sent again; hostile sources. */
#include "base/bitmap.h"
#include "guest/page_codec.h"
#include "guest/ram_state.h"
#include "registry/context.h"
#include <perdure/savevm.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PAGES 1024

/* A guest whose changes are the bits of its memory's device bitmap. */
struct fake {
    Guest guest; /* first */
    uint64_t changed[PAGES / 64];
};

struct bed {
    struct fake source, destination;
    struct registry_context *here, *there;
    VMStream *link;
};

static bool fake_tracking_start(Guest *guest, bool equal, Error **errp)
{
    assert_false(equal);
    (void)errp;
    guest_memory_populated(guest->memory, ((struct fake *)guest)->changed);
    return true;
}

static void fake_tracking_stop(Guest *guest)
{
    (void)guest;
}

static bool fake_take_changed(Guest *guest, uint64_t *map, Error **errp)
{
    struct fake *g = (struct fake *)guest;

    (void)errp;
    guest_memory_take_dirty(guest->memory, g->changed);
    bitmap_or(map, g->changed, PAGES);
    memset(g->changed, 0, sizeof(g->changed));
    return true;
}

static uint64_t fake_changed(Guest *guest)
{
    return bitmap_popcount(((struct fake *)guest)->changed, PAGES);
}

static MissingPages *fake_missing_new(Guest *guest, Error **errp)
{
    return missing_uffd_new(guest->memory, errp);
}

static const struct guest_ops fake_ops = {
    .tracking_start = fake_tracking_start,
    .tracking_stop = fake_tracking_stop,
    .take_changed = fake_take_changed,
    .changed_pages = fake_changed,
    .missing_new = fake_missing_new,
};

static void fake_init(struct fake *g)
{
    *g = (struct fake){.guest.ops = &fake_ops,
                       .guest.memory = guest_memory_new(PAGES * GUEST_PAGE_SIZE, NULL)};
    assert_non_null(g->guest.memory);
    assert_true(ram_state_register(&g->guest, NULL));
}

static void fill(struct fake *g, uint64_t first, uint64_t count, int seed)
{
    uint8_t bytes[GUEST_PAGE_SIZE];

    for (uint64_t page = first; page < first + count; page++) {
        memset(bytes, seed + (int)page, sizeof(bytes));
        guest_memory_write(g->guest.memory, page * GUEST_PAGE_SIZE, bytes, sizeof(bytes));
    }
}

/* Here: pages [0, 500) were sent, and [100, 200) changed since. There: nothing yet. */
static void setup(struct bed *b)
{
    b->here = registry_context_new();
    b->there = registry_context_new();
    registry_context_switch(b->there);
    fake_init(&b->destination);
    registry_context_switch(b->here);
    fake_init(&b->source);
    b->link = perdure_stream_open_memory(1 << 20);
    fill(&b->source, 0, 500, 1);
    ram_state_set_live(&b->source.guest, true);
    assert_true(perdure_savevm_setup(b->link, NULL));
    assert_int_equal(perdure_savevm_iterate(b->link, false, NULL), 1);
    fill(&b->source, 100, 100, 7);
}

static void teardown(struct bed *b)
{
    registry_context_switch(b->here);
    perdure_savevm_cleanup();
    ram_state_unregister(&b->source.guest);
    registry_context_switch(b->there);
    perdure_loadvm_cleanup(NULL);
    ram_state_unregister(&b->destination.guest);
    registry_context_switch(NULL);
    registry_context_free(b->here);
    registry_context_free(b->there);
    guest_memory_free(b->source.guest.memory);
    guest_memory_free(b->destination.guest.memory);
    perdure_stream_close(b->link);
}

/* What was sent since the last time goes into the destination's machine. */
static bool deliver(struct bed *b, Error **errp)
{
    VMStream *in = perdure_stream_open_buffer(perdure_stream_memory(b->link, &(size_t){0}),
                                              perdure_stream_bytes(b->link));
    uint16_t type;
    uint64_t id;
    bool ok = true;

    registry_context_switch(b->there);
    while (ok && perdure_stream_next(in, &type, &id))
        ok = perdure_loadvm_record(in, type, id, errp);
    registry_context_switch(b->here);
    perdure_stream_close(in);
    perdure_stream_rewind(b->link);
    return ok;
}

static MissingPages *missing(struct bed *b)
{
    MissingPages *mp;

    registry_context_switch(b->there);
    mp = ram_postcopy_missing(&b->destination.guest);
    registry_context_switch(b->here);
    return mp;
}

static void begin_load(struct bed *b)
{
    registry_context_switch(b->there);
    assert_true(perdure_loadvm_begin(b->link, NULL));
    registry_context_switch(b->here);
}

/* Both sides know that [100, 210) is to come: the guest would run there now. */
static void switch_over(struct bed *b)
{
    begin_load(b);
    assert_true(ram_postcopy_begin(&b->source.guest, NULL));
    assert_int_equal(perdure_savevm_iterate(b->link, true, NULL), 1);
    assert_int_equal(ram_postcopy_told(&b->source.guest), 100);
    fill(&b->source, 150, 60, 9); /* of these only ten are news */
    assert_int_equal(perdure_savevm_iterate(b->link, true, NULL), 1);
    assert_int_equal(ram_postcopy_told(&b->source.guest), 10);
    ram_postcopy_push(&b->source.guest);
    assert_true(perdure_savevm_complete_precopy(b->link, true, NULL));
    assert_null(missing(b));
    assert_true(deliver(b, NULL));
    assert_int_equal(missing_left(missing(b)), 110);
}

static uint64_t pending(struct bed *b)
{
    uint64_t precopy, any, postcopy;

    perdure_savevm_pending(b->link, 0, &precopy, &any, &postcopy);
    assert_int_equal(precopy + postcopy, 0);
    return any / GUEST_PAGE_SIZE;
}

static void assert_same(struct bed *b)
{
    for (uint64_t page = 0; page < PAGES; page++)
        assert_memory_equal(guest_memory_page_host(b->source.guest.memory, page),
                            guest_memory_page_host(b->destination.guest.memory, page), GUEST_PAGE_SIZE);
}

static void finish(struct bed *b)
{
    int status = 0;

    while (!status)
        status = perdure_savevm_iterate(b->link, true, NULL);
    assert_int_equal(status, 1);
    assert_true(deliver(b, NULL));
    assert_int_equal(missing_left(missing(b)), 0);
    assert_true(perdure_savevm_complete_postcopy(b->link, NULL));
    assert_true(deliver(b, NULL));
    registry_context_switch(b->there);
    assert_true(perdure_loadvm_complete(NULL));
    assert_true(perdure_loadvm_cleanup(NULL));
    registry_context_switch(b->here);
    assert_null(missing(b));
    assert_same(b);
}

static void test_all_of_it(void **state)
{
    struct bed b;

    (void)state;
    setup(&b);
    switch_over(&b);
    registry_context_switch(b.there);
    assert_true(perdure_loadvm_may_run(NULL));
    assert_false(perdure_loadvm_complete(NULL));
    registry_context_switch(b.here);
    assert_int_equal(pending(&b), 110);
    finish(&b);
    teardown(&b);
}

/* A pass that ended early: what it has left is to come, too. */
static void test_pass_cut_short(void **state)
{
    struct bed b;

    (void)state;
    setup(&b);
    ram_state_set_part(&b.source.guest, 16 * GUEST_PAGE_SIZE);
    assert_int_equal(perdure_savevm_iterate(b.link, false, NULL), 0); /* of [100, 200) */
    begin_load(&b);
    assert_true(ram_postcopy_begin(&b.source.guest, NULL));
    fill(&b.source, 100, 8, 9); /* sent a moment ago */
    assert_int_equal(perdure_savevm_iterate(b.link, true, NULL), 1);
    assert_int_equal(ram_postcopy_told(&b.source.guest), 84 + 8);
    ram_postcopy_push(&b.source.guest);
    assert_true(perdure_savevm_complete_precopy(b.link, true, NULL));
    assert_true(deliver(&b, NULL));
    assert_int_equal(missing_left(missing(&b)), 92);
    finish(&b);
    teardown(&b);
}

/* What is asked for goes at once, and the pushing goes on behind it. */
static void test_asked_for(void **state)
{
    VMStream *urgent = perdure_stream_open_memory(8192), *in;
    uint64_t first, count, id;
    Error *err = NULL;
    uint16_t type;
    struct bed b;

    (void)state;
    setup(&b);
    switch_over(&b);
    perdure_stream_begin(urgent, 1, 0);
    assert_true(ram_postcopy_put(&b.source.guest, urgent, 140, NULL));
    assert_false(ram_postcopy_put(&b.source.guest, urgent, PAGES, &err));
    assert_non_null(strstr(error_get_pretty(err), "page 1024"));
    error_free(err);
    perdure_stream_end(urgent);
    in =
        perdure_stream_open_buffer(perdure_stream_memory(urgent, &(size_t){0}), perdure_stream_bytes(urgent));
    assert_true(perdure_stream_next(in, &type, &id));
    assert_int_equal(page_decode_missing(in, missing(&b)), 1);
    assert_int_equal(missing_left(missing(&b)), 109);
    assert_int_equal(pending(&b), 109);
    assert_int_equal(perdure_savevm_iterate(b.link, true, NULL), 0); /* 64 pages */
    assert_true(deliver(&b, NULL));
    assert_true(missing_find(missing(&b), 0, &first, &count));
    assert_true(first == 100 && count == 40); /* 141 to 204 have come */
    assert_true(missing_find(missing(&b), 140, &first, &count));
    assert_true(first == 205 && count == 5);
    finish(&b);
    perdure_stream_close(in);
    perdure_stream_close(urgent);
    teardown(&b);
}

/* Pages that were on their way when the link broke are sent again. */
static void test_lost(void **state)
{
    VMStream *lack = perdure_stream_open_memory(8192), *in;
    struct MigrationState resumed;
    uint16_t type;
    uint64_t id;
    struct bed b;

    (void)state;
    setup(&b);
    switch_over(&b);
    assert_int_equal(perdure_savevm_iterate(b.link, true, NULL), 0);
    perdure_stream_rewind(b.link);
    assert_int_equal(pending(&b), 46);
    registry_context_switch(b.there);
    perdure_stream_begin(lack, 1, 0);
    ram_postcopy_put_missing(&b.destination.guest, lack);
    perdure_stream_end(lack);
    registry_context_switch(b.here);
    in = perdure_stream_open_buffer(perdure_stream_memory(lack, &(size_t){0}), perdure_stream_bytes(lack));
    assert_true(perdure_stream_next(in, &type, &id));
    resumed.in = in;
    assert_true(perdure_savevm_resume_prepare(&resumed, NULL));
    assert_int_equal(pending(&b), 110);
    finish(&b);
    perdure_stream_close(in);
    perdure_stream_close(lack);
    teardown(&b);
}

/* A destination that lacks what is no memory. */
static void test_hostile_lack(void **state)
{
    static const uint64_t runs[][2] = {{PAGES, 1}, {0, 0}, {PAGES - 1, 2}, {0, PAGES + 1}, {UINT64_MAX, 2}};
    struct bed b;

    (void)state;
    setup(&b);
    switch_over(&b);
    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        VMStream *lack = perdure_stream_open_memory(8192), *in;
        struct MigrationState resumed;
        Error *err = NULL;
        uint16_t type;
        uint64_t id;

        perdure_stream_begin(lack, 1, 0);
        perdure_stream_put_u64(lack, runs[i][0]);
        perdure_stream_put_u64(lack, runs[i][1]);
        perdure_stream_end(lack);
        in =
            perdure_stream_open_buffer(perdure_stream_memory(lack, &(size_t){0}), perdure_stream_bytes(lack));
        assert_true(perdure_stream_next(in, &type, &id));
        resumed.in = in;
        assert_false(perdure_savevm_resume_prepare(&resumed, &err));
        assert_non_null(strstr(error_get_pretty(err), "ram.0"));
        error_free(err);
        perdure_stream_close(in);
        perdure_stream_close(lack);
    }
    teardown(&b);
}

/* One PART of the source's, by hand. */
static void try_part(struct bed *b, const char *says, const void *body, size_t size)
{
    Error *err = NULL;

    perdure_stream_begin(b->link, PERDURE_RECORD_SECTION_PART, 0);
    perdure_stream_put_buffer(b->link, body, size);
    perdure_stream_end(b->link);
    assert_false(deliver(b, &err));
    if (!strstr(error_get_pretty(err), says))
        fail_msg("'%s' is not in '%s'", says, error_get_pretty(err));
    error_free(err);
}

static void test_hostile_source(void **state)
{
    static const uint8_t beyond[17] = {3, 0, 4, 0, 0, 0, 0, 0, 0, 1}, none[17] = {3, 1},
                         long_run[17] = {3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 4}, cut[10] = {3}, unknown[] = {4},
                         delta[81] = {2, 0x91, 1, 0, 0, 0, 0, 0, 0, 1};
    struct bed b;

    (void)state;
    setup(&b);
    switch_over(&b);
    try_part(&b, "missing pages from 1024", beyond, sizeof(beyond));
    try_part(&b, "0 missing pages", none, sizeof(none));
    try_part(&b, "1024 missing pages from 1", long_run, sizeof(long_run));
    try_part(&b, "ram.0", cut, sizeof(cut));
    try_part(&b, "kind 4", unknown, sizeof(unknown));
    try_part(&b, "a delta of a missing page", delta, sizeof(delta));
    finish(&b); /* and nothing of that did any harm */
    teardown(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_of_it),    cmocka_unit_test(test_pass_cut_short),
        cmocka_unit_test(test_asked_for),    cmocka_unit_test(test_lost),
        cmocka_unit_test(test_hostile_lack), cmocka_unit_test(test_hostile_source),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
