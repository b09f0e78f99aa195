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

void rig_arbiter_answers(enum arbiter_answer answer)
{
    arbiter_says = answer;
}

unsigned rig_claims(void)
{
    return claims;
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

void rig_run(void (*fn)(void *arg), void *arg)
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
    Channel ch;
    Channel *lower;
    struct rig_bytes *to;
};

static ssize_t recorder_read(Channel *ch, void *buf, size_t n, int64_t deadline, Error **errp)
{
    struct recorder *r = (struct recorder *)ch;

    return r->lower->ops->read(r->lower, buf, n, deadline, errp);
}

static bool recorder_write(Channel *ch, const struct iovec *iov, int n, int64_t deadline, Error **errp)
{
    struct recorder *r = (struct recorder *)ch;

    for (int i = 0; i < n; i++)
        if (iov[i].iov_len)
            rig_bytes_add(r->to, iov[i].iov_base, iov[i].iov_len);
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
    r->to = rt->ret->main.data ? &rt->ret->beat : &rt->ret->main;
    r->ch = *r->lower;
    r->ch.ops = &recorder_ops;
    return &r->ch;
}

struct recording_scene {
    struct recording_transport transport;
    struct side destination;
};

static void open_destination(void *arg)
{
    struct recording_scene *scene = arg;

    side_open(&scene->destination, &scene->transport.lower->t);
    if (!engine_listen(scene->destination.e, NULL, NULL))
        abort();
}

static void close_destination(void *arg)
{
    struct recording_scene *scene = arg;

    side_close(&scene->destination);
}

static void on_other_host(void (*fn)(void *arg), void *arg)
{
    task_join(sim_spawn(hosts[1], "other", fn, arg));
}

static void migrate(struct side *s)
{
    struct engine_migrate_params p;
    struct engine_status status;
    Error *err = NULL;

    engine_migrate_params_default(&p);
    snprintf(p.to, sizeof(p.to), "rig");
    snprintf(p.arbiter, sizeof(p.arbiter), "rig");
    if (!engine_migrate(s->e, &p, &err))
        rig_fail("%s", error_get_pretty(err));
    await_end(s->e, 1, "the migration that is recorded");
    engine_status(s->e, &status);
    if (status.state != ENGINE_MIGRATED)
        rig_fail("the migration that is recorded failed: %s", status.last_error);
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
    struct recording_scene scene = {.transport = {.lower = fake_transport_new(), .ret = ret}};
    struct side source = {.m = rig_machine_new(true)};

    scene.transport.t = (struct transport){.connect = connect_and_record, .opaque = &scene.transport};
    on_other_host(open_destination, &scene);
    side_open(&source, &scene.transport.t);
    migrate(&source);
    ret->memory_hash = rig_machine_memory_hash(source.m);
    ret->disk_hash = rig_machine_disk_hash(source.m);
    ret->device_hash = rig_machine_device_hash(scene.destination.m);
    side_close(&source);
    on_other_host(close_destination, &scene);
    fake_transport_free(scene.transport.lower);
}

void rig_record(struct rig_recording *ret)
{
    *ret = (struct rig_recording){0};
    rig_run(record_main, ret);
    ret->greeting = first_record(&ret->main);
    ret->beat.size = first_record(&ret->beat); /* pings go on from there */
}

void rig_forget(struct rig_recording *r)
{
    free(r->main.data);
    free(r->beat.data);
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
