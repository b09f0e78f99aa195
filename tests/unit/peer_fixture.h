/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For test_engine_peer.c and test_engine_backup.c: one engine, and what its peer says to it. */
#ifndef TESTS_PEER_FIXTURE_H
#define TESTS_PEER_FIXTURE_H

#include "fake_pair.h"

#include "base/crc32c.h"
#include "engine/wire.h"
#include "stream/vmstream.h"

struct world {
    Engine *e;
    struct fake_guest *g;
    struct guest_factory factory;
    struct fake_transport *t;
    /* the peer's ends */
    Channel *main, *beat;
    VMStream *in, *out, *beat_in, *beat_out;
    Task *task;
    struct wire_hello hello;
    enum wire_kind kind; /* of the peer's main connection */
    /* a false backup */
    void (*answer)(struct world *w, const struct wire_end *end);
    enum wire_record lie; /* of a new primary */
    char heard[WIRE_TEXT_MAX];
    bool protect_ok;
    Error *err;
};

static inline Guest *factory_create(struct guest_factory *gf, VMStream *f, Error **errp)
{
    struct world *w = gf->opaque;
    uint16_t type;
    uint64_t id;

    if (!perdure_stream_next(f, &type, &id)) {
        error_setg(errp, "the configuration is empty");
        return NULL;
    }
    perdure_stream_skip(f);
    w->g = fake_guest_new();
    return &w->g->guest;
}

static inline void factory_destroy(struct guest_factory *gf, Guest *g)
{
    struct world *w = gf->opaque;

    (void)g;
    fake_guest_free(w->g);
    w->g = NULL;
}

static inline void open_world(struct world *w, bool primary)
{
    struct engine_owner owner = {.opaque = w, .factory = &w->factory};

    memset(w, 0, sizeof(*w));
    w->factory = (struct guest_factory){.create = factory_create, .destroy = factory_destroy, .opaque = w};
    w->t = fake_transport_new();
    if (primary) {
        w->g = fake_guest_new();
        fake_resume(&w->g->guest);
    }
    w->e = engine_new("vm", primary ? &w->g->guest : NULL, &w->t->t, &owner, NULL);
    w->hello = (struct wire_hello){
        .vm = "vm",
        .pair = "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11",
        .generation = 1,
        .session = 7,
        .timeout_ns = 2 * NS_PER_S,
        .interval_ns = 10 * NS_PER_MS,
        .min_epoch_ns = NS_PER_MS,
        .arbiter = "manual",
        .ram_size = RAM_SIZE,
    };
}

static inline void close_peer(struct world *w)
{
    VMStream *streams[] = {w->in, w->out, w->beat_in, w->beat_out};

    for (size_t i = 0; i < 4; i++)
        perdure_stream_close(streams[i]);
    channel_close(w->main);
    channel_close(w->beat);
    w->in = w->out = w->beat_in = w->beat_out = NULL;
    w->main = w->beat = NULL;
}

static inline void close_world(struct world *w)
{
    close_peer(w);
    engine_free(w->e);
    fake_guest_free(w->g);
    fake_transport_free(w->t);
    error_free(w->err);
}

struct want {
    Engine *e;
    enum engine_state state;
};

static inline bool reached(void *arg)
{
    struct want *want = arg;
    struct engine_status s;

    engine_status(want->e, &s);
    return s.state == want->state;
}

static inline void await(struct world *w, enum engine_state state)
{
    wait_until(reached, &(struct want){w->e, state}, engine_state_name(state));
}

static inline void expect_last_error(struct world *w, const char *text)
{
    struct engine_status s;

    engine_status(w->e, &s);
    if (!strstr(s.last_error, text))
        fail_msg("'%s' is not in '%s'", text, s.last_error);
}

/* --- the shared registries --- */

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

#endif
