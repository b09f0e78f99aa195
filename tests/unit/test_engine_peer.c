/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One engine, and a primary that does what no engine does: records out of turn, false checksums.
 * The engine names what is wrong, its guest is unharmed, and it is ready for the next peer.
 */
#include "peer_fixture.h"

static uint16_t next(VMStream *in, char text[WIRE_TEXT_MAX])
{
    uint16_t type = 0;
    uint64_t id;

    text[0] = 0;
    if (!wire_next(in, &type, &id, NULL))
        return 0;
    if (type == WIRE_REFUSE || type == WIRE_FAIL || type == WIRE_NOT_STARTED)
        wire_get_text(in, text, NULL);
    else
        perdure_stream_skip(in);
    return type;
}

static void expect_record(struct world *w, uint16_t want)
{
    char text[WIRE_TEXT_MAX];
    uint16_t type = next(w->in, text);

    if (type != want)
        fail_msg("record 0x%x instead of 0x%x: %s", type, want, text);
}

static void expect_text(struct world *w, uint16_t want, const char *part)
{
    char text[WIRE_TEXT_MAX];
    uint16_t type = next(w->in, text);

    if (type != want || !strstr(text, part))
        fail_msg("record 0x%x '%s', not 0x%x with '%s'", type, text, want, part);
}

static Channel *connect_to(struct world *w, enum wire_kind kind, VMStream **in, VMStream **out)
{
    Channel *ch = fake_connect(&w->t->t, "", 0, NULL);

    channel_set_deadline(ch, clock_now() + PATIENCE);
    *in = vmstream_new_reader(ch);
    *out = vmstream_new_writer(ch);
    w->hello.kind = kind;
    wire_send_hello(*out, &w->hello, NULL);
    return ch;
}

static void greet(struct world *w)
{
    char text[WIRE_TEXT_MAX];

    w->main = connect_to(w, w->kind, &w->in, &w->out);
    expect_record(w, WIRE_HELLO_OK);
    w->beat = connect_to(w, WIRE_KIND_HEARTBEAT, &w->beat_in, &w->beat_out);
    assert_int_equal(next(w->beat_in, text), WIRE_HELLO_OK);
}

static void configure(struct world *w)
{
    VMStream *config = perdure_stream_open_memory(0);

    greet(w);
    wire_send(config, 1, 0, NULL);
    wire_send_config(w->out, config, NULL);
    perdure_stream_close(config);
}

static void start(struct world *w)
{
    configure(w);
    expect_record(w, WIRE_CONFIG_OK);
    wire_send(w->out, WIRE_START, 0, NULL);
    expect_record(w, WIRE_STARTED);
}

/* `protect --check` from a host that dies before it says what is to be checked: the end does not wait for it. */
static void test_end_during_check(void **state)
{
    struct world w;
    int64_t begin;

    (void)state;
    open_world(&w, false);
    engine_listen(w.e, NULL, NULL);
    w.main = connect_to(&w, WIRE_KIND_CHECK, &w.in, &w.out);
    expect_record(&w, WIRE_HELLO_OK);
    begin = clock_now();
    engine_free(w.e);
    w.e = NULL;
    assert_true(clock_now() < begin + PATIENCE);
    close_world(&w);
}

/* One page and the constant device, as epoch; page_head spoils the page, end_tweak the end. */
static void send_epoch(struct world *w, uint64_t page_head, uint64_t epoch,
                       void (*tweak)(struct wire_end *end))
{
    VMStream *f = perdure_stream_open_memory(0);
    struct wire_end end = {
        .generation = 1, .epoch = epoch, .pages = 1, .flags = epoch == 1 ? WIRE_END_FIRST : 0};
    const void *frames;
    size_t size;

    perdure_stream_begin(f, WIRE_PAGES, epoch);
    perdure_stream_put_u64(f, page_head);
    perdure_stream_end(f);
    perdure_savevm_devices(f, NULL);
    frames = perdure_stream_memory(f, &size);
    end.crc = crc32c(0, frames, size);
    if (tweak)
        tweak(&end);
    perdure_stream_append(w->out, f);
    wire_send_end(w->out, &end, NULL);
    perdure_stream_close(f);
}

static void be_standby(struct world *w)
{
    start(w);
    send_epoch(w, 0, 1, NULL);
    expect_record(w, WIRE_ACK);
    await(w, ENGINE_STANDBY);
}

static void wrong_crc(struct wire_end *end)
{
    end->crc ^= 1;
}

static void wrong_generation(struct wire_end *end)
{
    end->generation++;
}

static void wrong_count(struct wire_end *end)
{
    end->pages++;
}

static void wrong_hash(struct wire_end *end)
{
    end->flags |= WIRE_END_HASHED;
    end->hash = 1;
}

static void not_first(struct wire_end *end)
{
    end->flags ^= WIRE_END_FIRST;
}

static const struct {
    uint64_t page_head;
    uint64_t epoch;
    void (*tweak)(struct wire_end *end);
    const char *why;
} bad_epochs[] = {
    {0, 2, wrong_crc, "checksum"},
    {0, 2, wrong_generation, "of generation 2"},
    {0, 2, wrong_count, "the primary counted 2"},
    {0, 2, wrong_hash, "verification failed"},
    {0, 2, not_first, "first"},
    {0, 3, NULL, "came after epoch 1"},
    {RAM_SIZE / GUEST_PAGE_SIZE << 2, 2, NULL, "RAM has 256 pages"},
    {3, 2, NULL, "ends too early"},
};

static void test_bad_epochs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_epochs) / sizeof(bad_epochs[0]); i++) {
        struct world w;
        uint64_t head = bad_epochs[i].page_head, epoch = bad_epochs[i].epoch;

        open_world(&w, false);
        engine_listen(w.e, NULL, NULL);
        be_standby(&w);
        send_epoch(&w, head, epoch, bad_epochs[i].tweak);
        /* One that could be received whole is acknowledged before its content is compared. */
        if (bad_epochs[i].tweak == wrong_hash)
            expect_record(&w, WIRE_ACK);
        expect_text(&w, WIRE_FAIL, bad_epochs[i].why);
        close_peer(&w);
        await(&w, ENGINE_LISTENING);
        expect_last_error(&w, bad_epochs[i].why);
        be_standby(&w);
        close_world(&w);
    }
}

static const struct {
    enum wire_record type;
    bool standby;
    const char *why;
} out_of_turn[] = {
    {WIRE_START, true, "out of turn"},  {WIRE_SYNC_PAGES, true, "out of turn"},
    {WIRE_RUN, true, "out of turn"},    {WIRE_RUN, false, "out of turn"},
    {WIRE_ENDED, false, "out of turn"}, {WIRE_PAGES, true, "came after epoch 1"},
};

static void test_out_of_turn(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(out_of_turn) / sizeof(out_of_turn[0]); i++) {
        struct world w;

        open_world(&w, false);
        engine_listen(w.e, NULL, NULL);
        if (out_of_turn[i].standby)
            be_standby(&w);
        else
            start(&w);
        wire_send(w.out, out_of_turn[i].type, 9, NULL);
        expect_text(&w, WIRE_FAIL, out_of_turn[i].why);
        close_peer(&w);
        await(&w, ENGINE_LISTENING);
        close_world(&w);
    }
}

/* A source that sends anything but a machine's state, or that in the wrong order. */
static void test_migration_out_of_turn(void **state)
{
    (void)state;
    for (uint16_t type = 0; type < 0x60; type++) {
        struct world w;

        if (type == WIRE_GOODBYE || type == WIRE_PROBE)
            continue;
        open_world(&w, false);
        w.kind = WIRE_KIND_MIGRATE;
        engine_listen(w.e, NULL, NULL);
        start(&w);
        await(&w, ENGINE_MIGRATING);
        wire_send(w.out, type, 0, NULL);
        if (type == PERDURE_RECORD_SECTION_FULL) /* devices are looked at when all of them are here */
            wire_send(w.out, (enum wire_record)PERDURE_RECORD_STATE_END, 0, NULL);
        expect_text(&w, WIRE_FAIL, "");
        close_peer(&w);
        await(&w, ENGINE_LISTENING);
        close_world(&w);
    }
}

/* Before there is a guest: whatever comes is refused. */
static void test_nothing_before_config(void **state)
{
    (void)state;
    for (uint16_t type = 0; type < 0x60; type++) {
        struct world w;
        uint16_t answer;
        char text[WIRE_TEXT_MAX];

        if (type == WIRE_PROBE || type == WIRE_GOODBYE)
            continue;
        open_world(&w, false);
        engine_listen(w.e, NULL, NULL);
        greet(&w);
        wire_send(w.out, (enum wire_record)type, 0, NULL);
        answer = next(w.in, text);
        if (answer != WIRE_REFUSE && answer != 0)
            fail_msg("0x%x was answered with 0x%x %s", type, answer, text);
        close_peer(&w);
        await(&w, ENGINE_LISTENING);
        assert_null(w.g);
        close_world(&w);
    }
}

/* A standby that reads nonsense asks the arbiter: it has an epoch, and the primary may be gone mad. */
static void test_nonsense_is_a_lost_link(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, false);
    engine_listen(w.e, NULL, NULL);
    be_standby(&w);
    channel_write(w.main, "this is no frame at all, is it?", 31, NULL);
    await(&w, ENGINE_ASKING);
    assert_true(engine_failover(w.e, true, NULL));
    await(&w, ENGINE_UNPROTECTED);
    close_world(&w);
}

static void test_greetings(void **state)
{
    struct world w;
    VMStream *in, *out;
    Channel *ch;

    (void)state;
    open_world(&w, false);
    engine_listen(w.e, NULL, NULL);
    start(&w);
    /* a second primary; a heartbeat of nobody */
    ch = connect_to(&w, WIRE_KIND_MAIN, &in, &out);
    {
        char text[WIRE_TEXT_MAX];

        assert_int_equal(next(in, text), WIRE_REFUSE);
        assert_non_null(strstr(text, "busy"));
    }
    perdure_stream_close(in);
    perdure_stream_close(out);
    channel_close(ch);
    w.hello.session = 8;
    ch = connect_to(&w, WIRE_KIND_HEARTBEAT, &in, &out);
    {
        char text[WIRE_TEXT_MAX];

        assert_int_equal(next(in, text), WIRE_REFUSE);
        assert_non_null(strstr(text, "no session"));
    }
    perdure_stream_close(in);
    perdure_stream_close(out);
    channel_close(ch);
    close_world(&w);
}

/* Only the primary of exactly this protection ends the asking; then it is a primary like any other. */
static void test_word_of_the_primary(void **state)
{
    static const struct {
        const char *pair;
        uint64_t generation;
    } others[] = {
        {"", 1},
        {"0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11", 2},
        {"0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d12", 1},
    };
    char text[WIRE_TEXT_MAX];
    struct world w;

    (void)state;
    open_world(&w, false);
    engine_listen(w.e, NULL, NULL);
    be_standby(&w);
    close_peer(&w);
    await(&w, ENGINE_ASKING);
    snprintf(w.hello.pair, sizeof(w.hello.pair), "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d13");
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        snprintf(w.hello.went_on_pair, sizeof(w.hello.went_on_pair), "%s", others[i].pair);
        w.hello.went_on_generation = others[i].generation;
        w.main = connect_to(&w, WIRE_KIND_MAIN, &w.in, &w.out);
        assert_int_equal(next(w.in, text), WIRE_REFUSE);
        assert_non_null(strstr(text, "busy (ASKING)"));
        close_peer(&w);
    }
    snprintf(w.hello.went_on_pair, sizeof(w.hello.went_on_pair), "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11");
    be_standby(&w);
    close_world(&w);
}

static void test_memory_differs(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, false);
    engine_listen(w.e, NULL, NULL);
    w.hello.ram_size *= 2;
    configure(&w);
    expect_text(&w, WIRE_REFUSE, "has 1 MiB of memory, the primary's 2 MiB");
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_epochs),
        cmocka_unit_test(test_end_during_check),
        cmocka_unit_test(test_out_of_turn),
        cmocka_unit_test(test_migration_out_of_turn),
        cmocka_unit_test(test_nothing_before_config),
        cmocka_unit_test(test_nonsense_is_a_lost_link),
        cmocka_unit_test(test_greetings),
        cmocka_unit_test(test_word_of_the_primary),
        cmocka_unit_test(test_memory_differs),
    };

    task_mutex_init(&output.lock);
    register_savevm_live("constant", 0, 1, &constant, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
