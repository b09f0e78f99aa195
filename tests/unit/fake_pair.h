/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For test_engine.c: a guest without a processor, and a transport in memory.
 *
 * The guest's task writes its step count to one page after the other, round and round: so every consistent
 * state has one step of difference between neighbours, and says which step it is from. Now and then it sends
 * its step count out; a checkpoint device holds that, as a NIC would.
 *
 * The registries are the process's, so both sides share them: the device state here is a constant.
 */
#ifndef TESTS_FAKE_PAIR_H
#define TESTS_FAKE_PAIR_H

#include "base/bitmap.h"
#include "base/task.h"
#include "engine/engine.h"
#include <perdure/checkpoint_device.h>
#include <perdure/savevm.h>

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM_SIZE  (1u << 20)
#define STEP_TIME (50 * NS_PER_US)
#define PATIENCE  (20 * NS_PER_S)

static inline void wait_until(bool (*done)(void *arg), void *arg, const char *what)
{
    int64_t until = clock_now() + PATIENCE;

    while (!done(arg)) {
        if (clock_now() > until)
            fail_msg("%s: not within the time", what);
        task_sleep_until(clock_now() + NS_PER_MS);
    }
}

/* --- output: what the world sees --- */

struct fake_output {
    struct task_mutex lock;
    bool held;
    uint64_t open[4096],
        closed[4096]; /* steps sent in the running epoch / in the one that waits for its ack */
    size_t open_count, closed_count;
    uint64_t last_released; /* the highest step that anybody outside has seen */
    uint64_t released, discarded;
    CheckpointDevice dev;
};

static struct fake_output output;

static inline void output_release_locked(uint64_t *steps, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        output.last_released = steps[i] > output.last_released ? steps[i] : output.last_released;
    output.released += *count;
    *count = 0;
}

static inline void output_send(uint64_t step)
{
    bool waiting;

    task_lock(&output.lock);
    if (output.open_count < 4096)
        output.open[output.open_count++] = step;
    waiting = output.held;
    if (!waiting)
        output_release_locked(output.open, &output.open_count);
    task_unlock(&output.lock);
    if (waiting)
        checkpoint_device_output_waiting(&output.dev);
}

static inline void output_setup(CheckpointDevice *dev)
{
    task_lock(&output.lock);
    output.held = true;
    task_unlock(&output.lock);
    checkpoint_device_setup_done(dev, CHECKPOINT_DEVICE_READY, NULL);
}

static inline void output_teardown(CheckpointDevice *dev, bool discard)
{
    (void)dev;
    task_lock(&output.lock);
    output.held = false;
    if (discard) {
        output.discarded += output.open_count + output.closed_count;
        output.open_count = output.closed_count = 0;
    }
    output_release_locked(output.closed, &output.closed_count);
    output_release_locked(output.open, &output.open_count);
    task_unlock(&output.lock);
}

static inline bool output_postsuspend(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    bool ok;

    (void)dev;
    (void)epoch;
    task_lock(&output.lock);
    ok = !output.closed_count;
    memcpy(output.closed, output.open, sizeof(output.open));
    output.closed_count = output.open_count;
    output.open_count = 0;
    task_unlock(&output.lock);
    if (!ok)
        error_setg(errp, "an epoch was closed before the one before was released");
    return ok;
}

static inline bool output_commit(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    (void)dev;
    (void)epoch;
    (void)errp;
    task_lock(&output.lock);
    output_release_locked(output.closed, &output.closed_count);
    task_unlock(&output.lock);
    return true;
}

/* --- the guest --- */

struct fake_guest {
    Guest guest;
    Task *task;
    struct task_mutex lock;
    struct task_cond changed;
    bool pausing, standing, quit;
    enum guest_request request;
    uint64_t step, resets;
    int pauses_fail; /* so many, from now on */
    uint64_t *dirty;
};

static inline void fake_step(struct fake_guest *g)
{
    uint64_t page = g->step % g->guest.memory->page_count;

    g->step++;
    guest_memory_write(g->guest.memory, page * GUEST_PAGE_SIZE, &g->step, sizeof(g->step));
    if (g->step % 8 == 0)
        output_send(g->step);
}

static inline void fake_run(void *arg)
{
    struct fake_guest *g = arg;

    task_lock(&g->lock);
    while (!g->quit) {
        if (g->pausing || g->request) {
            g->standing = true;
            task_broadcast(&g->changed);
            task_wait(&g->changed, &g->lock);
            continue;
        }
        g->standing = false;
        task_unlock(&g->lock);
        fake_step(g);
        task_sleep_until(clock_now() + STEP_TIME);
        task_lock(&g->lock);
    }
    task_unlock(&g->lock);
}

/* The step that memory is from; UINT64_MAX: torn. Page i holds the last step s with (s - 1) % pages == i. */
static inline uint64_t fake_memory_step(GuestMemory *m)
{
    uint64_t step = 0, v;

    for (uint64_t page = 0; page < m->page_count; page++) {
        guest_memory_read(m, page * GUEST_PAGE_SIZE, &v, sizeof(v));
        step = v > step ? v : step;
    }
    for (uint64_t back = 0; back < m->page_count && back < step; back++) {
        guest_memory_read(m, (step - back - 1) % m->page_count * GUEST_PAGE_SIZE, &v, sizeof(v));
        if (v != step - back)
            return UINT64_MAX;
    }
    return step;
}

static inline bool fake_pause(Guest *gg, Error **errp)
{
    struct fake_guest *g = (struct fake_guest *)gg;

    if (__atomic_load_n(&g->pauses_fail, __ATOMIC_ACQUIRE) > 0) {
        __atomic_fetch_sub(&g->pauses_fail, 1, __ATOMIC_ACQ_REL);
        error_setg(errp, "a pause fails");
        return false;
    }
    task_lock(&g->lock);
    while (g->pausing) /* the test and an engine: one after the other */
        task_wait(&g->changed, &g->lock);
    g->pausing = true;
    while (!g->standing)
        task_wait(&g->changed, &g->lock);
    task_unlock(&g->lock);
    return true;
}

static inline void fake_resume(Guest *gg)
{
    struct fake_guest *g = (struct fake_guest *)gg;

    task_lock(&g->lock);
    g->pausing = false;
    task_broadcast(&g->changed);
    task_unlock(&g->lock);
}

static inline bool fake_tracking_start(Guest *gg, bool equal, Error **errp)
{
    struct fake_guest *g = (struct fake_guest *)gg;

    (void)errp;
    guest_memory_take_dirty(gg->memory, g->dirty);
    memset(g->dirty, equal ? 0 : 0xff, bitmap_bytes(gg->memory->page_count));
    return true;
}

static inline void fake_tracking_stop(Guest *gg)
{
    (void)gg;
}

static inline bool fake_collect(Guest *gg, Staging *s, bool live, bool *ret_more, Error **errp)
{
    struct fake_guest *g = (struct fake_guest *)gg;

    (void)live;
    (void)errp;
    *ret_more = false;
    guest_memory_take_dirty(gg->memory, g->dirty);
    for (uint64_t page = 0; page < gg->memory->page_count; page++) {
        if (!bitmap_test(g->dirty, page))
            continue;
        if (!staging_add(s, page, guest_memory_page_host(gg->memory, page))) {
            *ret_more = true;
            return true;
        }
        g->dirty[page / 64] &= ~BITMAP_BIT(page);
    }
    return true;
}

static inline bool fake_take_changed(Guest *gg, uint64_t *map, Error **errp)
{
    struct fake_guest *g = (struct fake_guest *)gg;

    (void)errp;
    guest_memory_take_dirty(gg->memory, g->dirty);
    bitmap_or(map, g->dirty, gg->memory->page_count);
    memset(g->dirty, 0, bitmap_bytes(gg->memory->page_count));
    return true;
}

static inline uint64_t fake_changed_pages(Guest *gg)
{
    (void)gg;
    return 0;
}

static inline enum guest_request fake_request(Guest *gg)
{
    return ((struct fake_guest *)gg)->request;
}

static inline bool fake_reset(Guest *gg, Error **errp)
{
    struct fake_guest *g = (struct fake_guest *)gg;

    (void)errp;
    g->request = GUEST_REQUEST_NONE;
    g->resets++;
    return true;
}

static inline bool fake_save_config(Guest *gg, VMStream *f, Error **errp)
{
    (void)gg;
    (void)errp;
    perdure_stream_begin(f, 1, 0);
    perdure_stream_put_u64(f, RAM_SIZE);
    perdure_stream_end(f);
    return true;
}

static inline bool fake_take_over(Guest *gg, Error **errp)
{
    struct fake_guest *g = (struct fake_guest *)gg;

    (void)errp;
    g->step = fake_memory_step(gg->memory);
    return true;
}

static inline void fake_announce(Guest *gg)
{
    (void)gg;
}

static inline bool fake_clear(Guest *gg, bool keep_ram, Error **errp)
{
    return keep_ram || guest_memory_clear(gg->memory, errp);
}

static const struct guest_ops fake_ops = {
    .pause = fake_pause,
    .resume = fake_resume,
    .tracking_start = fake_tracking_start,
    .tracking_stop = fake_tracking_stop,
    .collect = fake_collect,
    .take_changed = fake_take_changed,
    .changed_pages = fake_changed_pages,
    .request = fake_request,
    .reset = fake_reset,
    .save_config = fake_save_config,
    .take_over = fake_take_over,
    .announce = fake_announce,
    .clear = fake_clear,
};

/* It stands still until the first resume. */
static inline struct fake_guest *fake_guest_new(void)
{
    struct fake_guest *g = calloc(1, sizeof(*g));

    g->guest.ops = &fake_ops;
    g->guest.memory = guest_memory_new(RAM_SIZE, NULL);
    g->dirty = calloc(1, bitmap_bytes(g->guest.memory->page_count));
    g->pausing = true;
    task_mutex_init(&g->lock);
    task_cond_init(&g->changed);
    g->task = task_start("guest", fake_run, g, NULL);
    return g;
}

static inline void fake_guest_free(struct fake_guest *g)
{
    if (!g)
        return;
    task_lock(&g->lock);
    g->quit = true;
    task_broadcast(&g->changed);
    task_unlock(&g->lock);
    task_join(g->task);
    guest_memory_free(g->guest.memory);
    task_cond_destroy(&g->changed);
    task_mutex_destroy(&g->lock);
    free(g->dirty);
    free(g);
}

static inline void fake_guest_ask(struct fake_guest *g, enum guest_request what)
{
    task_lock(&g->lock);
    g->request = what;
    task_unlock(&g->lock);
    if (g->guest.on_request)
        g->guest.on_request(g->guest.on_request_opaque);
}

/* --- the transport --- */

struct fake_transport {
    struct transport t;
    struct task_mutex lock;
    struct task_cond changed;
    Channel *arrived;
    bool down;
};

static inline Channel *fake_connect(struct transport *t, const char *address, int64_t deadline, Error **errp)
{
    struct fake_transport *ft = t->opaque;
    Channel *ends[2];

    (void)address;
    (void)deadline;
    if (!channel_pair_new(ends, errp))
        return NULL;
    task_lock(&ft->lock);
    while (ft->arrived)
        task_wait(&ft->changed, &ft->lock);
    ft->arrived = ends[1];
    task_broadcast(&ft->changed);
    task_unlock(&ft->lock);
    return ends[0];
}

static inline Channel *fake_accept(struct transport *t, Error **errp)
{
    struct fake_transport *ft = t->opaque;
    Channel *ch;

    task_lock(&ft->lock);
    while (!ft->arrived && !ft->down)
        task_wait(&ft->changed, &ft->lock);
    ch = ft->arrived;
    ft->arrived = NULL;
    task_broadcast(&ft->changed);
    task_unlock(&ft->lock);
    if (!ch)
        error_setg(errp, "shut down");
    return ch;
}

static inline void fake_shutdown(struct transport *t)
{
    struct fake_transport *ft = t->opaque;

    task_lock(&ft->lock);
    ft->down = true;
    task_broadcast(&ft->changed);
    task_unlock(&ft->lock);
}

static inline struct fake_transport *fake_transport_new(void)
{
    struct fake_transport *ft = calloc(1, sizeof(*ft));

    ft->t = (struct transport){
        .connect = fake_connect, .accept = fake_accept, .shutdown = fake_shutdown, .opaque = ft};
    task_mutex_init(&ft->lock);
    task_cond_init(&ft->changed);
    return ft;
}

static inline void fake_transport_free(struct fake_transport *ft)
{
    channel_close(ft->arrived);
    task_cond_destroy(&ft->changed);
    task_mutex_destroy(&ft->lock);
    free(ft);
}

#endif
