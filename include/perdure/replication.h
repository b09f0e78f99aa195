/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ReplicationState: one component that replicates (a disk, a NIC, anything), and the walks over all of them.
 */
#ifndef PERDURE_REPLICATION_H
#define PERDURE_REPLICATION_H

#include <perdure/error.h>

enum ReplicationMode {
    REPLICATION_MODE_PRIMARY,   /* state is sent to the other side */
    REPLICATION_MODE_SECONDARY, /* state is received */
};

struct ReplicationState;

typedef struct ReplicationOps {
    /* The machine is stopped; the secondary side starts before the primary. */
    bool (*start)(struct ReplicationState *rs, enum ReplicationMode mode, Error **errp);
    /* failover: take over what the last checkpoint made durable. Else the machine is stopped. */
    bool (*stop)(struct ReplicationState *rs, bool failover, Error **errp);
    /* All machine state of the checkpoint is on the secondary. */
    bool (*checkpoint)(struct ReplicationState *rs, Error **errp);
    /* false with errp: the component has failed since start. */
    bool (*get_error)(struct ReplicationState *rs, Error **errp);
} ReplicationOps;

typedef struct ReplicationState {
    void *opaque;
    ReplicationOps *ops;
    /* private: the registry's list */
    struct ReplicationState *next, *prev;
} ReplicationState;

ReplicationState *replication_new(void *opaque, ReplicationOps *ops);
void replication_remove(ReplicationState *rs);
bool replication_start_all(enum ReplicationMode mode, Error **errp);
bool replication_do_checkpoint_all(Error **errp);
bool replication_get_error_all(Error **errp);
bool replication_stop_all(bool failover, Error **errp);

#endif
