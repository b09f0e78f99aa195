/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/virtio.h"

#include <assert.h>
#include <stddef.h>

#include "base/log.h"

#define STATUS_DRIVER_BITS                                                                                   \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |                      \
     VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

bool virtio_has_feature(const struct virtio_device *v, unsigned bit)
{
    return v->driver_features >> bit & 1;
}

bool virtio_is_running(const struct virtio_device *v)
{
    return (v->status & VIRTIO_CONFIG_S_DRIVER_OK) && !(v->status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void reset_state(struct virtio_device *v)
{
    v->driver_features = 0;
    v->status = 0;
    v->config_vector = VIRTQUEUE_NO_VECTOR;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        virtqueue_reset(&v->queues[i]);
}

void virtio_init(struct virtio_device *v)
{
    assert(v->queue_count <= VIRTIO_QUEUES_MAX && v->ops->config_size <= VIRTIO_CONFIG_MAX);
    v->features = v->ops->features | VIRTIO_COMMON_FEATURES;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        v->queues[i].memory = v->memory;
    reset_state(v);
}

void virtio_reset(struct virtio_device *v)
{
    v->ops->stop(v);
    if (v->ops->reset)
        v->ops->reset(v);
    reset_state(v);
}

static bool features_acceptable(const struct virtio_device *v)
{
    return !(v->driver_features & ~v->features) && virtio_has_feature(v, VIRTIO_F_VERSION_1);
}

static void use_features(struct virtio_device *v)
{
    for (unsigned i = 0; i < v->queue_count; i++) {
        v->queues[i].event_idx = virtio_has_feature(v, VIRTIO_RING_F_EVENT_IDX);
        v->queues[i].indirect = virtio_has_feature(v, VIRTIO_RING_F_INDIRECT_DESC);
    }
}

void virtio_set_status(struct virtio_device *v, uint8_t status)
{
    uint8_t before = v->status;

    if (!status) {
        virtio_reset(v);
        return;
    }
    status &= STATUS_DRIVER_BITS;
    /* A driver that asks for too much reads the bit back as zero; without it there is no DRIVER_OK. */
    if (!(before & VIRTIO_CONFIG_S_FEATURES_OK) && !features_acceptable(v))
        status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
    if (!(status & VIRTIO_CONFIG_S_FEATURES_OK))
        status &= ~VIRTIO_CONFIG_S_DRIVER_OK;
    /* Bits once set go only with a reset. */
    v->status |= status;
    if (status & ~before & VIRTIO_CONFIG_S_FEATURES_OK)
        use_features(v);
    if ((status & ~before & VIRTIO_CONFIG_S_DRIVER_OK) && virtio_is_running(v)) {
        v->ops->start(v);
        virtio_kick_all(v); /* a driver may have filled its rings before it was ready */
    }
}

void virtio_enable_queue(struct virtio_device *v, unsigned queue)
{
    struct virtqueue *q = &v->queues[queue];

    if (q->enabled || !(v->status & VIRTIO_CONFIG_S_FEATURES_OK))
        return;
    if (!virtqueue_map(q)) {
        virtio_break(v, "a queue is not in RAM");
        return;
    }
    q->enabled = true;
}

void virtio_kick(struct virtio_device *v, unsigned queue)
{
    if (queue < v->queue_count && virtio_is_running(v) && v->queues[queue].enabled && v->may_access_memory(v))
        v->ops->kick(v, queue);
}

void virtio_kick_all(struct virtio_device *v)
{
    for (unsigned i = 0; i < v->queue_count; i++)
        virtio_kick(v, i);
}

void virtio_queue_done(struct virtio_device *v, unsigned queue)
{
    struct virtqueue *q = &v->queues[queue];

    if (virtqueue_should_notify(q))
        v->interrupt(v, q->vector, false);
    if (q->broken)
        virtio_break(v, "a descriptor chain breaks the rules");
}

void virtio_config_changed(struct virtio_device *v)
{
    v->generation++;
    if (v->status & VIRTIO_CONFIG_S_DRIVER_OK)
        v->interrupt(v, v->config_vector, true);
}

void virtio_break(struct virtio_device *v, const char *why)
{
    if (v->status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    log_warn("device %s: stopped until the guest resets it: %s", v->id, why);
    v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    virtio_config_changed(v);
}

/* --- saved state --- */

static const VMStateField virtio_fields[] = {
    VMSTATE_U64(struct virtio_device, driver_features, 1),
    VMSTATE_U8(struct virtio_device, status, 1),
    VMSTATE_U8(struct virtio_device, generation, 1),
    VMSTATE_U16(struct virtio_device, config_vector, 1),
    {.name = "queues",
     .type = VMSTATE_TYPE_STRUCT,
     .offset = offsetof(struct virtio_device, queues),
     .size = sizeof(struct virtqueue),
     .count = VIRTIO_QUEUES_SAVED,
     .since = 1,
     .sub = &virtqueue_vmstate},
    VMSTATE_END,
};
const VMStateDescription virtio_vmstate = {
    .name = "virtio", .version = 1, .minimum_version = 1, .fields = virtio_fields};

static const char *check_loaded(struct virtio_device *v)
{
    if (v->status & ~(STATUS_DRIVER_BITS | VIRTIO_CONFIG_S_NEEDS_RESET))
        return "unknown bits of status";
    if ((v->status & VIRTIO_CONFIG_S_DRIVER_OK) && !(v->status & VIRTIO_CONFIG_S_FEATURES_OK))
        return "a driver that is ready without features";
    if ((v->status & VIRTIO_CONFIG_S_FEATURES_OK) && !features_acceptable(v))
        return "features that this device does not have";
    if (v->config_vector != VIRTQUEUE_NO_VECTOR && v->config_vector >= v->vectors)
        return "an interrupt vector that does not exist";
    return NULL;
}

static const char *check_loaded_queue(struct virtio_device *v, unsigned i)
{
    struct virtqueue *q = &v->queues[i];
    const char *wrong = virtqueue_post_load(q, v->vectors);

    if (wrong)
        return wrong;
    if (q->enabled && (i >= v->queue_count || !(v->status & VIRTIO_CONFIG_S_FEATURES_OK)))
        return "it is enabled and cannot be";
    if (q->inflight_count && !q->enabled)
        return "it has requests in flight and is not enabled";
    return NULL;
}

bool virtio_post_load(struct virtio_device *v, Error **errp)
{
    const char *wrong = check_loaded(v);

    v->ops->stop(v);
    if (wrong) {
        error_setg(errp, "device %s: the state has %s", v->id, wrong);
        reset_state(v);
        return false;
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        wrong = check_loaded_queue(v, i);
        if (wrong) {
            error_setg(errp, "device %s: the state of queue %u cannot be: %s", v->id, i, wrong);
            reset_state(v);
            return false;
        }
    }
    use_features(v);
    return true;
}

/* A kick or an interrupt that was on its way when the other side died is lost: so everybody is told once
 * more. */
void virtio_take_over(struct virtio_device *v)
{
    if (!virtio_is_running(v))
        return;
    v->ops->start(v);
    virtio_kick_all(v);
    for (unsigned i = 0; i < v->queue_count; i++) {
        if (v->queues[i].enabled)
            v->interrupt(v, v->queues[i].vector, false);
    }
    v->interrupt(v, v->config_vector, true);
}
