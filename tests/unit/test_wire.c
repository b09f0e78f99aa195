/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The records of a pair: golden octets, round trips, and what is refused. */
#include "engine/wire.h"
#include "golden.h"
#include "stream/vmstream.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

static const struct wire_hello hello = {
    .kind = WIRE_KIND_HEARTBEAT,
    .vm = "web",
    .pair = "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11",
    .generation = 3,
    .session = 0x1122334455667788,
    .timeout_ns = 1000000000,
    .interval_ns = 10000000,
    .min_epoch_ns = 1000000,
    .verify_every = 7,
    .delta = true,
    .postcopy = true,
    .arbiter = "file:/srv/arbiter",
    .ram_size = 64 << 20,
    .went_on_pair = "5d1f0c11-7f0e-4c55-a3d5-02f1f8b0a7e2",
    .went_on_generation = 2,
    .lanes = 3,
};
static const struct wire_end end = {
    .generation = 3,
    .epoch = 12,
    .pages = 5,
    .hash = 0xfedcba9876543210,
    .crc = 0xcafe1234,
    .flags = WIRE_END_HASHED,
    .request = GUEST_REQUEST_RESET,
};
static const struct wire_ack ack = {
    .generation = 3, .epoch = 12, .crc = 0xcafe1234, .flags = WIRE_ACK_HANDOVER};

static VMStream *all_records(void)
{
    VMStream *f = perdure_stream_open_memory(0);

    wire_send_hello(f, &hello, NULL);
    wire_send_end(f, &end, NULL);
    wire_send_ack(f, &ack, NULL);
    wire_send_text(f, WIRE_GOODBYE, "unprotect", NULL);
    return f;
}

static void test_golden(void **state)
{
    VMStream *f = all_records();
    size_t size;
    const void *data = perdure_stream_memory(f, &size);

    (void)state;
    assert_true(golden_matches("pair.hex", data, size));
    perdure_stream_close(f);
}

static void expect(VMStream *in, enum wire_record want, uint64_t want_id)
{
    uint16_t type;
    uint64_t id;

    assert_true(wire_next(in, &type, &id, NULL));
    assert_int_equal(type, want);
    assert_int_equal(id, want_id);
}

static void test_round_trip(void **state)
{
    VMStream *f = all_records(), *in = vmstream_reopen_memory(f);
    struct wire_end got_end = {.epoch = 12};
    struct wire_ack got_ack = {.epoch = 12};
    char text[WIRE_TEXT_MAX];
    struct wire_hello h;
    uint16_t type;
    uint64_t id;

    (void)state;
    expect(in, WIRE_HELLO, 0);
    assert_true(wire_get_hello(in, &h, NULL));
    assert_int_equal(h.kind, hello.kind);
    assert_string_equal(h.vm, hello.vm);
    assert_string_equal(h.arbiter, hello.arbiter);
    assert_int_equal(h.ram_size, hello.ram_size);
    assert_string_equal(h.went_on_pair, hello.went_on_pair);
    assert_int_equal(h.went_on_generation, hello.went_on_generation);
    assert_int_equal(h.lanes, hello.lanes);
    assert_int_equal(h.lane, 0);
    expect(in, WIRE_END, 12);
    assert_true(wire_get_end(in, &got_end, NULL));
    assert_int_equal(got_end.hash, end.hash);
    assert_int_equal(got_end.crc, end.crc);
    assert_int_equal(got_end.request, end.request);
    expect(in, WIRE_ACK, 12);
    assert_true(wire_get_ack(in, &got_ack, NULL));
    assert_int_equal(got_ack.crc, ack.crc);
    assert_int_equal(got_ack.flags, ack.flags);
    expect(in, WIRE_GOODBYE, 0);
    assert_true(wire_get_text(in, text, NULL));
    assert_string_equal(text, "unprotect");
    /* The end of the stream is an error, and stays one. */
    assert_false(wire_next(in, &type, &id, NULL));
    assert_int_not_equal(perdure_stream_error(in, NULL), 0);
    perdure_stream_close(in);
    perdure_stream_close(f);
}

/* The greeting with other values: refused, and why. */
static void expect_refusal(const struct wire_hello *h, uint32_t magic, uint16_t version, const char *why)
{
    VMStream *f = perdure_stream_open_memory(0), *in;
    struct wire_hello got;
    Error *err = NULL;
    uint8_t *bytes;
    size_t size;

    perdure_stream_begin(f, WIRE_HELLO, 0);
    perdure_stream_put_u32(f, magic);
    perdure_stream_put_u16(f, version);
    if (h)
        for (int i = 0; i < 3; i++)
            perdure_stream_put_u8(f, 9);
    perdure_stream_end(f);
    bytes = (uint8_t *)perdure_stream_memory(f, &size);
    in = perdure_stream_open_buffer(bytes, size);
    expect(in, WIRE_HELLO, 0);
    assert_false(wire_get_hello(in, &got, &err));
    if (!strstr(error_get_pretty(err), why))
        fail_msg("'%s' is not in '%s'", why, error_get_pretty(err));
    error_free(err);
    perdure_stream_close(in);
    perdure_stream_close(f);
}

static void test_refusals(void **state)
{
    (void)state;
    expect_refusal(NULL, 0x1234, WIRE_VERSION, "does not speak");
    expect_refusal(NULL, WIRE_MAGIC, WIRE_VERSION + 1, "version 6 of the protocol, this build speaks 5");
    expect_refusal(&hello, WIRE_MAGIC, WIRE_VERSION, "");
}

static void test_greeting_without_sense(void **state)
{
    struct wire_hello bad[11], got;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        bad[i] = hello;
    bad[0].kind = WIRE_KINDS;
    bad[1].pair[0] = 'x';
    bad[2].went_on_pair[0] = 'x';
    bad[3].vm[1] = '\033';
    bad[4].arbiter[1] = '\n';
    bad[5].generation = 0;
    bad[6].generation = UINT64_MAX;
    bad[7].lanes = LANES_MAX + 1;
    bad[8].lane = 1;              /* of a heartbeat */
    bad[9].kind = WIRE_KIND_MAIN; /* of a protection, which has no lanes */
    bad[10].kind = WIRE_KIND_CHANNEL;
    bad[10].lane = 4;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        VMStream *f = perdure_stream_open_memory(0), *in;
        Error *err = NULL;

        wire_send_hello(f, &bad[i], NULL);
        in = vmstream_reopen_memory(f);
        expect(in, WIRE_HELLO, 0);
        assert_false(wire_get_hello(in, &got, &err));
        assert_non_null(strstr(error_get_pretty(err), "makes no sense"));
        error_free(err);
        perdure_stream_close(in);
        perdure_stream_close(f);
    }
}

/* Every cut and every flipped bit is an error, and nothing worse. */
static void test_damage(void **state)
{
    VMStream *f = all_records();
    size_t size;
    const uint8_t *data = perdure_stream_memory(f, &size);
    uint8_t *copy = malloc(size);

    (void)state;
    for (size_t at = 0; at < 2 * size; at++) {
        struct wire_hello h;
        VMStream *in;
        uint16_t type;
        uint64_t id;
        bool ok;

        memcpy(copy, data, size);
        if (at < size)
            copy[at] ^= (uint8_t)(1 << at % 8);
        in = perdure_stream_open_buffer(copy, at < size ? size : at - size);
        ok = wire_next(in, &type, &id, NULL) && type == WIRE_HELLO && wire_get_hello(in, &h, NULL);
        while (ok && wire_next(in, &type, &id, NULL))
            perdure_stream_skip(in);
        assert_int_not_equal(perdure_stream_error(in, NULL), 0);
        perdure_stream_close(in);
    }
    free(copy);
    perdure_stream_close(f);
}

/* Text for people cannot drive a terminal. */
static void test_text(void **state)
{
    VMStream *f = perdure_stream_open_memory(0), *in;
    char text[WIRE_TEXT_MAX];

    (void)state;
    wire_send_text(f, WIRE_REFUSE, "one\ntwo\033[2J", NULL);
    in = vmstream_reopen_memory(f);
    expect(in, WIRE_REFUSE, 0);
    assert_true(wire_get_text(in, text, NULL));
    assert_string_equal(text, "one\ntwo?[2J");
    perdure_stream_close(in);
    perdure_stream_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),   cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_greeting_without_sense),
        cmocka_unit_test(test_damage),   cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
