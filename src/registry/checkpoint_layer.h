/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of the checkpoint device layer, shared by its two files. */
#ifndef REGISTRY_CHECKPOINT_LAYER_H
#define REGISTRY_CHECKPOINT_LAYER_H

#include "registry/context.h"

/* CheckpointDevice.phase */
enum checkpoint_phase {
    CHECKPOINT_PHASE_IDLE,   /* not set up, or torn down, or nobody knows how */
    CHECKPOINT_PHASE_TRYING, /* ops->setup was called and has not answered */
    CHECKPOINT_PHASE_READY,
    CHECKPOINT_PHASE_FAILED, /* matched ops, which failed: it has a teardown to come */
};

/* The current context's, its lock usable. */
struct checkpoint_layer *checkpoint_layer(void);
const char *checkpoint_device_kind_name(enum CheckpointDeviceKind kind);

#endif
