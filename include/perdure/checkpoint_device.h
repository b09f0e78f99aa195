/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CheckpointDevice: one device under checkpointing, and the layer that drives all of them.
 *
 * Owners (a NIC's output buffer, the console gate, a disk filter) add their devices with checkpoint_device_add() when they are made
 * and remove them when they go. checkpoint_devices_setup() then finds for each device the first implementation of its kind
 * that matches. setup may be asynchronous: it answers through checkpoint_device_setup_done(), at once or later from any thread.
 */
#ifndef PERDURE_CHECKPOINT_DEVICE_H
#define PERDURE_CHECKPOINT_DEVICE_H

#include <perdure/error.h>
#include <stdint.h>

enum CheckpointDeviceKind {
    CHECKPOINT_DEVICE_NIC,
    CHECKPOINT_DEVICE_DISK,
    CHECKPOINT_DEVICE_CONSOLE,
};

struct CheckpointDevice;

/* What a setup answers. */
enum CheckpointDeviceAnswer {
    CHECKPOINT_DEVICE_READY,
    CHECKPOINT_DEVICE_NO_MATCH, /* not mine: the next implementation of the kind is tried */
    CHECKPOINT_DEVICE_FAILED,   /* mine, and failed: err says how */
};

typedef struct CheckpointDeviceOps {
    const char *name; /* of the implementation, for messages */
    enum CheckpointDeviceKind kind;
    /* Starts protecting dev; answers with checkpoint_device_setup_done(). Required. */
    void (*setup)(struct CheckpointDevice *dev);
    /* Undoes setup, also one that failed; never for an implementation that did not match. discard false: output held that was
     * never acknowledged is RELEASED (the guest goes on here, unprotected); true: it is DISCARDED (the other side goes on). */
    void (*teardown)(struct CheckpointDevice *dev, bool discard);
    /* NULL: nothing to do. Between pause and resume: no allocation, no unbounded wait. */
    bool (*postsuspend)(struct CheckpointDevice *dev, uint64_t epoch, Error **errp);
    bool (*preresume)(struct CheckpointDevice *dev, uint64_t epoch, Error **errp);
    /* The backup has acknowledged epoch: release exactly its output. */
    bool (*commit)(struct CheckpointDevice *dev, uint64_t epoch, Error **errp);
} CheckpointDeviceOps;

typedef struct CheckpointDevice {
    /* set by the owner */
    const char *id;
    enum CheckpointDeviceKind kind;
    void *opaque;
    /* set by the layer: the implementation that matched, or is being tried */
    const CheckpointDeviceOps *ops;
    /* private to the implementation */
    void *state;
    /* private to the layer */
    struct CheckpointDevice *next;
    int phase;
    Error *err;
} CheckpointDevice;

/* Implementations, tried in the order in which they were added. ops is borrowed for ever. */
void checkpoint_device_register_ops(const CheckpointDeviceOps *ops);
/* dev is borrowed until removed; false if the id is taken. */
bool checkpoint_device_add(CheckpointDevice *dev, Error **errp);
void checkpoint_device_remove(CheckpointDevice *dev);
/* The answer of a setup; err is taken (NULL unless FAILED). */
void checkpoint_device_setup_done(CheckpointDevice *dev, enum CheckpointDeviceAnswer answer, Error *err);

/* All devices at once; done is called exactly once, when every device has answered (perhaps before this returns), err (NULL: all
 * are ready) being the callee's to free. After a failure the caller calls checkpoint_devices_teardown(). */
void checkpoint_devices_setup(void (*done)(void *opaque, Error *err), void *opaque);
/* The same, waiting for the answer. */
bool checkpoint_devices_setup_wait(Error **errp);
/* Every device that matched, also those whose setup failed. */
void checkpoint_devices_teardown(bool discard);
bool checkpoint_devices_postsuspend(uint64_t epoch, Error **errp);
bool checkpoint_devices_preresume(uint64_t epoch, Error **errp);
bool checkpoint_devices_commit(uint64_t epoch, Error **errp);

/* A device holds output that waits for a commit: calls the listener (one; NULL removes it), which must only wake somebody. */
void checkpoint_device_output_waiting(CheckpointDevice *dev);
void checkpoint_devices_set_listener(void (*output_waiting)(void *opaque), void *opaque);

#endif
