/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CheckpointDevice: one device under checkpointing, and the layer that drives all of them.
 *
 * Owners (a NIC's output buffer, the console gate, a disk filter) add their devices with
 * checkpoint_device_add() when they are made and remove them when they go. Implementations of a kind are
 * registered once a process, with checkpoint_device_register_ops(). The engine calls the walks and knows
 * neither.
 *
 * Order of calls:
 *
 *     checkpoint_devices_setup()             once: starts holding output; all devices at the same time
 *     for each epoch N, on the primary:
 *         checkpoint_devices_postsuspend(N)  the machine is stopped: N's output is complete, what follows is N+1's
 *         checkpoint_devices_preresume(N)    the machine is about to run again
 *         checkpoint_devices_commit(N)       the backup has acknowledged N: its output may be seen
 *     checkpoint_devices_teardown(discard)   at the end, whatever ended it, also after a failed setup
 *
 * Setup finds for each device the first implementation of its kind that matches, in the order of their
 * registration. It may be asynchronous: it answers through checkpoint_device_setup_done(), at once or later
 * from any thread, exactly once for each call of ops->setup. The caller hears one answer, when every device
 * has settled; no failure stops the others from settling. A device that nothing matches fails the setup as
 * "not supported", by name. A device that is added after the setup waits for the next.
 *
 * Errors: setup, postsuspend, preresume and commit reach every device, whatever the others answer, and report
 * the first error in time. The setup's error is the caller's; a teardown does not touch it, nor the copy that
 * stays in the device (dev->err) until the next setup.
 *
 * Threads: add, remove, register_ops and the walks are called by one thread at a time, never during a setup
 * that has not answered. setup_done and output_waiting may be called by any thread at any time. The listener
 * is called under a lock of the layer: it must not call the layer, and set_listener must not be called with a
 * lock held that the listener takes.
 *
 * Example, an implementation that counts the frames it would hold:
 *
 *     static void count_setup(CheckpointDevice *dev)
 *     {
 *         if (strncmp(dev->id, "net", 3)) {
 *             checkpoint_device_setup_done(dev, CHECKPOINT_DEVICE_NO_MATCH, NULL);
 *             return;
 *         }
 *         dev->state = dev->opaque;
 *         checkpoint_device_setup_done(dev, CHECKPOINT_DEVICE_READY, NULL);
 *     }
 *
 *     static bool count_commit(CheckpointDevice *dev, uint64_t epoch, Error **errp)
 *     {
 *         return counter_release(dev->state, epoch, errp);
 *     }
 *
 *     static const CheckpointDeviceOps count_ops = {
 *         .name = "count", .kind = CHECKPOINT_DEVICE_NIC, .setup = count_setup, .commit = count_commit,
 *     };
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
    /* Undoes setup, also one that failed; never for an implementation that did not match. NULL: nothing to
     * undo. Cannot fail. discard false: output held that was never acknowledged is RELEASED (the guest goes
     * on here, unprotected); true: it is DISCARDED (the other side goes on). */
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
    void *opaque; /* the owner's */
    /* set by the layer: the implementation that matched, or is being tried */
    const CheckpointDeviceOps *ops;
    /* private to the implementation */
    void *state;
    /* private to the layer */
    struct CheckpointDevice *next;
    int phase;
    Error *err;
} CheckpointDevice;

/* Implementations, tried in the order in which they were added. ops is borrowed for ever; again is fine. At
 * most 64 in a process. */
void checkpoint_device_register_ops(const CheckpointDeviceOps *ops);
/* dev is borrowed until removed; false if the id is taken. */
bool checkpoint_device_add(CheckpointDevice *dev, Error **errp);
/* Tears down first where that is due, discarding what is held. Nothing happens if dev was not added. */
void checkpoint_device_remove(CheckpointDevice *dev);
/* The answer of a setup; err is taken (NULL unless FAILED). */
void checkpoint_device_setup_done(CheckpointDevice *dev, enum CheckpointDeviceAnswer answer, Error *err);

/* All devices at once; done is called exactly once, when every device has answered (perhaps before this
 * returns), err (NULL: all are ready) being the callee's to free. After a failure the caller calls
 * checkpoint_devices_teardown(). */
void checkpoint_devices_setup(void (*done)(void *opaque, Error *err), void *opaque);
/* The same, waiting for the answer. */
bool checkpoint_devices_setup_wait(Error **errp);
/* Every device that matched, also those whose setup failed. */
void checkpoint_devices_teardown(bool discard);
bool checkpoint_devices_postsuspend(uint64_t epoch, Error **errp);
bool checkpoint_devices_preresume(uint64_t epoch, Error **errp);
bool checkpoint_devices_commit(uint64_t epoch, Error **errp);

/* A device holds output that waits for a commit: calls the listener (one; NULL removes it), which must only
 * wake somebody. */
void checkpoint_device_output_waiting(CheckpointDevice *dev);
void checkpoint_devices_set_listener(void (*output_waiting)(void *opaque), void *opaque);

#endif
