/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile sources of a migration: the bytes of a real one, cut, damaged, reordered, repeated and overdrawn. The
 * destination says what is wrong, runs nothing, claims nothing, and takes in the next migration as if nothing had been.
 * (test_hostile_sections.c has what is inside of the records, test_hostile_destination.c the other side.)
 *
 * The stream is recorded when the test begins, so nothing here knows more of it than a case needs.
 */
#include "hostile_fixture.h"

#include "base/crc32c.h"
#include "stream/frame.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SPARSE 16 /* a run takes several times as long */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SPARSE 16
#endif
#endif
#ifndef SPARSE
#define SPARSE 1
#endif
#define BULK 1500 /* a body beyond that is pages or blocks, where one octet is as good as another */
#define STEP 97   /* in bulk */

/* --- as it is --- */

static void test_good(void **state)
{
    struct rig_result r, after;

    (void)state;
    rig_offer(&good, stream(), stream_size(), false, &r, NULL);
    check_good(&r, "the recording", 0);
    assert_int_equal(r.answers[WIRE_LOADED], 1);
    assert_true(good.memory_hash && good.disk_hash && good.device_hash);
    assert_string_equal(r.error, "");
    /* taken apart and put together it is the same */
    {
        struct rig_bytes b = records_join(&parts);

        assert_int_equal(b.size, stream_size());
        assert_memory_equal(b.data, stream(), b.size);
        free(b.data);
    }
    /* Silence is as good as an end. */
    rig_offer(&good, stream(), stream_size() / 2, true, &r, &after);
    check_result(&r, "silence", 0);
    assert_non_null(strstr(r.error, "no sign of life"));
    check_good(&after, "silence", 0);
}

/* --- octets --- */

/* Every octet of heads, one in so many of devices, a sample of bulk. */
static bool is_looked_at(const struct record *r, size_t offset, size_t one_in)
{
    size_t end = FRAME_HEADER_SIZE + r->size;

    if (offset < FRAME_HEADER_SIZE + 16 || offset + 2 > end)
        return SPARSE == 1 || offset % 5 == 0;
    return offset % (r->size > BULK ? STEP * SPARSE : one_in * SPARSE) == 0;
}

static void each_octet(void (*fn)(const struct record *r, size_t offset), size_t one_in)
{
    for (unsigned i = 0; i < parts.count; i++)
        for (size_t o = 0; o < FRAME_HEADER_SIZE + parts.r[i].size; o++)
            if (is_looked_at(&parts.r[i], o, one_in))
                fn(&parts.r[i], o);
}

static bool now_and_then(size_t where)
{
    return where % 64 == 0;
}

static void cut(const struct record *r, size_t offset)
{
    size_t at = r->at + offset;

    refused(stream(), at,
            offset ? "the stream ends inside of a frame" : "the other side closed the connection",
            now_and_then(at), "cut", at);
}

static void test_cut(void **state)
{
    (void)state;
    each_octet(cut, 1);
}

/* The checksums are left as they were. */
static void damage(const struct record *r, size_t offset)
{
    size_t at = r->at + offset;
    uint8_t *copy = malloc(stream_size());

    memcpy(copy, stream(), stream_size());
    copy[at] ^= (uint8_t)(1u << at % 8);
    refused(copy, stream_size(),
            offset < FRAME_HEADER_SIZE ? "the checksum of the header is wrong"
                                       : "the checksum of the body is wrong",
            now_and_then(at), "damage", at);
    free(copy);
}

static void test_damage(void **state)
{
    (void)state;
    each_octet(damage, 7); /* a checksum is a checksum */
}

/* The checksums are made right again: what is behind them has to see it, or live with it. */
static void forge(const struct record *r, size_t offset)
{
    size_t at = r->at + offset;
    uint8_t *copy = malloc(stream_size()), *head = copy + r->at;
    uint32_t crc;

    memcpy(copy, stream(), stream_size());
    copy[at] ^= (uint8_t)(1u << at % 8);
    if (offset >= FRAME_HEADER_SIZE) {
        crc = crc32c(0, head + FRAME_HEADER_SIZE, r->size);
        le32_put(head + 16, crc);
    }
    crc = crc32c(0, head, FRAME_HEADER_SIZE - 4);
    le32_put(head + FRAME_HEADER_SIZE - 4, crc);
    bearable(copy, stream_size(), "forged", at);
    free(copy);
}

static void test_forged(void **state)
{
    (void)state;
    each_octet(forge, 1);
}

/* --- frames --- */

static void put_frame(struct rig_bytes *b, struct frame fr, const void *body, size_t size, bool fix)
{
    uint8_t head[FRAME_HEADER_SIZE];
    uint32_t length = fr.length;

    fr.length = (uint32_t)size;
    frame_encode(head, &fr, body);
    le32_put(head + 4, length);
    if (fix)
        le32_put(head + 20, crc32c(0, head, 20));
    rig_bytes_add(b, head, sizeof(head));
    rig_bytes_add(b, body, size);
}

/* The recording up to its first section, then frames that nobody writes. */
static void hostile_frame(struct frame a, const struct frame *b, const char *why)
{
    static const uint8_t body[PERDURE_STREAM_CHUNK + 1];
    struct rig_bytes all = {0};

    rig_bytes_add(&all, stream(), parts.r[find(PERDURE_RECORD_SECTION_START)].at);
    put_frame(&all, a, body, a.length < sizeof(body) ? a.length : sizeof(body), true);
    if (b)
        put_frame(&all, *b, body, b->length, true);
    refused(all.data, all.size, why, true, "a frame", a.length);
    free(all.data);
}

static void test_frames(void **state)
{
    const uint16_t part = PERDURE_RECORD_SECTION_PART;
    const struct frame more = {part, FRAME_MORE, PERDURE_STREAM_CHUNK, 7, 0};

    (void)state;
    hostile_frame((struct frame){part, 2, 0, 7, 0}, NULL, "unknown flags");
    hostile_frame((struct frame){part, 0xffff, 0, 7, 0}, NULL, "unknown flags");
    hostile_frame((struct frame){part, 0, PERDURE_STREAM_CHUNK + 1, 7, 0}, NULL, "too long");
    hostile_frame((struct frame){part, 0, UINT32_MAX, 7, 0}, NULL, "too long");
    hostile_frame((struct frame){part, FRAME_MORE, 3, 7, 0}, NULL, "is not full");
    hostile_frame((struct frame){part, FRAME_MORE, 0, 7, 0}, NULL, "is not full");
    hostile_frame((struct frame){WIRE_FEED, FRAME_MORE, PERDURE_STREAM_CHUNK, 1, 0}, NULL,
                  "the stream ends inside of a record");
    hostile_frame((struct frame){WIRE_FEED, FRAME_MORE, PERDURE_STREAM_CHUNK, 1, 0}, &more, "does not go on");
    hostile_frame((struct frame){0x7fff, 0, 0, 0, 0}, NULL, "unexpected record of type 0x7fff");
    hostile_frame((struct frame){0x14, 0, 0, 0, 0}, NULL, "unexpected record of type 0x14");
}

/* What a reader does not know and may do without, anywhere. */
static void test_optional(void **state)
{
    struct records *rs;

    (void)state;
    for (unsigned i = 0; i <= parts.count; i++) {
        struct rig_result r;
        struct rig_bytes b;

        rs = change();
        records_insert(rs, i, PERDURE_RECORD_OPTIONAL | 0x13, UINT64_MAX, "whatever", 8);
        b = records_join(rs);
        rig_offer(&good, b.data, b.size, false, &r, NULL);
        check_good(&r, "an optional record", i);
        free(b.data);
    }
}

/* --- records --- */

/* Each one left out, sent twice, or before the one that it follows. */
static void test_order_of_any(void **state)
{
    struct records *rs;

    (void)state;
    for (unsigned i = 0; i < parts.count; i++) {
        rs = change();
        records_remove(rs, i);
        bearable_records(rs, "left out", i);
        rs = change();
        records_insert(rs, i, rs->r[i].type, rs->r[i].id, rs->r[i].body, rs->r[i].size);
        bearable_records(rs, "twice", i);
        for (unsigned k = i + 1; k < parts.count; k++) {
            rs = change();
            records_swap(rs, i, k);
            bearable_records(rs, "exchanged", i * 1000 + k);
        }
    }
}

static void without(unsigned i, const char *why)
{
    struct records *rs = change();

    records_remove(rs, i);
    refused_records(rs, why, "without", i);
}

static void twice(unsigned i, const char *why)
{
    struct records *rs = change();

    records_insert(rs, i + 1, rs->r[i].type, rs->r[i].id, rs->r[i].body, rs->r[i].size);
    refused_records(rs, why, "twice", i);
}

/* The record i comes before the record k. */
static void moved(unsigned i, unsigned k, const char *why)
{
    struct record r = parts.r[i];
    struct records *rs = change();

    records_remove(rs, i);
    records_insert(rs, k, r.type, r.id, r.body, r.size);
    refused_records(rs, why, "moved", i * 1000 + k);
}

/* Devices do not depend on each other's states: it is the same machine. */
static void test_devices_in_another_order(void **state)
{
    unsigned first = find(PERDURE_RECORD_SECTION_FULL), last = find_last(PERDURE_RECORD_SECTION_FULL);
    struct records *rs = change();
    struct rig_result r;
    struct rig_bytes b;

    (void)state;
    for (unsigned i = first; first + last > 2 * i; i++)
        records_swap(rs, i, first + last - i);
    b = records_join(rs);
    rig_offer(&good, b.data, b.size, false, &r, NULL);
    check_good(&r, "devices in another order", 0);
    free(b.data);
}

static void test_left_out(void **state)
{
    (void)state;
    without(find(WIRE_CONFIG), "out of turn");
    without(find(WIRE_START), "came after epoch");
    without(find(WIRE_FEED), "LAYOUT");
    without(find(PERDURE_RECORD_SECTION_START), "goes on without having started");
    without(find(PERDURE_RECORD_SECTION_END),
            "the state has no end of section ram.0, which this machine needs");
    for (unsigned i = 0; i < parts.count; i++)
        if (parts.r[i].type == PERDURE_RECORD_SECTION_FULL)
            without(i, "which this machine needs");
    without(find(PERDURE_RECORD_STATE_END), "the primary gave its permission to run out of turn");
    without(find(WIRE_RUN), "the other side closed the connection");
}

static void test_twice(void **state)
{
    (void)state;
    twice(find(WIRE_CONFIG), "the primary sent a second configuration");
    twice(find(WIRE_START), "the primary started replication out of turn");
    twice(find(WIRE_FEED), "LAYOUT came twice");
    twice(find(PERDURE_RECORD_SECTION_START), "section ram.0 is there twice");
    twice(find(PERDURE_RECORD_SECTION_END), "goes on without having started");
    for (unsigned i = 0; i < parts.count; i++)
        if (parts.r[i].type == PERDURE_RECORD_SECTION_FULL)
            twice(i, "is there twice");
    twice(find(PERDURE_RECORD_STATE_END), "a section of a machine's state came out of turn");
}

static void test_moved(void **state)
{
    unsigned start = find(PERDURE_RECORD_SECTION_START), end = find(PERDURE_RECORD_SECTION_END);
    unsigned full = find(PERDURE_RECORD_SECTION_FULL), run = find(WIRE_RUN);

    (void)state;
    moved(find(WIRE_START), find(WIRE_CONFIG), "out of turn");
    moved(find(PERDURE_RECORD_SECTION_PART), start, "goes on without having started");
    moved(end, start, "goes on without having started");
    moved(find_last(PERDURE_RECORD_SECTION_PART), end, "goes on without having started");
    moved(start, find(WIRE_START), "a section of a machine's state came out of turn");
    moved(full, find(WIRE_START), "a section of a machine's state came out of turn");
    moved(find(PERDURE_RECORD_STATE_END), start, "the machine's state is empty");
    moved(find(PERDURE_RECORD_STATE_END), end, "which this machine needs");
    moved(find_last(WIRE_FEED), find(PERDURE_RECORD_STATE_END), "came after epoch");
    /* Permission to run what is not there. */
    for (unsigned i = find(WIRE_CONFIG); i < run; i++)
        moved(run, i, "the primary gave its permission to run out of turn");
    {
        struct records *rs = change();

        rs->r[run].id = 1;
        refused_records(rs, "the primary gave its permission to run out of turn", "RUN of an epoch", 1);
    }
}

/* Of a protection in a migration, and of nobody. */
static void test_strangers(void **state)
{
    static const uint16_t strangers[] = {WIRE_SYNC_PAGES, WIRE_PAGES,   WIRE_END,    WIRE_ACK,
                                         WIRE_ENDED,      WIRE_RUNNING, WIRE_LOADED, WIRE_HELLO,
                                         WIRE_FEED_REPLY, WIRE_PING,    0x40,        0};

    (void)state;
    for (size_t k = 0; k < sizeof(strangers) / sizeof(strangers[0]); k++) {
        unsigned at[] = {find(PERDURE_RECORD_SECTION_START), find(PERDURE_RECORD_SECTION_FULL),
                         find(WIRE_RUN)};

        for (unsigned i = 0; i < 3; i++) {
            struct records *rs = change();

            records_insert(rs, at[i], strangers[k], 1, NULL, 0);
            refused_records(rs, "while taking in a migration", "a stranger", strangers[k]);
        }
    }
}

/* The other way round: the same source says in its greeting that it comes to be protected. */
static void test_migration_in_a_protection(void **state)
{
    struct rig_recording other = good;
    VMStream *f = perdure_stream_open_buffer(good.main.data, good.main.size);
    VMStream *out = perdure_stream_open_memory(0);
    struct wire_hello hello;
    struct rig_result r, after;
    uint16_t type;
    uint64_t id;
    const void *data;

    (void)state;
    assert_true(perdure_stream_next(f, &type, &id) && wire_get_hello(f, &hello, NULL));
    hello.kind = WIRE_KIND_MAIN;
    wire_send_hello(out, &hello, NULL);
    data = perdure_stream_memory(out, &other.greeting);
    other.main = (struct rig_bytes){0};
    rig_bytes_add(&other.main, data, other.greeting);
    rig_bytes_add(&other.main, stream(), stream_size());
    rig_offer(&other, stream(), stream_size(), false, &r, NULL);
    check_result(&r, "a migration in a protection", 0);
    assert_non_null(strstr(r.error, "while serving as a backup"));
    assert_non_null(strstr(r.said, "while serving as a backup"));
    free(other.main.data);
    perdure_stream_close(f);
    perdure_stream_close(out);
    rig_offer(&good, NULL, 0, false, &r, &after);
    check_good(&after, "after it", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_forged),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_optional),
        cmocka_unit_test(test_order_of_any),
        cmocka_unit_test(test_devices_in_another_order),
        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_twice),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_migration_in_a_protection),
    };

    return hostile_main(tests, sizeof(tests) / sizeof(tests[0]));
}
