/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lanes, and RAM over them: both sides in one process, and sources that do not keep to the order. */
#include "base/bitmap.h"
#include "base/task.h"
#include "guest/page_codec.h"
#include "guest/ram_state.h"
#include "registry/context.h"
#include "stream/lanes.h"
#include "stream/vmstream.h"
#include <perdure/savevm.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define COUNT 3
#define PAGES 8192
#define SHARE 80000 /* bytes; a channel in memory holds two */

/* --- lanes alone: what is taken in says in which order that was --- */

struct shares {
    Lanes *put, *take;
    Channel *ends[COUNT][2];
    struct task_mutex lock;
    unsigned placed;  /* shares */
    char broken[256]; /* why; empty: they are not */
};

static void put_work(void *opaque, VMStream *f, unsigned lane)
{
    (void)opaque;
    for (unsigned i = 0; i < SHARE / 4; i++)
        perdure_stream_put_u32(f, lane);
}

static void take_work(void *opaque, VMStream *f, unsigned lane)
{
    struct shares *s = opaque;

    while (perdure_stream_left(f))
        if (perdure_stream_get_u32(f) != lane)
            perdure_stream_set_error(f, -EBADMSG, "that is another lane's");
    task_lock(&s->lock);
    s->placed++;
    task_unlock(&s->lock);
}

static void on_broken(void *opaque, const char *why)
{
    struct shares *s = opaque;

    task_lock(&s->lock);
    snprintf(s->broken, sizeof(s->broken), "%s", why);
    task_unlock(&s->lock);
}

static unsigned placed(struct shares *s)
{
    unsigned n;

    task_lock(&s->lock);
    n = s->placed;
    task_unlock(&s->lock);
    return n;
}

static void open_channels(Channel *ends[COUNT][2], Channel *here[COUNT], Channel *there[COUNT])
{
    for (int i = 0; i < COUNT; i++) {
        assert_true(channel_pair_new(ends[i], NULL));
        here[i] = ends[i][0];
        there[i] = ends[i][1];
    }
}

static void open_shares(struct shares *s)
{
    Channel *here[COUNT], *there[COUNT];

    *s = (struct shares){0};
    task_mutex_init(&s->lock);
    open_channels(s->ends, here, there);
    s->put = lanes_new(here, COUNT, NULL, NULL, NULL);
    s->take = lanes_new(there, COUNT, on_broken, s, NULL);
    assert_true(lanes_start(s->take, LANES_TAKE, take_work, s, NULL));
}

static void close_shares(struct shares *s)
{
    lanes_free(s->put);
    lanes_free(s->take);
    for (int i = 0; i < COUNT; i++) {
        channel_close(s->ends[i][0]);
        channel_close(s->ends[i][1]);
    }
    task_mutex_destroy(&s->lock);
}

static void share(struct shares *s)
{
    lanes_share(s->put);
    assert_true(lanes_join(s->put, NULL));
}

static void test_order(void **state)
{
    struct shares s;

    (void)state;
    open_shares(&s);
    assert_true(lanes_start(s.put, LANES_PUT, put_work, NULL, NULL));
    assert_true(lanes_skip(s.put, NULL)); /* part 1 */
    share(&s);                            /* part 2 is there, and waits */
    task_sleep_until(clock_now() + 20 * NS_PER_MS);
    assert_int_equal(placed(&s), 0);
    assert_true(lanes_skip(s.take, NULL));
    assert_true(lanes_join(s.take, NULL));
    assert_int_equal(placed(&s), COUNT);
    share(&s); /* of a part whose own record has not come yet: nothing is before it */
    share(&s);
    assert_true(lanes_join(s.take, NULL));
    assert_true(placed(&s) >= 2 * COUNT);
    assert_true(lanes_join(s.take, NULL));
    assert_int_equal(placed(&s), 3 * COUNT);
    assert_true(lanes_bytes(s.put) > 3 * COUNT * SHARE);
    assert_true(lanes_end(s.put, NULL));
    assert_true(lanes_end(s.take, NULL));
    lanes_free(s.put);
    s.put = NULL;
    close_shares(&s);
    assert_string_equal(s.broken, "");
}

/* One lane sends this, as by hand. */
static VMStream *raw_lane(struct shares *s, unsigned lane)
{
    VMStream *f = vmstream_new_writer(s->ends[lane][0]);

    assert_non_null(f);
    return f;
}

static void put_raw(VMStream *f, uint16_t type, uint64_t part)
{
    perdure_stream_begin(f, type, part);
    perdure_stream_end(f);
    assert_true(perdure_stream_flush(f, NULL));
}

/* In the end the main stream's task learns it, whatever it waits for. */
static void expect_broken(struct shares *s, const char *why)
{
    int64_t until = clock_now() + 10 * NS_PER_S;
    Error *err = NULL;

    while (lanes_skip(s->take, &err) && clock_now() < until)
        task_sleep_until(clock_now() + NS_PER_MS);
    assert_non_null(err);
    if (!strstr(error_get_pretty(err), why))
        fail_msg("%s: not as expected, '%s'", error_get_pretty(err), why);
    error_free(err);
}

/* Shares of each lane that are refused, with the text. */
static const struct {
    uint16_t type;
    uint64_t parts[2];
    const char *why;
} hostile[] = {
    {PERDURE_RECORD_SECTION_PART, {1}, "channel 2: unexpected record of type 0x11"},
    {PERDURE_RECORD_SECTION_SHARE, {0}, "channel 2: a share of part 0 comes again, or late"},
    {PERDURE_RECORD_SECTION_SHARE, {1, 1}, "channel 2: a share of part 1"}, /* twice, or not shared */
};

static void test_hostile_records(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        struct shares s;
        VMStream *f;

        open_shares(&s);
        f = raw_lane(&s, 1);
        put_raw(f, hostile[i].type, hostile[i].parts[0]);
        if (hostile[i].parts[1])
            put_raw(f, hostile[i].type, hostile[i].parts[1]);
        task_sleep_until(clock_now() + 5 * NS_PER_MS);
        expect_broken(&s, hostile[i].why);
        perdure_stream_close(f);
        close_shares(&s);
    }
}

/* It is waited with; but then there is none of the part at hand. */
static void test_share_far_ahead(void **state)
{
    Error *err = NULL;
    struct shares s;
    VMStream *f;

    (void)state;
    open_shares(&s);
    f = raw_lane(&s, 0);
    put_raw(f, PERDURE_RECORD_SECTION_SHARE, 1000);
    assert_false(lanes_join(s.take, &err));
    assert_non_null(strstr(error_get_pretty(err), "channel 1: there is no share of part 1"));
    error_free(err);
    close_shares(&s);
    perdure_stream_close(f);
}

static void test_share_before_the_end(void **state)
{
    Error *err = NULL;
    struct shares s;
    VMStream *f;

    (void)state;
    open_shares(&s);
    f = raw_lane(&s, 0);
    put_raw(f, PERDURE_RECORD_SECTION_SHARE, 1);
    while (placed(&s) < 1)
        task_sleep_until(clock_now() + NS_PER_MS);
    assert_false(lanes_end(s.take, &err));
    assert_non_null(strstr(error_get_pretty(err), "channel 1: a share of part 1, which is not shared"));
    error_free(err);
    close_shares(&s);
    perdure_stream_close(f);
}

/* A connection that ends ends the wait for its share. */
static void test_cut(void **state)
{
    Error *err = NULL;
    struct shares s;

    (void)state;
    open_shares(&s);
    channel_shutdown(s.ends[2][0]);
    assert_false(lanes_join(s.take, &err));
    assert_non_null(strstr(error_get_pretty(err), "channel 3: "));
    error_free(err);
    close_shares(&s);
    assert_non_null(strstr(s.broken, "channel 3: "));
}

static void test_cut_while_writing(void **state)
{
    Error *err = NULL;
    struct shares s;

    (void)state;
    open_shares(&s);
    assert_true(lanes_start(s.put, LANES_PUT, put_work, NULL, NULL));
    channel_shutdown(s.ends[1][0]);
    lanes_share(s.put);
    assert_false(lanes_join(s.put, &err));
    assert_non_null(err);
    error_free(err);
    close_shares(&s);
}

/* --- RAM over lanes --- */

struct fake {
    Guest guest; /* first */
    uint64_t changed[PAGES / 64];
};

static bool fake_tracking_start(Guest *guest, bool equal, Error **errp)
{
    (void)equal;
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

static void fill(struct fake *g, uint64_t first, uint64_t count, uint64_t seed)
{
    uint64_t words[GUEST_PAGE_SIZE / 8];

    for (uint64_t page = first; page < first + count; page++) {
        for (size_t i = 0; i < GUEST_PAGE_SIZE / 8; i++)
            words[i] = (seed + page) * (i + 1);
        guest_memory_write(g->guest.memory, page * GUEST_PAGE_SIZE, words, sizeof(words));
    }
}

/* Two machines; the lanes between them, and what the main stream has. */
struct bed {
    struct fake source, destination;
    struct registry_context *here, *there;
    Channel *ends[COUNT][2];
    VMStream *main;
    Lanes *put, *take;
};

/* What was put into the main stream since the last time goes into the destination's machine. */
static bool deliver(struct bed *b, Error **errp)
{
    VMStream *in = vmstream_reopen_memory(b->main);
    uint16_t type;
    uint64_t id;
    bool ok = true;

    registry_context_switch(b->there);
    while (ok && perdure_stream_next(in, &type, &id))
        ok = perdure_loadvm_record(in, type, id, errp);
    registry_context_switch(b->here);
    perdure_stream_close(in);
    perdure_stream_rewind(b->main);
    return ok;
}

/* The destination has its blocks, and waits for parts. */
static void bed_open(struct bed *b)
{
    Channel *here[COUNT], *there[COUNT];

    *b = (struct bed){.here = registry_context_new(), .there = registry_context_new()};
    open_channels(b->ends, here, there);
    b->main = perdure_stream_open_memory(1 << 20);
    b->put = lanes_new(here, COUNT, NULL, NULL, NULL);
    b->take = lanes_new(there, COUNT, NULL, NULL, NULL);
    registry_context_switch(b->there);
    fake_init(&b->destination);
    ram_state_set_lanes(&b->destination.guest, b->take);
    assert_true(perdure_loadvm_begin(b->main, NULL));
    registry_context_switch(b->here);
    fake_init(&b->source);
    fill(&b->source, 0, 6000, 1);
    ram_state_set_live(&b->source.guest, true);
    ram_state_set_lanes(&b->source.guest, b->put);
    assert_true(perdure_savevm_setup(b->main, NULL));
    assert_true(deliver(b, NULL));
}

static void bed_close(struct bed *b)
{
    registry_context_switch(b->here);
    perdure_savevm_cleanup();
    ram_state_unregister(&b->source.guest);
    lanes_free(b->put);
    registry_context_switch(b->there);
    perdure_loadvm_cleanup(NULL);
    lanes_free(b->take);
    ram_state_unregister(&b->destination.guest);
    registry_context_switch(NULL);
    registry_context_free(b->here);
    registry_context_free(b->there);
    guest_memory_free(b->source.guest.memory);
    guest_memory_free(b->destination.guest.memory);
    perdure_stream_close(b->main);
    for (int i = 0; i < COUNT; i++) {
        channel_close(b->ends[i][0]);
        channel_close(b->ends[i][1]);
    }
}

/* Its parts; so many bytes went over the lanes. */
static uint64_t send_pass(struct bed *b)
{
    uint64_t before = lanes_bytes(b->put);
    int status = 0;

    while (!status) {
        status = perdure_savevm_iterate(b->main, false, NULL);
        assert_true(status >= 0);
        assert_true(deliver(b, NULL));
    }
    return lanes_bytes(b->put) - before;
}

static void assert_same(struct bed *b)
{
    for (uint64_t page = 0; page < PAGES; page++)
        assert_memory_equal(guest_memory_page_host(b->source.guest.memory, page),
                            guest_memory_page_host(b->destination.guest.memory, page), GUEST_PAGE_SIZE);
}

static void test_ram(void **state)
{
    struct bed b;

    (void)state;
    bed_open(&b);
    assert_true(send_pass(&b) >
                1000 * GUEST_PAGE_SIZE); /* of two parts; the rest went over the main stream */
    fill(&b.source, 3, 100, 2);
    assert_int_equal(send_pass(&b), 0); /* too few for anybody else */
    for (unsigned i = 0; i < 20; i++) {
        fill(&b.source, 10 * i, 300 + i * i, 100 * i);
        assert_true(send_pass(&b) > 0);
    }
    ram_state_set_packing(&b.source.guest, true);
    fill(&b.source, 5000, 3192, 0); /* one of them is zero */
    assert_true(perdure_savevm_complete_precopy(b.main, false, NULL));
    assert_true(deliver(&b, NULL));
    assert_true(lanes_end(b.take, NULL));
    assert_same(&b);
    bed_close(&b);
}

/* A record of the main stream: the section goes on with this. */
static void put_part(struct bed *b, const uint8_t *body, size_t size)
{
    perdure_stream_begin(b->main, PERDURE_RECORD_SECTION_PART, 0);
    perdure_stream_put_buffer(b->main, body, size);
    perdure_stream_end(b->main);
}

static void expect_refusal(struct bed *b, const char *why)
{
    Error *err = NULL;

    assert_false(deliver(b, &err));
    if (!strstr(error_get_pretty(err), why))
        fail_msg("%s: not as expected, '%s'", error_get_pretty(err), why);
    error_free(err);
}

static void put_pages(struct bed *b, unsigned lane, uint64_t part, const uint8_t *pages, size_t size)
{
    VMStream *f = vmstream_new_writer(b->ends[lane][0]);

    perdure_stream_begin(f, PERDURE_RECORD_SECTION_SHARE, part);
    perdure_stream_put_buffer(f, pages, size);
    perdure_stream_end(f);
    assert_true(perdure_stream_flush(f, NULL));
    perdure_stream_close(f);
}

static void test_hostile_pages(void **state)
{
    static const struct {
        uint8_t pages[12];
        size_t size;
        const char *why;
    } shares[] = {
        {{0, 0x80}, 8, "channel 1: page 8192: RAM has 8192 pages"},
        {{0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 8, "RAM has 8192 pages"},
        {{2, 0}, 12, "channel 1: record type 0x14 id 1"}, /* a full page of four octets */
        {{1, 0}, 8, "channel 1: record type 0x14 id 1"},
        {{0}, 5, "channel 1: record type 0x14 id 1"},
    };
    static const uint8_t shared[] = {4};

    (void)state;
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        struct bed b;

        bed_open(&b);
        put_pages(&b, 0, 1, shares[i].pages, shares[i].size);
        put_part(&b, shared, sizeof(shared)); /* and nothing ever comes from the others */
        expect_refusal(&b, shares[i].why);
        bed_close(&b);
    }
}

/* What is missing from here on is told when all shares are in place, and none comes after it. */
static void test_hostile_missing(void **state)
{
    static const uint8_t missing[17] = {3, 0, 0, 0, 0, 0, 0, 0, 0, 1}, shared[] = {4};
    struct bed b;

    (void)state;
    bed_open(&b);
    put_part(&b, missing, sizeof(missing));
    assert_true(deliver(&b, NULL));
    put_part(&b, shared, sizeof(shared));
    expect_refusal(&b, "unexpected contents of kind 4");
    bed_close(&b);

    bed_open(&b);
    put_pages(&b, 0, 1, missing, 0);
    task_sleep_until(clock_now() + 20 * NS_PER_MS);
    put_part(&b, missing, sizeof(missing));
    expect_refusal(&b, "channel 1: a share of part 1, which is not shared");
    bed_close(&b);
}

/* Lanes that are none: the state is another one than was said. */
static void test_shared_without_lanes(void **state)
{
    static const uint8_t shared[] = {4};
    struct bed b;

    (void)state;
    bed_open(&b);
    registry_context_switch(b.there);
    perdure_loadvm_cleanup(NULL); /* which forgets them */
    registry_context_switch(b.here);
    put_part(&b, shared, sizeof(shared));
    expect_refusal(&b, "unexpected contents of kind 4");
    bed_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_hostile_records),
        cmocka_unit_test(test_share_far_ahead),
        cmocka_unit_test(test_share_before_the_end),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_cut_while_writing),
        cmocka_unit_test(test_ram),
        cmocka_unit_test(test_hostile_pages),
        cmocka_unit_test(test_hostile_missing),
        cmocka_unit_test(test_shared_without_lanes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
