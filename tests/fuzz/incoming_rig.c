/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "incoming_rig.h"
#include "played_channel.h"
#include "rig_machine.h"

#include "engine/engine_private.h"
#include "engine/session.h"
#include "registry/context.h"
#include "../unit/fake_pair.h"

#define PATIENCE_NS (1000 * NS_PER_S) /* nobody waits for it: the clock is the simulator's */
#define SEED        1

static SimHost *hosts[2]; /* each with registries of its own */

void rig_fail(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("rig: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs("\n", stderr);
    va_end(ap);
    abort();
}

void rig_bytes_add(struct rig_bytes *to, const void *data, size_t n)
{
    uint8_t *grown = realloc(to->data, to->size + n + 1);

    if (!grown)
        abort();
    if (n)
        memcpy(grown + to->size, data, n);
    *to = (struct rig_bytes){grown, to->size + n};
}

/* --- the arbiter --- */

static enum arbiter_answer arbiter_says;
static unsigned claims;

static enum arbiter_answer claim(Arbiter *a, const struct arbiter_claim *c, int64_t deadline, Error **errp)
{
    (void)a, (void)c, (void)deadline;
    claims++;
    if (arbiter_says == ARBITER_UNKNOWN)
        error_setg(errp, "the arbiter does not know");
    return arbiter_says;
}

static void free_arbiter(Arbiter *a)
{
    free(a);
}

static Arbiter *make_arbiter(const char *spec, Error **errp)
{
    static const struct arbiter_ops ops = {.claim = claim, .free = free_arbiter};
    Arbiter *a;

    (void)errp;
    if (strcmp(spec, "rig"))
        return NULL;
    a = calloc(1, sizeof(*a));
    if (!a)
        abort();
    a->ops = &ops;
    return a;
}

/* --- running --- */

static void switch_registries(SimHost *from, SimHost *to)
{
    (void)from;
    registry_context_switch(sim_host_data(to));
}

void rig_init(void)
{
    sim_runtime_init(SEED);
    for (int i = 0; i < 2; i++) {
        hosts[i] = sim_host_new(i ? "other" : "one", (unsigned)i);
        sim_host_set_data(hosts[i], registry_context_new());
    }
    sim_on_host_switch(switch_registries);
    arbiter_set_factory(make_arbiter);
}

/* Whatever ran, nothing of it may be left. */
static void check_registries(void)
{
    for (int i = 0; i < 2; i++) {
        struct registry_context *c = sim_host_data(hosts[i]);

        if (c->savevm.first || c->feeds.first || c->replication.first || c->checkpoint.first)
            rig_fail("something is left in the registries");
    }
}

static void rig_run(void (*fn)(void *arg), void *arg)
{
    sim_runtime_init(SEED);
    arbiter_says = ARBITER_GRANTED;
    sim_run_until(sim_spawn(hosts[0], "rig", fn, arg));
    check_registries();
}

/* --- an engine with the rig's machine --- */

struct side {
    Engine *e;
    struct rig_machine *m;
    struct guest_factory factory;
    bool ran; /* one of its machines did */
};

static Guest *create(struct guest_factory *gf, VMStream *f, Error **errp)
{
    struct side *s = gf->opaque;

    s->m = rig_machine_from_stream(f, errp);
    return s->m ? rig_machine_guest(s->m) : NULL;
}

static void destroy(struct guest_factory *gf, Guest *g)
{
    struct side *s = gf->opaque;

    if (g != rig_machine_guest(s->m))
        rig_fail("the engine destroys another guest than its own");
    s->ran |= rig_machine_ran(s->m);
    rig_machine_free(s->m);
    s->m = NULL;
}

static void say(void *opaque, const char *name, const char *text)
{
    (void)opaque;
    if (getenv("V"))
        fprintf(stderr, "%s %s\n", name, text);
}

static void guest_ended(void *opaque, enum guest_request how)
{
    (void)opaque, (void)how;
}

static void side_open(struct side *s, struct transport *t)
{
    struct engine_owner owner = {
        .opaque = s, .factory = &s->factory, .event = say, .guest_ended = guest_ended};

    s->factory = (struct guest_factory){.create = create, .destroy = destroy, .opaque = s};
    s->e = engine_new("vm", s->m ? rig_machine_guest(s->m) : NULL, t, &owner, NULL);
    if (!s->e)
        abort();
}

static void side_close(struct side *s)
{
    engine_free(s->e);
    rig_machine_free(s->m);
}

static bool is_over(Engine *e, uint64_t number)
{
    bool over;

    task_lock(&e->lock);
    over = e->session_number == number && e->session_ended;
    task_unlock(&e->lock);
    return over;
}

/* Of the engine's session of that number, the first one being 1. */
static void await_end(Engine *e, uint64_t number, const char *of)
{
    int64_t until = clock_now() + PATIENCE_NS;

    while (!is_over(e, number)) {
        if (clock_now() > until)
            rig_fail("%s does not end", of);
        task_sleep_until(clock_now() + NS_PER_MS);
    }
}

/* --- recording --- */

struct recorder {
    Channel ch; /* first */
    Channel *lower;
    struct rig_bytes *sent, *answers;
};

static ssize_t recorder_read(Channel *ch, void *buf, size_t n, int64_t deadline, Error **errp)
{
    struct recorder *r = (struct recorder *)ch;
    ssize_t got = r->lower->ops->read(r->lower, buf, n, deadline, errp);

    if (got > 0)
        rig_bytes_add(r->answers, buf, (size_t)got);
    return got;
}

static bool recorder_write(Channel *ch, const struct iovec *iov, int n, int64_t deadline, Error **errp)
{
    struct recorder *r = (struct recorder *)ch;

    for (int i = 0; i < n; i++)
        if (iov[i].iov_len)
            rig_bytes_add(r->sent, iov[i].iov_base, iov[i].iov_len);
    return r->lower->ops->write(r->lower, iov, n, deadline, errp);
}

static void recorder_shutdown(Channel *ch)
{
    channel_shutdown(((struct recorder *)ch)->lower);
}

static void recorder_close(Channel *ch)
{
    channel_close(((struct recorder *)ch)->lower);
    free(ch);
}

static const struct channel_ops recorder_ops = {
    .read = recorder_read, .write = recorder_write, .shutdown = recorder_shutdown, .close = recorder_close};

struct recording_transport {
    struct transport t;
    struct fake_transport *lower;
    struct rig_recording *ret;
};

/* The main connection first, then the heartbeat's. */
static Channel *connect_and_record(struct transport *t, const char *address, int64_t deadline, Error **errp)
{
    struct recording_transport *rt = t->opaque;
    struct recorder *r = calloc(1, sizeof(*r));

    if (!r)
        abort();
    r->lower = fake_connect(&rt->lower->t, address, deadline, errp);
    r->sent = rt->ret->main.data ? &rt->ret->beat : &rt->ret->main;
    r->answers = rt->ret->main.data ? &rt->ret->beat_answers : &rt->ret->answers;
    r->ch = *r->lower;
    r->ch.ops = &recorder_ops;
    return &r->ch;
}

/* A destination as it should be, on the other host. */
struct far_end {
    struct fake_transport *t;
    struct side side;
};

static void open_far_end(void *arg)
{
    struct far_end *far = arg;

    side_open(&far->side, &far->t->t);
    if (!engine_listen(far->side.e, NULL, NULL))
        abort();
}

static void close_far_end(void *arg)
{
    struct far_end *far = arg;

    side_close(&far->side);
}

static void on_other_host(void (*fn)(void *arg), void *arg)
{
    task_join(sim_spawn(hosts[1], "other", fn, arg));
}

static bool begin_migration(struct side *s, Error **errp)
{
    struct engine_migrate_params p;

    engine_migrate_params_default(&p);
    snprintf(p.to, sizeof(p.to), "rig");
    snprintf(p.arbiter, sizeof(p.arbiter), "rig");
    return engine_migrate(s->e, &p, errp);
}

/* number: of the session that it is. */
static void migrate(struct side *s, uint64_t number)
{
    struct engine_status status;
    Error *err = NULL;

    if (!begin_migration(s, &err))
        rig_fail("%s", error_get_pretty(err));
    await_end(s->e, number, "a migration as it should be");
    engine_status(s->e, &status);
    if (status.state != ENGINE_MIGRATED)
        rig_fail("a migration as it should be failed: %s", status.last_error);
}

static size_t first_record(const struct rig_bytes *b)
{
    VMStream *f = perdure_stream_open_buffer(b->data, b->size);
    uint16_t type;
    uint64_t id;
    size_t size;

    if (!perdure_stream_next(f, &type, &id))
        rig_fail("nothing was recorded");
    perdure_stream_skip(f);
    size = (size_t)perdure_stream_bytes(f);
    perdure_stream_close(f);
    return size;
}

static void record_main(void *arg)
{
    struct rig_recording *ret = arg;
    struct far_end far = {.t = fake_transport_new()};
    struct recording_transport transport = {.lower = far.t, .ret = ret};
    struct side source = {.m = rig_machine_new(true)};

    transport.t = (struct transport){.connect = connect_and_record, .opaque = &transport};
    on_other_host(open_far_end, &far);
    side_open(&source, &transport.t);
    migrate(&source, 1);
    ret->memory_hash = rig_machine_memory_hash(source.m);
    ret->disk_hash = rig_machine_disk_hash(source.m);
    ret->device_hash = rig_machine_device_hash(far.side.m);
    side_close(&source);
    on_other_host(close_far_end, &far);
    fake_transport_free(far.t);
}

void rig_record(struct rig_recording *ret)
{
    *ret = (struct rig_recording){0};
    rig_run(record_main, ret);
    ret->greeting = first_record(&ret->main);
    ret->beat.size = first_record(&ret->beat); /* pings go on from there */
    ret->beat_answers.size = first_record(&ret->beat_answers);
}

void rig_forget(struct rig_recording *r)
{
    free(r->main.data);
    free(r->beat.data);
    free(r->answers.data);
    free(r->beat_answers.data);
    *r = (struct rig_recording){0};
}

/* --- offering --- */

struct offer {
    const struct rig_recording *recording;
    const void *data;
    size_t size;
    bool silent;
    struct rig_result *ret, *ret_good;
    struct fake_transport *t;
    struct side destination;
};

static void arrive(struct fake_transport *t, Channel *ch)
{
    task_lock(&t->lock);
    while (t->arrived)
        task_wait(&t->changed, &t->lock);
    t->arrived = ch;
    task_broadcast(&t->changed);
    task_unlock(&t->lock);
}

static void read_answers(struct rig_bytes *heard, struct rig_result *ret)
{
    VMStream *f = perdure_stream_open_buffer(heard->data, heard->size);
    uint16_t type;
    uint64_t id;

    while (perdure_stream_next(f, &type, &id)) {
        if (type < sizeof(ret->answers) / sizeof(ret->answers[0]))
            ret->answers[type]++;
        if (type == WIRE_REFUSE || type == WIRE_FAIL || type == WIRE_NOT_STARTED)
            wire_get_text(f, ret->said, NULL);
        else
            perdure_stream_skip(f);
    }
    if (perdure_stream_error(f, NULL))
        rig_fail("what the destination sent is no stream");
    perdure_stream_close(f);
}

static void read_status(struct side *s, struct rig_result *ret)
{
    struct engine_status status;

    engine_status(s->e, &status);
    ret->role = status.role;
    ret->state = status.state;
    memcpy(ret->error, status.last_error, sizeof(ret->error));
    ret->ran = s->ran || (s->m && rig_machine_ran(s->m));
    if (s->m) {
        ret->memory_hash = rig_machine_memory_hash(s->m);
        ret->disk_hash = rig_machine_disk_hash(s->m);
        ret->device_hash = rig_machine_device_hash(s->m);
    }
}

/* One source comes, says the greeting and then data, and is gone. */
static void visit(struct offer *o, uint64_t number, const void *data, size_t size, bool silent,
                  struct rig_result *ret)
{
    const struct rig_recording *r = o->recording;
    struct rig_bytes heard = {0};
    unsigned before = claims;

    *ret = (struct rig_result){0};
    arrive(o->t, played_channel_new((struct played_part[]){{r->main.data, r->greeting}, {data, size}}, silent,
                                    &heard));
    arrive(o->t,
           played_channel_new((struct played_part[]){{r->beat.data, r->beat.size}, {NULL, 0}}, true, NULL));
    await_end(o->destination.e, number, "what was offered");
    read_answers(&heard, ret);
    read_status(&o->destination, ret);
    ret->claims = claims - before;
    free(heard.data);
}

static void offer_main(void *arg)
{
    struct offer *o = arg;
    const struct rig_recording *r = o->recording;

    o->t = fake_transport_new();
    side_open(&o->destination, &o->t->t);
    if (!engine_listen(o->destination.e, NULL, NULL))
        abort();
    visit(o, 1, o->data, o->size, o->silent, o->ret);
    if (o->ret_good && !o->ret->ran)
        visit(o, 2, r->main.data + r->greeting, r->main.size - r->greeting, false, o->ret_good);
    side_close(&o->destination);
    fake_transport_free(o->t);
}

void rig_offer(const struct rig_recording *r, const void *data, size_t size, bool silent,
               struct rig_result *ret, struct rig_result *ret_good)
{
    struct offer o = {
        .recording = r, .data = data, .size = size, .silent = silent, .ret = ret, .ret_good = ret_good};

    rig_run(offer_main, &o);
}

/* --- answering --- */

struct answer {
    const struct rig_recording *recording;
    const void *answers;
    size_t size;
    bool silent;
    enum arbiter_answer says;
    struct rig_source_result *ret;
    struct rig_result *again;
    struct transport t; /* the source's */
    unsigned connections;
    struct rig_bytes heard;
    struct far_end far;
    struct side source;
};

/* The first two connections are played, the others reach the far end. */
static Channel *connect_to_played(struct transport *t, const char *address, int64_t deadline, Error **errp)
{
    struct answer *a = t->opaque;
    const struct rig_bytes *beat = &a->recording->beat_answers;

    switch (a->connections++) {
    case 0:
        return played_answers_new(&(struct played_part){a->answers, a->size}, a->silent, &a->heard);
    case 1:
        return played_channel_new((struct played_part[]){{beat->data, beat->size}, {NULL, 0}}, true, NULL);
    default:
        return fake_connect(&a->far.t->t, address, deadline, errp);
    }
}

static bool was_sent(const struct rig_bytes *heard, uint16_t what)
{
    VMStream *f = perdure_stream_open_buffer(heard->data, heard->size);
    uint16_t type = 0;
    uint64_t id;

    while (type != what && perdure_stream_next(f, &type, &id))
        perdure_stream_skip(f);
    perdure_stream_close(f);
    return type == what;
}

/* Until it is over, or waits for an arbiter that does not know. */
static void await_decision(Engine *e)
{
    int64_t until = clock_now() + PATIENCE_NS;
    bool decided = false;

    while (!decided) {
        if (clock_now() > until)
            rig_fail("the source does not decide");
        task_sleep_until(clock_now() + NS_PER_MS);
        task_lock(&e->lock);
        decided = e->session_ended || (e->state == ENGINE_ASKING && e->unknowns > 0);
        task_unlock(&e->lock);
    }
}

static void read_decision(struct answer *a)
{
    struct rig_source_result *ret = a->ret;
    struct engine_status status;

    engine_status(a->source.e, &status);
    ret->state = status.state;
    if (!ret->error[0])
        memcpy(ret->error, status.last_error, sizeof(ret->error));
    ret->goes_on = rig_machine_goes_on(a->source.m);
    ret->permitted = was_sent(&a->heard, WIRE_RUN);
}

static void migrate_again(struct answer *a)
{
    uint64_t number = a->source.e->session_number + 1;

    a->connections = 2;
    on_other_host(open_far_end, &a->far);
    migrate(&a->source, number);
    read_status(&a->far.side, a->again);
    on_other_host(close_far_end, &a->far);
}

static void answer_main(void *arg)
{
    struct answer *a = arg;
    unsigned before = claims;
    Error *err = NULL;

    arbiter_says = a->says;
    a->far.t = fake_transport_new();
    a->source.m = rig_machine_new(true);
    a->t = (struct transport){.connect = connect_to_played, .opaque = a};
    side_open(&a->source, &a->t);
    if (begin_migration(&a->source, &err))
        await_decision(a->source.e);
    else
        snprintf(a->ret->error, sizeof(a->ret->error), "%s", error_get_pretty(err));
    error_free(err);
    read_decision(a);
    a->ret->claims = claims - before;
    arbiter_says = ARBITER_GRANTED;
    if (a->again && a->ret->state == ENGINE_UNPROTECTED)
        migrate_again(a);
    side_close(&a->source);
    fake_transport_free(a->far.t);
    free(a->heard.data);
}

void rig_answer(const struct rig_recording *r, const void *answers, size_t size, bool silent,
                enum arbiter_answer says, struct rig_source_result *ret, struct rig_result *again)
{
    struct answer a = {.recording = r,
                       .answers = answers,
                       .size = size,
                       .silent = silent,
                       .says = says,
                       .ret = ret,
                       .again = again};

    *ret = (struct rig_source_result){0};
    if (again)
        *again = (struct rig_result){0};
    rig_run(answer_main, &a);
}
