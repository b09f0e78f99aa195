/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The observer inside a host: two checkpoint devices, the first and the last of the layer, which know what
 * each epoch contains, and a tap on the link, which knows which epochs the other side has acknowledged. While
 * a host is protected nothing may leave it that the latest acknowledgement it has read does not cover
 * (invariant 1), whatever the engine believes.
 */
#ifndef SIM_OBSERVER_H
#define SIM_OBSERVER_H

#include "sim_runtime.h"

#include <perdure/checkpoint_device.h>
#include <perdure/replication.h>

struct observer {
    SimHost *host;
    CheckpointDevice devices[2];
    ReplicationState *component; /* replicates nothing, and knows when it should */
    bool started;
    uint64_t (*guest_step)(void *opaque);
    void *opaque;
    bool ready;           /* all devices are set up */
    bool protecting;      /* and the first pause was: nothing passes any more */
    bool swapped;         /* the guest came by a swap, and must not be heard of before that */
    uint64_t acked_epoch; /* read from the link since the setup */
    uint64_t acked_step;
    uint64_t last_epoch, commits;
    struct {
        uint64_t epoch, step;
    } epochs[256]; /* the latest, by epoch number */
};

/* The implementation, once a process. */
void observer_register(void);
/* The first device before all others of the host are added, the second after: begin, then end. guest_step: of
 * the paused guest. */
void observer_begin(struct observer *o, SimHost *h, uint64_t (*guest_step)(void *opaque), void *opaque);
void observer_end(struct observer *o);
void observer_remove(struct observer *o);
/* Taps the link. */
void observer_init(void (*pages_sent)(SimHost *writer));
/* A swap gave the guest to h / it goes on there unprotected. */
void observer_swapped(SimHost *h, bool protect);
/* Something of that step leaves h. */
void observer_check(SimHost *h, uint64_t step);

#endif
