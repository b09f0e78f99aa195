/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_observer.h"
#include "sim_link.h"
#include "sim_sniffer.h"

#include <string.h>

#define KEPT 256 /* of struct observer */

static struct observer *observers[16]; /* of living guests */

static struct observer *find(const SimHost *h)
{
    for (size_t i = 0; i < 16; i++)
        if (observers[i] && observers[i]->host == h)
            return observers[i];
    return NULL;
}

static void setup(CheckpointDevice *dev)
{
    struct observer *o = dev->opaque;

    if (strncmp(dev->id, "observer-", 9)) {
        checkpoint_device_setup_done(dev, CHECKPOINT_DEVICE_NO_MATCH, NULL);
        return;
    }
    if (dev == &o->devices[1]) { /* all others are ready */
        o->ready = true;
        o->acked_epoch = o->acked_step = o->last_epoch = 0;
        memset(o->epochs, 0, sizeof(o->epochs));
        sim_trace("devices are set up");
    }
    checkpoint_device_setup_done(dev, CHECKPOINT_DEVICE_READY, NULL);
}

static void teardown(CheckpointDevice *dev, bool discard)
{
    struct observer *o = dev->opaque;

    if (o->protecting)
        sim_trace("devices are torn down, output is %s", discard ? "discarded" : "released");
    o->ready = o->protecting = false;
}

static bool postsuspend(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    struct observer *o = dev->opaque;

    (void)errp;
    if (dev != &o->devices[0])
        return true;
    o->protecting = o->ready;
    o->swapped = false;
    o->epochs[epoch % KEPT].epoch = epoch;
    o->epochs[epoch % KEPT].step = o->guest_step(o->opaque);
    o->last_epoch = epoch;
    sim_trace("epoch %llu ends with step %llu", (unsigned long long)epoch,
              (unsigned long long)o->epochs[epoch % KEPT].step);
    return true;
}

static bool commit(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    struct observer *o = dev->opaque;

    (void)errp;
    if (dev == &o->devices[0])
        o->commits++;
    if (epoch > o->acked_epoch)
        sim_fail("epoch %llu is committed and %llu is the last that was acknowledged",
                 (unsigned long long)epoch, (unsigned long long)o->acked_epoch);
    return true;
}

static const CheckpointDeviceOps observer_ops = {
    .name = "observer",
    .kind = CHECKPOINT_DEVICE_DISK, /* beside the disks' own */
    .setup = setup,
    .teardown = teardown,
    .postsuspend = postsuspend,
    .commit = commit,
};

void observer_register(void)
{
    checkpoint_device_register_ops(&observer_ops);
}

static bool component_start(ReplicationState *rs, enum ReplicationMode mode, Error **errp)
{
    struct observer *o = rs->opaque;

    (void)errp;
    if (o->started)
        sim_fail("a component is started twice");
    o->started = true;
    sim_trace("components are started: %s", mode == REPLICATION_MODE_PRIMARY ? "primary" : "secondary");
    return true;
}

static bool component_stop(ReplicationState *rs, bool failover, Error **errp)
{
    struct observer *o = rs->opaque;

    (void)errp;
    if (!o->started)
        sim_fail("a component is stopped and was not started");
    o->started = false;
    sim_trace("components are stopped%s", failover ? ": failover" : "");
    return true;
}

static bool component_checkpoint(ReplicationState *rs, Error **errp)
{
    struct observer *o = rs->opaque;

    (void)errp;
    if (!o->started)
        sim_fail("a checkpoint of a component that was not started");
    return true;
}

static bool component_get_error(ReplicationState *rs, Error **errp)
{
    (void)rs, (void)errp;
    return true;
}

static ReplicationOps component_ops = {
    .start = component_start,
    .stop = component_stop,
    .checkpoint = component_checkpoint,
    .get_error = component_get_error,
};

static void add(struct observer *o, int i, const char *id)
{
    o->devices[i] = (CheckpointDevice){.id = id, .kind = CHECKPOINT_DEVICE_DISK, .opaque = o};
    if (!checkpoint_device_add(&o->devices[i], NULL))
        sim_fail("the observer cannot be added");
}

void observer_begin(struct observer *o, SimHost *h, uint64_t (*guest_step)(void *opaque), void *opaque)
{
    size_t i = 0;

    *o = (struct observer){.host = h, .guest_step = guest_step, .opaque = opaque};
    while (observers[i] && sim_host_state(observers[i]->host) != SIM_HOST_DEAD)
        i++;
    observers[i] = o;
    add(o, 0, "observer-first");
    o->component = replication_new(o, &component_ops);
}

void observer_end(struct observer *o)
{
    add(o, 1, "observer-last");
}

void observer_remove(struct observer *o)
{
    if (o->started)
        sim_fail("a component was never stopped");
    replication_remove(o->component);
    for (size_t i = 0; i < 16; i++)
        if (observers[i] == o)
            observers[i] = NULL;
    checkpoint_device_remove(&o->devices[0]);
    checkpoint_device_remove(&o->devices[1]);
}

void observer_swapped(SimHost *h, bool protect)
{
    struct observer *o = find(h);

    if (o)
        o->swapped = protect;
}

void observer_check(SimHost *h, uint64_t step)
{
    struct observer *o = find(h);

    if (sim_host_state(h) != SIM_HOST_UP)
        sim_fail("output of a host that is not up");
    if (o && o->swapped && !o->protecting)
        sim_fail("output of step %llu leaves %s, whose guest came by a swap and is not protected yet",
                 (unsigned long long)step, sim_host_name(h));
    if (o && o->protecting && step > o->acked_step)
        sim_fail("output of step %llu leaves %s, and the last acknowledged epoch, %llu, ends with step %llu",
                 (unsigned long long)step, sim_host_name(h), (unsigned long long)o->acked_epoch,
                 (unsigned long long)o->acked_step);
}

/* h has read an acknowledgement. */
static void acknowledged(SimHost *h, uint64_t epoch)
{
    struct observer *o = find(h);

    if (!o || !o->protecting || o->epochs[epoch % KEPT].epoch != epoch || epoch <= o->acked_epoch)
        return;
    o->acked_epoch = epoch;
    o->acked_step = o->epochs[epoch % KEPT].step;
}

void observer_init(void (*pages_sent)(SimHost *writer))
{
    sniffer_init(acknowledged, pages_sent);
}
