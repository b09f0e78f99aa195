/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The destination of a postcopy, and a source that does what none does, once the guest runs here: whatever that is, the
 * guest keeps what it has, waits for what it lacks, and gets it from the next link.
 */
#include "fake_pair.h"

#include "engine/wire.h"
#include "guest/ram_state.h"
#include "stream/vmstream.h"

#define PAGES   (RAM_SIZE / GUEST_PAGE_SIZE)
#define FIRST   200u /* of what is missing: the guest writes to page after page until it is paused */
#define COUNT   20u
#define SECTION 5

struct peer {
    Channel *main, *beat, *urgent;
    VMStream *in, *out, *urgent_in, *urgent_out;
};

struct world {
    Engine *e;
    struct fake_guest *g;
    struct guest_factory factory;
    struct fake_transport *t;
    struct wire_hello hello;
    struct peer p;
};

/* --- the guest --- */

static MissingPages *guest_missing_new(Guest *g, Error **errp)
{
    return missing_uffd_new(g->memory, errp);
}

/* Touches nothing. */
static bool guest_take_over(Guest *g, Error **errp)
{
    (void)g, (void)errp;
    return true;
}

static struct guest_ops ops;

static Guest *factory_create(struct guest_factory *gf, VMStream *f, Error **errp)
{
    struct world *w = gf->opaque;
    uint16_t type;
    uint64_t id;

    while (perdure_stream_next(f, &type, &id))
        perdure_stream_skip(f);
    ops = fake_ops;
    ops.missing_new = guest_missing_new;
    ops.take_over = guest_take_over;
    w->g = fake_guest_new();
    w->g->guest.ops = &ops;
    ram_state_register(&w->g->guest, errp);
    return &w->g->guest;
}

static void factory_destroy(struct guest_factory *gf, Guest *g)
{
    struct world *w = gf->opaque;

    ram_state_unregister(g);
    fake_guest_free(w->g);
    w->g = NULL;
}

static void save_constant(VMStream *f, void *opaque)
{
    (void)opaque;
    perdure_stream_put_u64(f, 42);
}

static int load_constant(VMStream *f, void *opaque, int version_id)
{
    (void)opaque, (void)version_id;
    return perdure_stream_get_u64(f) == 42 ? 0 : -22;
}

static const SaveVMHandlers constant = {.save_state = save_constant, .load_state = load_constant};

/* --- the source's ends --- */

static void expect(VMStream *in, uint16_t want)
{
    char text[WIRE_TEXT_MAX] = "";
    uint16_t type = 0;
    uint64_t id;

    if (wire_next(in, &type, &id, NULL) && (type == WIRE_REFUSE || type == WIRE_FAIL))
        wire_get_text(in, text, NULL);
    else
        perdure_stream_skip(in);
    if (type != want)
        fail_msg("record 0x%x instead of 0x%x: %s", type, want, text);
}

static Channel *connect_to(struct world *w, enum wire_kind kind, uint16_t answer, VMStream **in,
                           VMStream **out)
{
    Channel *ch = fake_connect(&w->t->t, "", 0, NULL);

    channel_set_deadline(ch, clock_now() + PATIENCE);
    *in = vmstream_new_reader(ch);
    *out = vmstream_new_writer(ch);
    w->hello.kind = kind;
    wire_send_hello(*out, &w->hello, NULL);
    expect(*in, answer);
    return ch;
}

static void connect_all(struct world *w, enum wire_kind kind)
{
    struct peer *p = &w->p;
    VMStream *in, *out;

    w->hello.session++;
    p->main = connect_to(w, kind, WIRE_HELLO_OK, &p->in, &p->out);
    p->beat = connect_to(w, WIRE_KIND_HEARTBEAT, WIRE_HELLO_OK, &in, &out);
    perdure_stream_close(in);
    perdure_stream_close(out);
    p->urgent = connect_to(w, WIRE_KIND_URGENT, WIRE_HELLO_OK, &p->urgent_in, &p->urgent_out);
}

static void disconnect(struct world *w)
{
    struct peer *p = &w->p;
    VMStream *streams[] = {p->in, p->out, p->urgent_in, p->urgent_out};
    Channel *channels[] = {p->main, p->beat, p->urgent};

    for (size_t i = 0; i < 4; i++)
        perdure_stream_close(streams[i]);
    for (size_t i = 0; i < 3 && channels[i]; i++) {
        channel_shutdown(channels[i]);
        channel_close(channels[i]);
    }
    *p = (struct peer){0};
}

static void send_config(struct world *w)
{
    VMStream *config = perdure_stream_open_memory(0);

    wire_send(config, 1, 0, NULL);
    wire_send_config(w->p.out, config, NULL);
    perdure_stream_close(config);
    expect(w->p.in, WIRE_CONFIG_OK);
    wire_send(w->p.out, WIRE_START, 0, NULL);
    expect(w->p.in, WIRE_STARTED);
}

static void begin_section(VMStream *f)
{
    perdure_stream_begin(f, PERDURE_RECORD_SECTION_START, SECTION);
    perdure_stream_put_string(f, "ram");
    perdure_stream_put_u32(f, 0);
    perdure_stream_put_u32(f, 1);
    perdure_stream_put_u8(f, 1);
    perdure_stream_put_u32(f, 1);
    perdure_stream_put_u64(f, 0);
    perdure_stream_put_u64(f, RAM_SIZE);
    perdure_stream_end(f);
}

static void say_missing(VMStream *f, uint64_t first, uint64_t count)
{
    perdure_stream_begin(f, PERDURE_RECORD_SECTION_PART, SECTION);
    perdure_stream_put_u8(f, 3);
    perdure_stream_put_u64(f, first);
    perdure_stream_put_u64(f, count);
    perdure_stream_end(f);
}

static void put_page(VMStream *f, uint64_t page, int value)
{
    uint8_t data[GUEST_PAGE_SIZE];

    memset(data, value, sizeof(data));
    perdure_stream_put_u64(f, page << 2 | 2);
    perdure_stream_put_buffer(f, data, sizeof(data));
}

static void send_pages(VMStream *f, uint64_t first, uint64_t count, int value)
{
    perdure_stream_begin(f, PERDURE_RECORD_SECTION_PART, SECTION);
    perdure_stream_put_u8(f, 2);
    for (uint64_t page = first; page < first + count; page++)
        put_page(f, page, value);
    perdure_stream_end(f);
}

/* --- the course --- */

struct want {
    Engine *e;
    enum engine_state state;
};

static bool reached(void *arg)
{
    struct want *want = arg;
    struct engine_status s;

    engine_status(want->e, &s);
    return s.state == want->state;
}

static void await(struct world *w, enum engine_state state)
{
    wait_until(reached, &(struct want){w->e, state}, engine_state_name(state));
}

static void open_world(struct world *w)
{
    struct engine_owner owner = {.opaque = w, .factory = &w->factory};

    memset(w, 0, sizeof(*w));
    w->factory = (struct guest_factory){factory_create, factory_destroy, w};
    w->t = fake_transport_new();
    w->e = engine_new("vm", NULL, &w->t->t, &owner, NULL);
    w->hello = (struct wire_hello){
        .vm = "vm",
        .pair = "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11",
        .generation = 1,
        .session = 7,
        .timeout_ns = 600 * NS_PER_S,
        .interval_ns = 10 * NS_PER_MS,
        .min_epoch_ns = NS_PER_MS,
        .arbiter = "manual",
        .ram_size = RAM_SIZE,
        .postcopy = true,
    };
    engine_listen(w->e, NULL, NULL);
}

static void begin(struct world *w)
{
    connect_all(w, WIRE_KIND_MIGRATE);
    send_config(w);
    begin_section(w->p.out);
    say_missing(w->p.out, FIRST, COUNT);
}

/* The guest runs here, and lacks [FIRST, FIRST + COUNT). */
static void run(struct world *w)
{
    perdure_savevm_devices(w->p.out, NULL);
    wire_send(w->p.out, (enum wire_record)PERDURE_RECORD_STATE_END, 0, NULL);
    expect(w->p.in, WIRE_LOADED);
    wire_send(w->p.out, WIRE_RUN, 0, NULL);
    expect(w->p.in, WIRE_RUNNING);
    await(w, ENGINE_POSTCOPY);
    assert_true(fake_pause(&w->g->guest, NULL)); /* before it comes to what is missing */
}

static void finish(struct world *w)
{
    expect(w->p.in, WIRE_LACK);
    send_pages(w->p.out, 0, PAGES, 7); /* those that are here stay as they are */
    wire_send(w->p.out, WIRE_PROBE, 0, NULL);
    expect(w->p.in, WIRE_PROBE_OK);
    perdure_stream_begin(w->p.out, PERDURE_RECORD_SECTION_END, SECTION);
    perdure_stream_put_u8(w->p.out, 2);
    perdure_stream_end(w->p.out);
    wire_send(w->p.out, (enum wire_record)PERDURE_RECORD_STATE_END, 0, NULL);
    expect(w->p.in, WIRE_FETCHED);
    await(w, ENGINE_UNPROTECTED);
}

static void close_world(struct world *w)
{
    disconnect(w);
    engine_free(w->e);
    if (w->g) {
        ram_state_unregister(&w->g->guest);
        fake_guest_free(w->g);
    }
    fake_transport_free(w->t);
}

/* --- what a source must not say to a guest that runs --- */

static void say_goodbye(struct world *w)
{
    wire_send_text(w->p.out, WIRE_GOODBYE, "cancelled", NULL);
}

static void say_more_is_missing(struct world *w)
{
    say_missing(w->p.out, 50, 1);
    perdure_stream_flush(w->p.out, NULL);
}

static void say_run_again(struct world *w)
{
    wire_send(w->p.out, WIRE_RUN, 0, NULL);
}

static void say_all_was_sent(struct world *w)
{
    wire_send(w->p.out, (enum wire_record)PERDURE_RECORD_STATE_END, 0, NULL);
}

static void begin_once_more(struct world *w)
{
    begin_section(w->p.out);
    perdure_stream_flush(w->p.out, NULL);
}

static void send_device(struct world *w)
{
    perdure_savevm_devices(w->p.out, NULL);
    perdure_stream_flush(w->p.out, NULL);
}

static void send_delta(struct world *w)
{
    perdure_stream_begin(w->p.urgent_out, WIRE_WANTED, FIRST);
    perdure_stream_put_u64(w->p.urgent_out, FIRST << 2 | 1);
    perdure_stream_put_u64(w->p.urgent_out, 1);
    put_page(w->p.urgent_out, FIRST, 1);
    perdure_stream_end(w->p.urgent_out);
    perdure_stream_flush(w->p.urgent_out, NULL);
}

static void ask_the_destination(struct world *w)
{
    wire_send(w->p.urgent_out, WIRE_WANT, 3, NULL);
}

static void say_nothing(struct world *w)
{
    channel_shutdown(w->p.main);
}

static const struct {
    void (*say)(struct world *w);
    const char *why;
} nonsense[] = {
    {say_goodbye, "says good-bye to a guest that runs here"},
    {say_more_is_missing, "missing of a guest that may run"},
    {say_run_again, "gave its permission to run out of turn"},
    {say_all_was_sent, "all memory was sent, and some is missing"},
    {begin_once_more, "out of turn"},
    {send_device, "out of turn"},
    {send_delta, "a delta of a missing page"},
    {ask_the_destination, "waiting for missing pages"},
    {say_nothing, "the link"},
};

static void test_nonsense(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        struct engine_status s;
        struct world w;

        open_world(&w);
        begin(&w);
        run(&w);
        memset(guest_memory_page_host(w.g->guest.memory, 50), 99, GUEST_PAGE_SIZE);
        nonsense[i].say(&w);
        await(&w, ENGINE_POSTCOPY_PAUSED);
        engine_status(w.e, &s);
        if (!strstr(s.last_error, nonsense[i].why))
            fail_msg("'%s' is not in '%s'", nonsense[i].why, s.last_error);
        assert_int_equal(s.role, ENGINE_PRIMARY);
        assert_int_equal(*guest_memory_page_host(w.g->guest.memory, 50), 99);
        disconnect(&w);
        connect_all(&w, WIRE_KIND_RESUME);
        finish(&w);
        assert_int_equal(*guest_memory_page_host(w.g->guest.memory, 50), 99);
        assert_int_equal(*guest_memory_page_host(w.g->guest.memory, FIRST), 7);
        close_world(&w);
    }
}

/* Before the permission a broken link ends it: nothing runs, and a device that waits for a page is let go. */
static void test_broken_before_run(void **state)
{
    struct world w;

    (void)state;
    open_world(&w);
    begin(&w);
    perdure_stream_flush(w.p.out, NULL);
    disconnect(&w);
    await(&w, ENGINE_LISTENING);
    assert_null(w.g);
    close_world(&w);
}

/* Another one's, of another generation, or when nothing is to be resumed. */
static void test_strangers(void **state)
{
    VMStream *in, *out;
    Channel *ch;
    struct world w;

    (void)state;
    open_world(&w);
    begin(&w);
    run(&w);
    for (int i = 0; i < 3; i++) {
        struct wire_hello good = w.hello;

        w.hello.pair[0] = i == 0 ? '1' : w.hello.pair[0];
        w.hello.generation += i == 1;
        w.hello.session += i == 2;
        ch = connect_to(&w, i == 2 ? WIRE_KIND_URGENT : WIRE_KIND_RESUME, WIRE_REFUSE, &in, &out);
        perdure_stream_close(in);
        perdure_stream_close(out);
        channel_close(ch);
        w.hello = good;
    }
    disconnect(&w);
    connect_all(&w, WIRE_KIND_RESUME);
    finish(&w);
    disconnect(&w);
    /* A source that did not hear it is told again. */
    ch = connect_to(&w, WIRE_KIND_RESUME, WIRE_FETCHED, &in, &out);
    perdure_stream_close(in);
    perdure_stream_close(out);
    channel_close(ch);
    close_world(&w);
}

/* A link that is given up before all of it is there does not mix with the next one. */
static void test_half_a_link(void **state)
{
    VMStream *in, *out;
    struct world w;
    Channel *ch;

    (void)state;
    open_world(&w);
    begin(&w);
    run(&w);
    disconnect(&w);
    await(&w, ENGINE_POSTCOPY_PAUSED);
    for (int i = 0; i < 3; i++) {
        w.hello.session++;
        ch = connect_to(&w, WIRE_KIND_RESUME, WIRE_HELLO_OK, &in, &out);
        perdure_stream_close(in);
        perdure_stream_close(out);
        channel_close(ch);
    }
    connect_all(&w, WIRE_KIND_RESUME);
    finish(&w);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_broken_before_run),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_half_a_link),
    };

    register_savevm_live("constant", 0, 1, &constant, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
