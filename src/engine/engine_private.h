/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of Engine, for the files of this folder.
 *
 * Tasks: one that accepts (backups), one session at a time (session.h) with one heartbeat. The API's callers
 * leave wishes here and wake the session, which alone acts. One lock, a leaf: no callback, guest, registry or
 * channel is called with it held, and anybody may take it (a NIC that tells of waiting output does, under its
 * own lock).
 */
#ifndef ENGINE_PRIVATE_H
#define ENGINE_PRIVATE_H

#include "engine/engine.h"
#include "engine/figures.h"
#include "base/task.h"
#include "base/uuid.h"

struct session;
struct successor;

/* What the API wants of the session; it takes note at its next step. */
struct wishes {
    bool quit; /* engine_free() */
    bool unprotect;
    bool swap;
    bool leave;    /* and after it this side does not stand by: it ends */
    bool handover; /* the backup's user asks for a swap */
    bool vouched;  /* the user says that the other side does not run: UNKNOWN counts as granted */
    bool move_on;  /* engine_protect() needs the session's place: it stops asking the arbiter */
    bool resume;   /* postcopy: the link is to be made anew, now */
    bool hold;     /* postcopy: not before that */
    bool move;     /* the backup is to move (move_to) */
    bool stay;     /* and not any more */
};

struct Engine {
    /* set at engine_new() */
    char vm[64];
    struct transport *transport;
    struct engine_owner owner;
    char only_arbiter[1100]; /* engine_listen(): empty: any */

    /* the session's task, and the API while there is none */
    Guest *guest;
    bool guest_is_made; /* by the factory: ours to destroy until promoted */

    struct task_mutex lock; /* all that follows */
    struct task_cond changed;
    enum engine_role role;
    enum engine_state state;
    char pair[UUID_TEXT_SIZE];
    uint64_t generation, epoch;
    char peer[256], arbiter[1100];
    int64_t interval_ns;
    struct wishes wish;
    struct {
        unsigned unprotect, handover, vouched;
    } wishers; /* calls under way that want it */
    bool busy; /* engine_protect() is under way */
    bool output_waiting;
    int64_t output_since; /* when the first output of the running epoch came; 0: none yet */
    bool guest_asks;      /* it made a request */
    bool asks_on;         /* UNPROTECTED by the user's word, and the session asks the arbiter on */
    bool feed_waiting;    /* a replicating component has something for the peer */
    char recover_to
        [256]; /* postcopy: where the source shall look for the destination once; empty: where it was */
    char move_to[256];        /* where the backup is to move */
    bool may_end_in_postcopy; /* the migration under way began so */
    bool unstarted;           /* primary by a swap, and the guest has not run here yet */
    bool attempting;          /* to make a broken link anew */
    bool serves;              /* postcopy: the guest runs at the other side, and needs what is here */
    uint64_t attempts;        /* to make a broken link anew */
    uint64_t unknowns;        /* answers "unknown" of the arbiter in this ASKING */
    struct figures figures;
    struct engine_migration migration;
    struct engine_migrate_params migrate_next, migrate_now; /* of the next, and of the one that began last */
    int64_t took_over_ns;
    char last_error[512];
    char report[2048];

    /* The last protection that this primary was granted to go on alone from: no other side may take over from
     * it any more. HELLO says so to a backup that still asks. pair empty: none. */
    char went_on_pair[UUID_TEXT_SIZE];
    uint64_t went_on_generation;

    /* The last migration of which all memory came here: its source may not have heard. Empty: none. */
    char fetched_pair[UUID_TEXT_SIZE];

    struct session *session; /* NULL: none; ended ones are reaped by the next */
    bool session_ended;
    uint64_t session_number; /* counts them: a request waits for the end of the one that it saw */
    bool taking_down;        /* engine_take_link_down() has its hand on session */
    Channel *checking;       /* of a `protect --check` that is being answered: the end does not wait for it */
    Task *session_task, *accept_task;
    struct successor *leaving; /* given up while it was being connected to; the session's task, and the end */
};

/* Tells the owner and the log. No lock held. */
void engine_event(Engine *e, const char *name, const char *fmt, ...) PERDURE_PRINTF(3, 4);
/* Remembers err (borrowed) as last_error and tells. */
void engine_note_error(Engine *e, const Error *err);
/* An error of the clean-up: tells, but the first error stays the one that is reported. */
void engine_note_trouble(Engine *e, const Error *err);
void engine_set_report(Engine *e, const char *text);
void engine_wake(void *engine);
struct wishes engine_wishes(Engine *e);
/* Of the session that there is. No lock held. */
void engine_take_link_down(Engine *e, const char *why);
/* Runs s, which is taken, on a task of its own. The one before has ended. */
bool engine_start_session(Engine *e, struct session *s, Error **errp);
/* Joins and frees a session that has ended; false while one is under way. */
bool engine_reap_session(Engine *e);
/* accept.c: the accepting task. */
void engine_accept_run(void *engine);

#endif
