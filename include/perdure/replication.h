/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ReplicationState: one component that replicates (a disk, a NIC, anything), and the walks over all of them.
 *
 * Whoever checkpoints a machine to a second place walks all that replicates; whatever replicates puts itself
 * on the list. Neither knows the other. It serves Remus, COLO and micro-checkpointing alike, and programs
 * without a machine (an image tool, an NBD server): it needs no KVM, no event loop and no thread.
 *
 * Order of calls on each side of a pair, the secondary always one step ahead of the primary:
 *
 *     replication_start_all(mode)            once; a failure undoes itself
 *     for each checkpoint:
 *         replication_do_checkpoint_all()    secondary: all of the checkpoint's machine state is here
 *         replication_get_error_all()        both: before anything is acknowledged or released
 *     replication_stop_all(failover)         once, at the end or at the failover
 *
 * A reader who knows COLO finds its four moments here:
 *
 *     prepare             replication_start_all(), the machine stopped, the secondary first
 *     start checkpoint    replication_do_checkpoint_all(): the machine is stopped, its state complete
 *     finish checkpoint   replication_get_error_all(): if it says yes the machine goes on; what comes now
 *                         belongs to the next checkpoint
 *     failover            replication_stop_all(true)
 *
 * Components are called in the order in which they registered; an operation that is NULL is skipped. A
 * component may remove itself, or any other, from inside an operation; one that registers during a walk is
 * not called by that walk.
 *
 * Threads: no locks inside. The list belongs to whoever runs the machine's life: new, remove and the walks
 * are called by one thread at a time, as the machine is built, protected and torn down. Operations run on the
 * caller of the walk, no lock of this layer held.
 *
 * Example, a component that registers at open and leaves at close:
 *
 *     static bool log_start(ReplicationState *rs, enum ReplicationMode mode, Error **errp)
 *     {
 *         struct log *log = rs->opaque;
 *
 *         if (log->fd < 0) {
 *             error_setg(errp, "log %s: not open", log->name);
 *             return false;
 *         }
 *         log->sending = mode == REPLICATION_MODE_PRIMARY;
 *         return true;
 *     }
 *
 *     static bool log_checkpoint(ReplicationState *rs, Error **errp)
 *     {
 *         return log_make_durable(rs->opaque, errp);      // secondary: the checkpoint's records now count
 *     }
 *
 *     static ReplicationOps log_ops = {.start = log_start, .checkpoint = log_checkpoint};   // stop: nothing
 *
 *     void log_open(struct log *log)   { log->rs = replication_new(log, &log_ops); }
 *     void log_close(struct log *log)  { replication_remove(log->rs); }
 *
 * examples/replication.c is a whole program.
 */
#ifndef PERDURE_REPLICATION_H
#define PERDURE_REPLICATION_H

#include <perdure/error.h>
#include <stdint.h>

enum ReplicationMode {
    REPLICATION_MODE_PRIMARY,   /* state is sent to the other side */
    REPLICATION_MODE_SECONDARY, /* state is received */
};

struct ReplicationState;

/* What a component does. Each may be NULL: nothing to do. false means failure, and then errp should say what
 * failed, on which object; an operation that says nothing gets a general text. errp may be NULL only where a
 * component calls its own operations. */
typedef struct ReplicationOps {
    /* Replication begins. The machine is stopped, the secondary side is started before the primary. May
     * allocate, open, connect. On failure it must leave nothing behind: its stop is not called. */
    bool (*start)(struct ReplicationState *rs, enum ReplicationMode mode, Error **errp);
    /* Replication ends. failover: this side takes over with what the last checkpoint made durable, and drops
     * what came after; the other side may be dead, so wait for nothing from it. Else the machine is stopped
     * and both sides end in order. Called also where start was never called: nothing to do then. Must clean
     * up whatever happens; the error is only reported. */
    bool (*stop)(struct ReplicationState *rs, bool failover, Error **errp);
    /* All machine state of the checkpoint is on the secondary: what the component received for it becomes
     * durable, whole. The machine is stopped, or this is a secondary whose machine does not run. */
    bool (*checkpoint)(struct ReplicationState *rs, Error **errp);
    /* false: the component has failed since start, in the background. Called often, also between checkpoints:
     * must not wait. */
    bool (*get_error)(struct ReplicationState *rs, Error **errp);
} ReplicationOps;

typedef struct ReplicationState {
    void *opaque;        /* the component's own */
    ReplicationOps *ops; /* borrowed */
    /* private to the registry */
    struct ReplicationState *next, *prev;
    uint64_t serial, started_by;
} ReplicationState;

/* Registers a component, last in the order. opaque and ops are borrowed until it is removed. NULL: out of
 * memory. */
ReplicationState *replication_new(void *opaque, ReplicationOps *ops);
/* Unregisters and frees; no operation is called. NULL is fine. */
void replication_remove(ReplicationState *rs);

/* Starts every component. Stops at the first that fails, and undoes with stop(false), in reverse order, those
 * that it had started; the error is that of the start. The machine is stopped; the secondary side is called
 * before the primary. */
bool replication_start_all(enum ReplicationMode mode, Error **errp);
/* Once all machine state of the checkpoint is on the secondary. Stops at the first error: the checkpoint does
 * not count then. */
bool replication_do_checkpoint_all(Error **errp);
/* Has any component failed since? Stops at the first that has. */
bool replication_get_error_all(Error **errp);
/* On failover, or to end replication; the machine is stopped unless it is a failover. Reaches every
 * component, whatever the others answer, and reports the first error. */
bool replication_stop_all(bool failover, Error **errp);

#endif
