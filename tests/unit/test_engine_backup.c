/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One engine, and a backup that does what no engine does: acknowledgements of something else,
 * and what follows a swap out of turn.
 * The engine names what is wrong, its guest is unharmed, and it is ready for the next peer.
 */
#include "peer_fixture.h"

static void serve_heartbeat(void *arg)
{
    struct world *w = arg;
    uint16_t type;
    uint64_t id;

    while (wire_next(w->beat_in, &type, &id, NULL) && wire_done(w->beat_in, NULL))
        wire_send(w->beat_out, WIRE_PONG, id, NULL);
}

static Channel *take(struct world *w, VMStream **in, VMStream **out, struct wire_hello *h)
{
    Channel *ch = fake_accept(&w->t->t, NULL);
    uint16_t type;
    uint64_t id;

    *in = vmstream_new_reader(ch);
    *out = vmstream_new_writer(ch);
    if (wire_next(*in, &type, &id, NULL) && wire_get_hello(*in, h, NULL))
        wire_send(*out, WIRE_HELLO_OK, 0, NULL);
    return ch;
}

static void take_guest(struct world *w);

/* Serves until w->answer has answered an epoch in its own way. */
static void serve(void *arg)
{
    struct world *w = arg;
    struct wire_hello h;
    struct wire_end end;
    uint16_t type;
    uint64_t id;
    Task *beat;

    w->main = take(w, &w->in, &w->out, &h);
    w->beat = take(w, &w->beat_in, &w->beat_out, &h);
    beat = task_start("beat", serve_heartbeat, w, NULL);
    while (wire_next(w->in, &type, &id, NULL)) {
        if (type == WIRE_END) {
            end = (struct wire_end){.epoch = id};
            wire_get_end(w->in, &end, NULL);
            w->answer(w, &end);
            continue;
        }
        perdure_stream_skip(w->in);
        if (type == WIRE_CONFIG)
            wire_send(w->out, WIRE_CONFIG_OK, 0, NULL);
        else if (type == WIRE_START)
            wire_send(w->out, WIRE_STARTED, 0, NULL);
        else if (type == WIRE_RUN)
            take_guest(w);
    }
    task_join(beat);
}

static void good_ack(struct world *w, const struct wire_end *end)
{
    struct wire_ack ack = {.generation = end->generation, .epoch = end->epoch, .crc = end->crc};

    wire_send_ack(w->out, &ack, NULL);
}

static void ack_checksum(struct world *w, const struct wire_end *end)
{
    struct wire_end other = *end;

    other.crc ^= end->epoch == 3;
    good_ack(w, &other);
}

static void ack_generation(struct world *w, const struct wire_end *end)
{
    struct wire_end other = *end;

    other.generation += end->epoch == 3;
    good_ack(w, &other);
}

static void ack_epoch(struct world *w, const struct wire_end *end)
{
    struct wire_end other = *end;

    other.epoch += end->epoch == 3;
    good_ack(w, &other);
}

static void ack_first_checksum(struct world *w, const struct wire_end *end)
{
    struct wire_end other = *end;

    other.crc ^= 1;
    good_ack(w, &other);
}

static void say_fail(struct world *w, const struct wire_end *end)
{
    if (end->epoch == 3)
        wire_send_text(w->out, WIRE_FAIL, "my disk is full", NULL);
    else
        good_ack(w, end);
}

static void say_running(struct world *w, const struct wire_end *end)
{
    if (end->epoch == 3)
        wire_send(w->out, WIRE_RUNNING, 2, NULL);
    else
        good_ack(w, end);
}

static const struct {
    void (*answer)(struct world *w, const struct wire_end *end);
    const char *why;
    bool asks;
} false_answers[] = {
    {ack_checksum, "checksum", true},     {ack_generation, "generation 2 epoch 3", true},
    {ack_epoch, "epoch 4", true},         {ack_first_checksum, "checksum", true},
    {say_fail, "my disk is full", false}, {say_running, "unexpected record of type 0x31", true},
};

static uint64_t look(struct fake_guest *g)
{
    uint64_t step;

    fake_pause(&g->guest, NULL);
    step = g->step;
    fake_resume(&g->guest);
    return step;
}

/* No output of an epoch that was not acknowledged as it should be leaves before the arbiter has spoken; then,
 * manual grants the primary, the guest goes on with all of it. */
/* The guest runs. */
static void await_step(struct fake_guest *g)
{
    int64_t until = clock_now() + 20 * NS_PER_S;
    uint64_t step = look(g);

    while (look(g) == step && clock_now() < until)
        task_sleep_until(clock_now() + NS_PER_MS);
    assert_true(look(g) > step);
}

static void test_false_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(false_answers) / sizeof(false_answers[0]); i++) {
        struct engine_params params;
        struct engine_status s;
        struct world w;

        open_world(&w, true);
        w.answer = false_answers[i].answer;
        w.task = task_start("backup", serve, &w, NULL);
        engine_params_default(&params);
        params.timeout_ns = 5 * NS_PER_S;
        if (!engine_protect(w.e, &params, false, &w.err))
            fail_msg("%s", error_get_pretty(w.err));
        await(&w, ENGINE_UNPROTECTED);
        expect_last_error(&w, false_answers[i].why);
        engine_status(w.e, &s);
        assert_int_equal(strstr(s.report, "granted") != NULL, false_answers[i].asks);
        await_step(w.g);
        task_join(w.task);
        close_world(&w);
    }
}

/* --- the new primary of a swap --- */

static void expect_type(struct world *w, enum wire_record want)
{
    uint16_t type;
    uint64_t id;

    assert_true(wire_next(w->in, &type, &id, NULL));
    assert_int_equal(type, want);
    if (type == WIRE_FAIL)
        wire_get_text(w->in, w->heard, NULL);
    else
        perdure_stream_skip(w->in);
}

static void take_guest(struct world *w)
{
    wire_send(w->out, WIRE_RUNNING, 2, NULL);
    wire_send(w->out, WIRE_START, 0, NULL);
    expect_type(w, WIRE_STARTED);
    wire_send(w->out, w->lie, 1, NULL);
    expect_type(w, WIRE_FAIL);
}

/* A standby holds what it may have to run: what would change that before a whole epoch is here is refused. */
static void test_false_primary_of_a_swap(void **state)
{
    static const enum wire_record lies[] = {WIRE_SYNC_PAGES, WIRE_START, WIRE_RUN};

    (void)state;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct engine_params params;
        struct world w;

        open_world(&w, true);
        w.answer = good_ack;
        w.lie = lies[i];
        w.task = task_start("backup", serve, &w, NULL);
        engine_params_default(&params);
        params.timeout_ns = 5 * NS_PER_S;
        if (!engine_protect(w.e, &params, false, &w.err))
            fail_msg("%s", error_get_pretty(w.err));
        await(&w, ENGINE_PROTECTED);
        if (!engine_swap(w.e, false, &w.err))
            fail_msg("%s", error_get_pretty(w.err));
        await(&w, ENGINE_LISTENING);
        task_join(w.task);
        assert_non_null(strstr(w.heard, "out of turn"));
        close_world(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_false_answers),
        cmocka_unit_test(test_false_primary_of_a_swap),
    };

    task_mutex_init(&output.lock);
    register_savevm_live("constant", 0, 1, &constant, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
