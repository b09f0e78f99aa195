/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two engines in one process that protect a fake guest, for the tests of what they do; and how to wait for
 * it. */
#ifndef TESTS_FAKE_WORLD_H
#define TESTS_FAKE_WORLD_H

#include "fake_pair.h"

#include <unistd.h>

struct side {
    Engine *e;
    struct fake_guest *g;
    struct guest_factory factory;
    bool promoted, refuse;
    enum guest_request ended;
};

struct world {
    struct side a, b; /* begin as primary and backup */
    struct fake_transport *t;
    struct engine_params params;
    char dir[64]; /* of the arbiter */
};

static inline Guest *factory_create(struct guest_factory *gf, VMStream *f, Error **errp)
{
    struct side *s = gf->opaque;
    uint16_t type;
    uint64_t id;

    if (s->refuse) {
        error_setg(errp, "disk 'root' is not mapped here\nnet 'net0' is not mapped here");
        return NULL;
    }
    assert_true(perdure_stream_next(f, &type, &id));
    assert_int_equal(perdure_stream_get_u64(f), RAM_SIZE);
    perdure_stream_done(f);
    s->g = fake_guest_new();
    return &s->g->guest;
}

static inline void factory_destroy(struct guest_factory *gf, Guest *g)
{
    struct side *s = gf->opaque;

    assert_ptr_equal(g, &s->g->guest);
    fake_guest_free(s->g);
    s->g = NULL;
}

static inline void on_promoted(void *opaque, Guest *g)
{
    struct side *s = opaque;

    (void)g;
    __atomic_store_n(&s->promoted, true, __ATOMIC_RELEASE);
}

static inline void on_ended(void *opaque, enum guest_request how)
{
    struct side *s = opaque;

    __atomic_store_n(&s->ended, how, __ATOMIC_RELEASE);
}

/* V=1 shows what happens. */
static inline void on_event(void *opaque, const char *name, const char *text)
{
    struct side *s = opaque;

    if (getenv("V"))
        fprintf(stderr, "%p %s %s\n", (void *)s, name, text);
}

static inline void side_open(struct world *w, struct side *s, const char *name)
{
    struct engine_owner owner = {.opaque = s,
                                 .factory = &s->factory,
                                 .event = on_event,
                                 .promoted = on_promoted,
                                 .guest_ended = on_ended};
    Error *err = NULL;

    s->factory = (struct guest_factory){.create = factory_create, .destroy = factory_destroy, .opaque = s};
    s->e = engine_new(name, s->g ? &s->g->guest : NULL, &w->t->t, &owner, &err);
    assert_null(err);
}

static inline int set_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    output.held = false;
    output.open_count = output.closed_count = 0;
    output.last_released = output.released = output.discarded = 0;
    w->t = fake_transport_new();
    w->a.g = fake_guest_new();
    fake_resume(&w->a.g->guest);
    side_open(w, &w->a, "vm");
    side_open(w, &w->b, "vm");
    assert_true(engine_listen(w->b.e, NULL, NULL));
    snprintf(w->dir, sizeof(w->dir), "/tmp/test_engine.XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    engine_params_default(&w->params);
    w->params.interval_ns = 4 * NS_PER_MS;
    w->params.timeout_ns = 2 * NS_PER_S; /* slow under the sanitizers */
    w->params.verify_every = 5;
    snprintf(w->params.to, sizeof(w->params.to), "memory:b");
    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "file:%s", w->dir);
    *state = w;
    return 0;
}

/* A claim that an engine gave up at its end may still be made. */
static inline bool dir_is_removed(void *arg)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -r %s", (const char *)arg);
    return system(command) == 0;
}

static inline int tear_down(void **state)
{
    struct world *w = *state;

    engine_free(w->a.e);
    engine_free(w->b.e);
    fake_guest_free(w->a.g);
    fake_guest_free(w->b.g);
    fake_transport_free(w->t);
    wait_until(dir_is_removed, w->dir, "the arbiter's directory is removed");
    free(w);
    return 0;
}

/* --- waiting --- */

struct want {
    Engine *e;
    enum engine_state state;
    uint64_t epochs;
};

static inline bool reached(void *arg)
{
    struct want *want = arg;
    struct engine_status s;

    engine_status(want->e, &s);
    return s.state == want->state && s.epoch >= want->epochs;
}

static inline void await(Engine *e, enum engine_state state, uint64_t epochs)
{
    struct want want = {e, state, epochs};

    wait_until(reached, &want, engine_state_name(state));
}

static inline bool nonzero(void *arg)
{
    return __atomic_load_n((int *)arg, __ATOMIC_ACQUIRE);
}

static inline struct engine_status status_of(struct side *s)
{
    struct engine_status st;

    engine_status(s->e, &st);
    return st;
}

static inline bool held(void)
{
    bool yes;

    task_lock(&output.lock);
    yes = output.held;
    task_unlock(&output.lock);
    return yes;
}

static inline void protect(struct world *w, struct side *from)
{
    Error *err = NULL;

    if (!engine_protect(from->e, &w->params, false, &err))
        fail_msg("%s", error_get_pretty(err));
    await(from->e, ENGINE_PROTECTED, 10);
}

/* The step of a paused look at memory, which must be whole. */
static inline uint64_t look(struct side *s)
{
    uint64_t step;

    assert_true(fake_pause(&s->g->guest, NULL));
    step = fake_memory_step(s->g->guest.memory);
    assert_int_not_equal(step, UINT64_MAX);
    assert_int_equal(step, s->g->step);
    fake_resume(&s->g->guest);
    return step;
}

struct advance {
    struct side *s;
    uint64_t from;
};

static inline bool advanced(void *arg)
{
    struct advance *a = arg;

    return look(a->s) > a->from;
}

/* The side's guest runs, from a whole state, and nobody has seen more of it than it has done. */
static inline void assert_goes_on(struct side *s)
{
    uint64_t seen, step;

    task_lock(&output.lock);
    seen = output.last_released;
    task_unlock(&output.lock);
    step = look(s);
    assert_true(step >= seen);
    wait_until(advanced, &(struct advance){s, step}, "the guest to go on");
}

/* --- the shared registries --- */

/* Two engines in one process share the registries, whose users are meant to be one task at a time: no product
 * does this, and the simulator gives each side its own. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:src/registry/";
}

static inline void save_constant(VMStream *f, void *opaque)
{
    (void)opaque;
    perdure_stream_put_u64(f, 42);
}

static inline int load_constant(VMStream *f, void *opaque, int version_id)
{
    (void)opaque;
    (void)version_id;
    return perdure_stream_get_u64(f) == 42 ? 0 : -22;
}

static const SaveVMHandlers constant = {.save_state = save_constant, .load_state = load_constant};
static const CheckpointDeviceOps output_ops = {
    .name = "fake",
    .kind = CHECKPOINT_DEVICE_NIC,
    .setup = output_setup,
    .teardown = output_teardown,
    .postsuspend = output_postsuspend,
    .commit = output_commit,
};

/* Once a process. */
static inline void world_register(void)
{
    task_mutex_init(&output.lock);
    output.dev = (CheckpointDevice){.id = "net0", .kind = CHECKPOINT_DEVICE_NIC};
    register_savevm_live("constant", 0, 1, &constant, NULL);
    checkpoint_device_register_ops(&output_ops);
    checkpoint_device_add(&output.dev, NULL);
}

#endif
