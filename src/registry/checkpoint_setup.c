/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Setting up the devices, all at once.
 *
 * Each device walks through the implementations of its kind until one takes it: a setup that answers NO_MATCH
 * calls for the next, on the thread that answered. `pending` counts the devices that have not settled, plus
 * one for the caller that is still beginning them, so that the one answer cannot come before all have begun.
 * Whoever brings it to zero gives the answer.
 */
#include "registry/checkpoint_layer.h"

#include <assert.h>
#include <errno.h>

/* Implementations are few and known when the program is written. */
#define OPS_MAX 64

static const CheckpointDeviceOps *known[OPS_MAX];
static int known_count;

void checkpoint_device_register_ops(const CheckpointDeviceOps *ops)
{
    assert(ops->name && ops->setup);
    for (int i = 0; i < known_count; i++) {
        if (known[i] == ops)
            return;
    }
    assert(known_count < OPS_MAX);
    known[known_count++] = ops;
}

/* The next implementation of the kind, after `last` (NULL: the first). */
static const CheckpointDeviceOps *next_ops(enum CheckpointDeviceKind kind, const CheckpointDeviceOps *last)
{
    int i = 0;

    if (last) {
        while (i < known_count && known[i] != last)
            i++;
        i++;
    }
    while (i < known_count && known[i]->kind != kind)
        i++;
    return i < known_count ? known[i] : NULL;
}

static void give_answer(struct checkpoint_layer *l)
{
    void (*done)(void *opaque, Error *err);
    void *opaque;
    Error *err;

    task_lock(&l->lock);
    done = l->done;
    opaque = l->done_opaque;
    err = l->err;
    l->err = NULL;
    l->done = NULL;
    l->setting_up = false;
    task_unlock(&l->lock);
    done(opaque, err);
}

/* One less to wait for. dev NULL: the caller has begun them all. Takes err. */
static void settle(CheckpointDevice *dev, enum checkpoint_phase phase, Error *err)
{
    struct checkpoint_layer *l = checkpoint_layer();
    bool last;

    task_lock(&l->lock);
    if (dev) {
        dev->phase = phase;
        dev->err = err;
        if (err && !l->err)
            l->err = error_copy(err);
    }
    last = --l->pending == 0;
    task_unlock(&l->lock);
    if (last)
        give_answer(l);
}

static void try_next(CheckpointDevice *dev)
{
    Error *err = NULL;

    dev->ops = next_ops(dev->kind, dev->ops);
    if (dev->ops) {
        dev->ops->setup(dev);
        return;
    }
    error_setg_errno(&err, ENOTSUP, "device %s: no implementation of checkpointing a %s takes it", dev->id,
                     checkpoint_device_kind_name(dev->kind));
    settle(dev, CHECKPOINT_PHASE_IDLE, err);
}

/* An answer that nobody waits for: the device has settled already. */
static bool expected(CheckpointDevice *dev)
{
    struct checkpoint_layer *l = checkpoint_layer();
    bool yes;

    task_lock(&l->lock);
    yes = dev->phase == CHECKPOINT_PHASE_TRYING;
    task_unlock(&l->lock);
    return yes;
}

void checkpoint_device_setup_done(CheckpointDevice *dev, enum CheckpointDeviceAnswer answer, Error *err)
{
    if (!expected(dev) || answer != CHECKPOINT_DEVICE_FAILED) {
        error_free(err);
        err = NULL;
    }
    if (!expected(dev))
        return;
    if (answer == CHECKPOINT_DEVICE_NO_MATCH) {
        try_next(dev);
        return;
    }
    if (answer == CHECKPOINT_DEVICE_READY) {
        settle(dev, CHECKPOINT_PHASE_READY, NULL);
        return;
    }
    if (!err)
        error_setg(&err, "%s failed and gave no reason", dev->ops->name);
    error_prepend(&err, "device %s: ", dev->id);
    settle(dev, CHECKPOINT_PHASE_FAILED, err);
}

/* Refuses a second setup: false with the reason. Lock held. */
static bool begin(struct checkpoint_layer *l, Error **errp)
{
    if (l->setting_up) {
        error_setg(errp, "the devices under checkpointing are being set up already");
        return false;
    }
    for (CheckpointDevice *dev = l->first; dev; dev = dev->next) {
        if (dev->phase != CHECKPOINT_PHASE_IDLE) {
            error_setg(errp, "device %s: was set up before and not torn down", dev->id);
            return false;
        }
    }
    l->setting_up = true;
    l->pending = 1;
    for (CheckpointDevice *dev = l->first; dev; dev = dev->next) {
        dev->ops = NULL;
        dev->phase = CHECKPOINT_PHASE_TRYING;
        error_free(dev->err);
        dev->err = NULL;
        l->pending++;
    }
    return true;
}

void checkpoint_devices_setup(void (*done)(void *opaque, Error *err), void *opaque)
{
    struct checkpoint_layer *l = checkpoint_layer();
    Error *err = NULL;

    task_lock(&l->lock);
    if (begin(l, &err)) {
        l->done = done;
        l->done_opaque = opaque;
    }
    task_unlock(&l->lock);
    if (err) {
        done(opaque, err);
        return;
    }
    for (CheckpointDevice *dev = l->first, *next; dev; dev = next) {
        next = dev->next;
        try_next(dev);
    }
    settle(NULL, CHECKPOINT_PHASE_IDLE, NULL);
}

struct setup_wait {
    struct task_mutex lock;
    struct task_cond cond;
    bool answered;
    Error *err;
};

static void setup_answered(void *opaque, Error *err)
{
    struct setup_wait *w = opaque;

    task_lock(&w->lock);
    w->answered = true;
    w->err = err;
    task_broadcast(&w->cond);
    task_unlock(&w->lock);
}

bool checkpoint_devices_setup_wait(Error **errp)
{
    struct setup_wait w = {.answered = false};
    bool ok;

    task_mutex_init(&w.lock);
    task_cond_init(&w.cond);
    checkpoint_devices_setup(setup_answered, &w);
    task_lock(&w.lock);
    while (!w.answered)
        task_wait(&w.cond, &w.lock);
    task_unlock(&w.lock);
    task_cond_destroy(&w.cond);
    task_mutex_destroy(&w.lock);
    ok = !w.err;
    error_propagate(errp, w.err);
    return ok;
}
