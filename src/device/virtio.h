/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio: what all virtio devices have, whatever bus they sit on: features, status, queues, configuration.
 *
 * A device (virtio_net.c, virtio_blk.c) gives a struct virtio_ops and handles kicks; the transport
 * (virtio_pci.c) turns register accesses into the calls below and sends the interrupts. Everything runs under
 * the loop lock.
 *
 * Life: reset -> the driver negotiates -> start (DRIVER_OK) -> kicks ... -> stop (reset). After a loaded
 * state: quiesce, then on the side that takes over virtio_take_over(), which starts the device, re-issues
 * what is in flight, kicks every queue and signals every vector once.
 *
 * A driver that breaks the rules makes the device stop: virtio_break() sets DEVICE_NEEDS_RESET and
 * interrupts; the driver may reset it.
 */
#ifndef DEVICE_VIRTIO_H
#define DEVICE_VIRTIO_H

#include <linux/virtio_config.h>

#include "device/virtqueue.h"

#define VIRTIO_QUEUES_MAX 20
/* Of a device with more the rest is the device's own to save: virtio_vmstate has this many, of every device.
 */
#define VIRTIO_QUEUES_SAVED 4
#define VIRTIO_CONFIG_MAX   64

struct virtio_device;

struct virtio_ops {
    uint16_t device_id;   /* of the virtio specification */
    uint64_t features;    /* in addition to VIRTIO_COMMON_FEATURES */
    unsigned config_size; /* 0: it has none */
    /* Fills config_size bytes. */
    void (*read_config)(struct virtio_device *v, uint8_t *config);
    /* The driver is ready, or this side takes over: begin, and issue again what is in flight. */
    void (*start)(struct virtio_device *v);
    /* The device is reset, or another state is loaded over it: nothing of what it did before may reach the
     * guest any more. */
    void (*stop)(struct virtio_device *v);
    /* After stop, when the driver or the machine resets the device: forget what the driver said. NULL:
     * nothing. */
    void (*reset)(struct virtio_device *v);
    /* Look at the queue. Only while virtio_is_running(). */
    void (*kick)(struct virtio_device *v, unsigned queue);
};

#define VIRTIO_COMMON_FEATURES                                                                               \
    (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC)

struct virtio_device {
    /* set by the owner */
    const struct virtio_ops *ops;
    const char *id;
    GuestMemory *memory;
    unsigned queue_count;
    uint64_t features; /* offered */
    unsigned vectors;
    /* Set by the transport. vector: VIRTQUEUE_NO_VECTOR is possible. config: for a change of configuration,
     * else for a queue. */
    void (*interrupt)(struct virtio_device *v, uint16_t vector, bool config);
    bool (*may_access_memory)(struct virtio_device *v);

    /* saved */
    uint64_t driver_features;
    uint8_t status;
    uint8_t generation; /* of the configuration */
    uint16_t config_vector;
    struct virtqueue queues[VIRTIO_QUEUES_MAX];
};

void virtio_init(struct virtio_device *v);
void virtio_reset(struct virtio_device *v);
/* The driver writes the status register. */
void virtio_set_status(struct virtio_device *v, uint8_t status);
/* The driver enables queue, having set its size and addresses. */
void virtio_enable_queue(struct virtio_device *v, unsigned queue);
/* Passes a kick on, if the device may work. */
void virtio_kick(struct virtio_device *v, unsigned queue);
void virtio_kick_all(struct virtio_device *v);

bool virtio_is_running(const struct virtio_device *v);
bool virtio_has_feature(const struct virtio_device *v, unsigned bit);
/* Interrupts for queue if its driver wants one for what was pushed. Breaks the device if the queue broke. */
void virtio_queue_done(struct virtio_device *v, unsigned queue);
void virtio_config_changed(struct virtio_device *v);
/* why: for the log. */
void virtio_break(struct virtio_device *v, const char *why);

extern const VMStateDescription virtio_vmstate;
bool virtio_post_load(struct virtio_device *v, Error **errp);
void virtio_take_over(struct virtio_device *v);

#endif
