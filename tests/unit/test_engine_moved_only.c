/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that can be moved but not protected (Guest.unprotectable): its primary refuses to, and a backup whose primary does
 * not, also when it is only asked whether it could.
 */
#include "fake_pair.h"

#include "engine/wire.h"
#include "stream/vmstream.h"

static const char why[] = "disk root is shared";

static struct fake_guest *made; /* the backup's */

static Guest *create(struct guest_factory *gf, VMStream *f, Error **errp)
{
    uint16_t type;
    uint64_t id;

    (void)gf, (void)errp;
    while (perdure_stream_next(f, &type, &id))
        perdure_stream_skip(f);
    made = fake_guest_new();
    made->guest.unprotectable = why;
    return &made->guest;
}

static void destroy(struct guest_factory *gf, Guest *g)
{
    (void)gf, (void)g;
    fake_guest_free(made);
    made = NULL;
}

static void test_primary(void **state)
{
    struct engine_owner owner = {.opaque = NULL};
    struct fake_transport *t = fake_transport_new();
    struct fake_guest *g = fake_guest_new();
    Engine *e = engine_new("vm", &g->guest, &t->t, &owner, NULL);
    struct engine_params p;

    (void)state;
    g->guest.unprotectable = why;
    fake_resume(&g->guest);
    engine_params_default(&p);
    for (int check = 0; check < 2; check++) {
        Error *err = NULL;

        assert_false(engine_protect(e, &p, check, &err));
        assert_non_null(strstr(error_get_pretty(err), why));
        error_free(err);
    }
    engine_free(e);
    fake_guest_free(g);
    fake_transport_free(t);
}

/* --- a false primary --- */

struct connection {
    Channel *ch;
    VMStream *in, *out;
};

static void expect(struct connection *c, enum wire_record want, const char *text)
{
    char said[WIRE_TEXT_MAX] = "";
    uint16_t type = 0;
    uint64_t id;

    assert_true(wire_next(c->in, &type, &id, NULL));
    if (type == WIRE_REFUSE)
        wire_get_text(c->in, said, NULL);
    else
        perdure_stream_skip(c->in);
    if (type != want || !strstr(said, text))
        fail_msg("record 0x%x '%s', not 0x%x with '%s'", type, said, want, text);
}

static struct connection greet(struct fake_transport *t, enum wire_kind kind)
{
    struct wire_hello hello = {.kind = kind,
                               .vm = "vm",
                               .pair = "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11",
                               .generation = 1,
                               .session = 7,
                               .timeout_ns = 2 * NS_PER_S,
                               .interval_ns = 10 * NS_PER_MS,
                               .min_epoch_ns = NS_PER_MS,
                               .arbiter = "manual",
                               .ram_size = RAM_SIZE};
    struct connection c = {.ch = fake_connect(&t->t, "", 0, NULL)};

    channel_set_deadline(c.ch, clock_now() + PATIENCE);
    c.in = vmstream_new_reader(c.ch);
    c.out = vmstream_new_writer(c.ch);
    wire_send_hello(c.out, &hello, NULL);
    expect(&c, WIRE_HELLO_OK, "");
    return c;
}

static void hang_up(struct connection *c)
{
    perdure_stream_close(c->in);
    perdure_stream_close(c->out);
    channel_close(c->ch);
}

static void send_config(struct connection *c)
{
    VMStream *config = perdure_stream_open_memory(0);

    wire_send(config, 1, 0, NULL);
    wire_send_config(c->out, config, NULL);
    perdure_stream_close(config);
}

/* answer: to the configuration. */
static void ask(enum wire_kind kind, enum wire_record answer, const char *text)
{
    struct guest_factory factory = {.create = create, .destroy = destroy};
    struct engine_owner owner = {.factory = &factory};
    struct fake_transport *t = fake_transport_new();
    Engine *e = engine_new("vm", NULL, &t->t, &owner, NULL);
    struct connection main, beat = {0};

    engine_listen(e, NULL, NULL);
    main = greet(t, kind);
    if (kind != WIRE_KIND_CHECK)
        beat = greet(t, WIRE_KIND_HEARTBEAT);
    send_config(&main);
    expect(&main, answer, text);
    hang_up(&main);
    if (beat.ch)
        hang_up(&beat);
    engine_free(e);
    assert_null(made);
    fake_transport_free(t);
}

static void test_backup(void **state)
{
    (void)state;
    ask(WIRE_KIND_MAIN, WIRE_REFUSE, why);
    ask(WIRE_KIND_CHECK, WIRE_REFUSE, why);
    ask(WIRE_KIND_MIGRATE, WIRE_CONFIG_OK, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_primary),
        cmocka_unit_test(test_backup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
