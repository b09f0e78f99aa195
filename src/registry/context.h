/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registry context: everything that the registries of one machine remember. A process has one, its own, and
 * never sees this header: the registries are process-wide. Only the simulator, which runs both sides of a
 * pair in one process, makes one for each side and switches whenever it switches to a fiber of that side; it
 * must not be switched in a program with threads.
 *
 * The implementations of checkpoint devices are code, not state: they are shared by all contexts.
 */
#ifndef REGISTRY_CONTEXT_H
#define REGISTRY_CONTEXT_H

#include "base/task.h"
#include <perdure/checkpoint_device.h>
#include <perdure/replication.h>
#include <perdure/replication_feed.h>
#include <perdure/savevm.h>

struct replication_walk;
struct checkpoint_walk;
struct savevm_entry;

struct replication_list {
    ReplicationState *first, *last;
    struct replication_walk *walks; /* under way, innermost first */
    uint64_t serial;                /* of the newest component */
    uint64_t starts;                /* calls of replication_start_all() so far */
};

struct checkpoint_layer {
    CheckpointDevice *first;
    struct checkpoint_walk *walks;
    bool lock_ready;
    struct task_mutex lock; /* of what follows, and of phase and err of the devices during a setup */
    void (*listener)(void *opaque);
    void *listener_opaque;
    /* the setup under way */
    bool setting_up;
    int pending;
    Error *err; /* first failure */
    void (*done)(void *opaque, Error *err);
    void *done_opaque;
};

struct savevm_list {
    struct savevm_entry *first;
    uint32_t next_section_id;
    int walks; /* under way: entries may not go */
};

struct feed_list {
    ReplicationFeed *first;
    ReplicationFeed *asked;  /* its question waits for a reply; NULL: none */
    ReplicationFeed *copied; /* where the pass of a copy is; NULL: none is under way */
    bool last_pass, copy_failed;
    bool lock_ready;
    struct task_mutex lock; /* of what follows */
    int walks;              /* under way, a copy being one: feeds may not come or go */
    bool copying;
    void (*listener)(void *opaque);
    void *listener_opaque;
};

struct registry_context {
    struct replication_list replication;
    struct feed_list feeds;
    struct checkpoint_layer checkpoint;
    struct savevm_list savevm;
};

/* NULL when memory is out. */
struct registry_context *registry_context_new(void);
/* Its registries must be empty, and it must not be the current one. NULL is fine. */
void registry_context_free(struct registry_context *c);
/* NULL: the process's own. Returns the one before. */
struct registry_context *registry_context_switch(struct registry_context *c);
struct registry_context *registry_context_current(void);

#endif
