/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The checkpoint device layer: the list of devices, the walks of a checkpoint, the teardown. The setup, which
 * is asynchronous, is in checkpoint_setup.c.
 */
#include "registry/checkpoint_layer.h"

#include <assert.h>
#include <string.h>

struct checkpoint_walk {
    CheckpointDevice *next;
    struct checkpoint_walk *outer;
};

struct checkpoint_layer *checkpoint_layer(void)
{
    struct checkpoint_layer *l = &registry_context_current()->checkpoint;

    if (!l->lock_ready) {
        task_mutex_init(&l->lock);
        l->lock_ready = true;
    }
    return l;
}

const char *checkpoint_device_kind_name(enum CheckpointDeviceKind kind)
{
    switch (kind) {
    case CHECKPOINT_DEVICE_NIC:
        return "nic";
    case CHECKPOINT_DEVICE_DISK:
        return "disk";
    case CHECKPOINT_DEVICE_CONSOLE:
        return "console";
    }
    return "unknown";
}

bool checkpoint_device_add(CheckpointDevice *dev, Error **errp)
{
    CheckpointDevice **end = &checkpoint_layer()->first;

    assert(dev->id);
    for (; *end; end = &(*end)->next) {
        if (!strcmp((*end)->id, dev->id)) {
            error_setg(errp, "device %s: the id is taken by another device under checkpointing", dev->id);
            return false;
        }
    }
    dev->ops = NULL;
    dev->next = NULL;
    dev->phase = CHECKPOINT_PHASE_IDLE;
    dev->err = NULL;
    *end = dev;
    return true;
}

static void teardown(CheckpointDevice *dev, bool discard)
{
    bool matched = dev->phase == CHECKPOINT_PHASE_READY || dev->phase == CHECKPOINT_PHASE_FAILED;

    assert(dev->phase != CHECKPOINT_PHASE_TRYING);
    dev->phase = CHECKPOINT_PHASE_IDLE;
    if (matched && dev->ops->teardown)
        dev->ops->teardown(dev, discard);
}

static CheckpointDevice **find_link(struct checkpoint_layer *l, const CheckpointDevice *dev)
{
    CheckpointDevice **link = &l->first;

    while (*link && *link != dev)
        link = &(*link)->next;
    return *link ? link : NULL;
}

void checkpoint_device_remove(CheckpointDevice *dev)
{
    struct checkpoint_layer *l = checkpoint_layer();
    CheckpointDevice **link = find_link(l, dev);

    if (!link)
        return;
    /* Nobody has acknowledged what it holds, and nobody will. A teardown may itself remove devices. */
    teardown(dev, true);
    link = find_link(l, dev);
    if (!link)
        return;
    for (struct checkpoint_walk *w = l->walks; w; w = w->outer) {
        if (w->next == dev)
            w->next = dev->next;
    }
    *link = dev->next;
    dev->next = NULL;
    dev->ops = NULL;
    error_free(dev->err);
    dev->err = NULL;
}

static void walk_begin(struct checkpoint_walk *w)
{
    struct checkpoint_layer *l = checkpoint_layer();

    *w = (struct checkpoint_walk){.next = l->first, .outer = l->walks};
    l->walks = w;
}

static CheckpointDevice *walk_next(struct checkpoint_walk *w)
{
    CheckpointDevice *dev = w->next;

    if (dev)
        w->next = dev->next;
    return dev;
}

static void walk_end(struct checkpoint_walk *w)
{
    checkpoint_layer()->walks = w->outer;
}

void checkpoint_devices_teardown(bool discard)
{
    struct checkpoint_walk w;
    CheckpointDevice *dev;

    assert(!checkpoint_layer()->setting_up);
    walk_begin(&w);
    while ((dev = walk_next(&w)))
        teardown(dev, discard);
    walk_end(&w);
}

typedef bool (*checkpoint_op)(struct CheckpointDevice *dev, uint64_t epoch, Error **errp);

static checkpoint_op op_postsuspend(const CheckpointDeviceOps *ops)
{
    return ops->postsuspend;
}

static checkpoint_op op_preresume(const CheckpointDeviceOps *ops)
{
    return ops->preresume;
}

static checkpoint_op op_commit(const CheckpointDeviceOps *ops)
{
    return ops->commit;
}

/* Reaches every device that is ready, whatever the others answer: a half-closed epoch must not stay open in
 * one of them. */
static bool walk_all(checkpoint_op (*get)(const CheckpointDeviceOps *ops), const char *what, uint64_t epoch,
                     Error **errp)
{
    struct checkpoint_walk w;
    CheckpointDevice *dev;
    Error *first = NULL;
    bool all_ok = true;

    walk_begin(&w);
    while ((dev = walk_next(&w))) {
        Error *err = NULL;
        checkpoint_op op;

        if (dev->phase != CHECKPOINT_PHASE_READY || !(op = get(dev->ops)))
            continue;
        if (op(dev, epoch, &err) && !err)
            continue;
        all_ok = false;
        if (!err)
            error_setg(&err, "a device under checkpointing failed its %s of epoch %llu and gave no reason",
                       what, (unsigned long long)epoch);
        error_propagate(&first, err);
    }
    walk_end(&w);
    error_propagate(errp, first);
    return all_ok;
}

bool checkpoint_devices_postsuspend(uint64_t epoch, Error **errp)
{
    return walk_all(op_postsuspend, "postsuspend", epoch, errp);
}

bool checkpoint_devices_preresume(uint64_t epoch, Error **errp)
{
    return walk_all(op_preresume, "preresume", epoch, errp);
}

bool checkpoint_devices_commit(uint64_t epoch, Error **errp)
{
    return walk_all(op_commit, "commit", epoch, errp);
}

void checkpoint_devices_set_listener(void (*output_waiting)(void *opaque), void *opaque)
{
    struct checkpoint_layer *l = checkpoint_layer();

    task_lock(&l->lock);
    l->listener = output_waiting;
    l->listener_opaque = opaque;
    task_unlock(&l->lock);
}

/* The listener runs under the lock: once set_listener(NULL) has returned, nobody is inside the old one any
 * more. */
void checkpoint_device_output_waiting(CheckpointDevice *dev)
{
    struct checkpoint_layer *l = checkpoint_layer();

    (void)dev;
    task_lock(&l->lock);
    if (l->listener)
        l->listener(l->listener_opaque);
    task_unlock(&l->lock);
}
