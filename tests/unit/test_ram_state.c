/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bitmap.h"
#include "guest/ram_state.h"
#include <perdure/savevm.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)

/* A guest whose changes are the bits of its memory's device bitmap. */
struct fake {
    Guest guest; /* first */
    uint64_t *changed;
    int tracking, fail_after;
};

static void harvest(struct fake *g)
{
    guest_memory_take_dirty(g->guest.memory, g->changed);
}

static bool fake_tracking_start(Guest *guest, bool equal, Error **errp)
{
    struct fake *g = (struct fake *)guest;

    assert_false(equal);
    (void)errp;
    g->tracking++;
    guest_memory_populated(guest->memory, g->changed);
    return true;
}

static void fake_tracking_stop(Guest *guest)
{
    ((struct fake *)guest)->tracking--;
}

static bool fake_take_changed(Guest *guest, uint64_t *map, Error **errp)
{
    struct fake *g = (struct fake *)guest;

    if (g->fail_after && --g->fail_after == 0) {
        error_setg(errp, "the log is gone");
        return false;
    }
    harvest(g);
    bitmap_or(map, g->changed, guest->memory->page_count);
    memset(g->changed, 0, bitmap_bytes(guest->memory->page_count));
    return true;
}

static uint64_t fake_changed(Guest *guest)
{
    struct fake *g = (struct fake *)guest;

    harvest(g);
    return bitmap_popcount(g->changed, guest->memory->page_count);
}

static const struct guest_ops fake_ops = {
    .tracking_start = fake_tracking_start,
    .tracking_stop = fake_tracking_stop,
    .take_changed = fake_take_changed,
    .changed_pages = fake_changed,
};

static void fake_init(struct fake *g, uint64_t size)
{
    *g = (struct fake){.guest.ops = &fake_ops, .guest.memory = guest_memory_new(size, NULL)};
    assert_non_null(g->guest.memory);
    g->changed = calloc(1, bitmap_bytes(g->guest.memory->page_count));
}

static void fake_done(struct fake *g)
{
    guest_memory_free(g->guest.memory);
    free(g->changed);
}

static void fill(GuestMemory *m, uint64_t first, uint64_t count, uint8_t seed)
{
    for (uint64_t page = first; page < first + count; page++) {
        uint8_t bytes[GUEST_PAGE_SIZE];

        memset(bytes, seed + (int)page, sizeof(bytes));
        guest_memory_write(m, guest_memory_page_gpa(m, page), bytes, sizeof(bytes));
    }
}

static VMStream *reread(VMStream *f)
{
    size_t size;
    const void *data = perdure_stream_memory(f, &size);

    return perdure_stream_open_buffer(data, size);
}

/* Loads f into a machine of `size`, which holds other things before; its error, or NULL. */
static Error *load(VMStream *f, uint64_t size, uint64_t expected_hash)
{
    VMStream *in = reread(f);
    struct fake to;
    Error *err = NULL;

    fake_init(&to, size);
    fill(to.guest.memory, 3, 50, 99);
    assert_true(ram_state_register(&to.guest, NULL));
    if (perdure_loadvm_all(in, &err))
        assert_int_equal(guest_memory_hash(to.guest.memory), expected_hash);
    else
        assert_non_null(err);
    ram_state_unregister(&to.guest);
    fake_done(&to);
    perdure_stream_close(in);
    return err;
}

static void test_stopped(void **state)
{
    VMStream *f = perdure_stream_open_memory(1 << 20);
    struct fake g;
    uint64_t hash;
    Error *err = NULL;

    (void)state;
    fake_init(&g, 64 * MIB);
    fill(g.guest.memory, 0, 10, 1);
    fill(g.guest.memory, 3000, 5000, 7); /* more than a pass */
    fill(g.guest.memory, g.guest.memory->page_count - 1, 1, 7);
    hash = guest_memory_hash(g.guest.memory);
    assert_true(ram_state_register(&g.guest, &err));
    assert_true(perdure_savevm_all(f, &err));
    ram_state_unregister(&g.guest);
    assert_int_equal(g.tracking, 0);
    assert_true(perdure_stream_bytes(f) < 5100 * 4200);
    assert_null(load(f, 64 * MIB, hash));
    fake_done(&g);
    perdure_stream_close(f);
}

static void test_live(void **state)
{
    VMStream *f = perdure_stream_open_memory(1 << 20);
    uint64_t a, b, c, hash;
    struct fake g;

    (void)state;
    fake_init(&g, 64 * MIB);
    fill(g.guest.memory, 100, 6000, 1);
    assert_true(ram_state_register(&g.guest, NULL));
    ram_state_set_live(&g.guest, true);
    assert_true(perdure_savevm_setup(f, NULL));
    assert_int_equal(g.tracking, 1);
    /* A pass is everything that had changed when it began, in as many parts as it takes. */
    assert_int_equal(perdure_savevm_iterate(f, false, NULL), 0);
    assert_int_equal(perdure_savevm_iterate(f, false, NULL), 1);
    fill(g.guest.memory, 200, 4, 9); /* sent already: changes again, and is sent again */
    perdure_savevm_pending(f, 0, &a, &b, &c);
    assert_int_equal(a, 4 * GUEST_PAGE_SIZE);
    assert_int_equal(perdure_savevm_iterate(f, false, NULL), 1);
    perdure_savevm_pending(f, 0, &a, &b, &c);
    assert_int_equal(a, 0);
    fill(g.guest.memory, 0, 5000, 77); /* more than a part for complete */
    perdure_savevm_pending(f, 0, &a, &b, &c);
    assert_true(a >= 5000 * GUEST_PAGE_SIZE);
    assert_int_equal(b + c, 0);
    assert_true(perdure_savevm_complete_precopy(f, false, NULL));
    perdure_stream_begin(f, PERDURE_RECORD_STATE_END, 0);
    perdure_stream_end(f);
    perdure_savevm_cleanup();
    assert_int_equal(g.tracking, 0);
    hash = guest_memory_hash(g.guest.memory);
    ram_state_unregister(&g.guest);
    assert_null(load(f, 64 * MIB, hash));
    fake_done(&g);
    perdure_stream_close(f);
}

static void test_live_failure_cleans_up(void **state)
{
    VMStream *f = perdure_stream_open_memory(1 << 20);
    Error *err = NULL;
    struct fake g;

    (void)state;
    fake_init(&g, 4 * MIB);
    g.fail_after = 1;
    assert_true(ram_state_register(&g.guest, NULL));
    assert_false(ram_state_register(&g.guest, NULL)); /* the list has RAM */
    ram_state_set_live(&g.guest, true);
    assert_false(perdure_savevm_all(f, &err));
    assert_string_equal(error_get_pretty(err), "saving ram.0: the log is gone");
    assert_int_equal(g.tracking, 0);
    error_free(err);
    ram_state_unregister(&g.guest);
    ram_state_unregister(&g.guest);
    fake_done(&g);
    perdure_stream_close(f);
}

static void test_other_size_is_refused(void **state)
{
    VMStream *f = perdure_stream_open_memory(1 << 20);
    Error *err;
    struct fake g;

    (void)state;
    fake_init(&g, 16 * MIB);
    assert_true(ram_state_register(&g.guest, NULL));
    assert_true(perdure_savevm_all(f, NULL));
    ram_state_unregister(&g.guest);
    fake_done(&g);
    err = load(f, 8 * MIB, 0);
    assert_string_equal(error_get_pretty(err),
                        "loading ram.0: the state has 16 MiB of RAM, this machine 8 MiB; "
                        "they must be the same: Invalid argument");
    error_free(err);
    err = load(f, (UINT64_C(3) << 30) + 8 * MIB, 0); /* two blocks */
    assert_non_null(err);
    error_free(err);
    perdure_stream_close(f);
}

/* RAM records that the walk lets through and the component must refuse. */
static void try_body(const uint8_t *start, size_t start_size, const uint8_t *part, size_t part_size)
{
    VMStream *f = perdure_stream_open_memory(4096);
    Error *err;

    perdure_stream_begin(f, PERDURE_RECORD_SECTION_START, 0);
    perdure_stream_put_string(f, "ram");
    perdure_stream_put_u32(f, 0);
    perdure_stream_put_u32(f, 1);
    perdure_stream_put_buffer(f, start, start_size);
    perdure_stream_end(f);
    perdure_stream_begin(f, PERDURE_RECORD_SECTION_PART, 0);
    perdure_stream_put_buffer(f, part, part_size);
    perdure_stream_end(f);
    err = load(f, 4 * MIB, 0);
    assert_non_null(err);
    error_free(err);
    perdure_stream_close(f);
}

static void test_hostile(void **state)
{
    static const uint8_t good[] = {1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0};
    static const uint8_t many[] = {1, 0xff, 0xff, 0xff, 0xff, 0, 0};
    static const uint8_t beyond[] = {2, 0, 0x10, 0, 0, 0, 0, 0, 0}; /* page 1024 of 1024 */
    static const uint8_t kind[] = {2, 3, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t cut[] = {2, 2, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3}; /* full page of 3 bytes */
    static const uint8_t half[] = {2, 0, 0};

    (void)state;
    try_body(good, sizeof(good), good, sizeof(good)); /* blocks twice */
    try_body(many, sizeof(many), half, sizeof(half));
    try_body(half, 1, half, 1); /* pages without blocks */
    try_body(good, sizeof(good) - 1, half, 1);
    try_body(good, sizeof(good), beyond, sizeof(beyond));
    try_body(good, sizeof(good), kind, sizeof(kind));
    try_body(good, sizeof(good), cut, sizeof(cut));
    try_body(good, sizeof(good), half, sizeof(half));
    try_body(good, sizeof(good), half, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_live),
        cmocka_unit_test(test_live_failure_cleans_up),
        cmocka_unit_test(test_other_size_is_refused),
        cmocka_unit_test(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
