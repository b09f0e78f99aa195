/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Engine: the protection of this process's one guest, in either role (docs/engine.md). The control socket and
 * the simulator drive it through this header.
 *
 *     Engine *e = engine_new("web", guest, transport, &owner, errp);       // a primary, UNPROTECTED
 *
 *     engine_params_default(&p);
 *     snprintf(p.to, sizeof(p.to), "tcp:10.0.0.2:7700");
 *     if (!engine_protect(e, &p, false, errp))                             // accepted by the backup: SYNCING
 *         ...                                                              // every reason, one a line
 *     ...                                                                  // owner.event: PROTECTED, ...
 *     engine_unprotect(e, false, errp);
 *     engine_free(e);                                                      // then the guest
 *
 * and on the other host, with owner.factory:
 *
 *     Engine *e = engine_new("web", NULL, transport, &owner, errp);        // a backup, LISTENING
 *     engine_listen(e, NULL, errp);
 *     ...                                                                  // owner.promoted: the guest runs
 * here
 *
 * States and the only transitions between them are in state.h; every change goes through one set_state() and
 * leaves an event. The requests below may be called by any task, one request at a time; they wait where they
 * say so, and return errors that say what to do. Callbacks come on engine tasks, without engine locks held,
 * and may call engine_status() only. The registries (<perdure/savevm.h>, replication.h, checkpoint_device.h)
 * are walked by the session's task alone, and by the one that takes over for it in postcopy.
 *
 * Events, name and text: PERDURE_STATE "primary SYNCING -> PROTECTED: why", PERDURE_ERROR, PERDURE_REPORT
 * (several lines), PERDURE_GOODBYE; MIGRATION (its outcome changed while the state did not), MIGRATION_PASS (one begins).
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/arbiter.h"
#include "guest/guest.h"
#include "stream/channel.h"

typedef struct Engine Engine;

enum engine_role { ENGINE_PRIMARY, ENGINE_BACKUP };
enum engine_state {
    /* primary */
    ENGINE_UNPROTECTED,
    ENGINE_PROTECTED,
    ENGINE_FENCED,
    /* backup */
    ENGINE_LISTENING,
    ENGINE_STANDBY,
    ENGINE_PROMOTING,
    /* either */
    ENGINE_SYNCING,
    ENGINE_ASKING,
    ENGINE_MIGRATING,
    /* primary */
    ENGINE_MIGRATED,
    ENGINE_POSTCOPY, /* the guest runs at the destination, which is primary too; part of its memory is here */
    ENGINE_POSTCOPY_PAUSED, /* the same, and the link is broken */
};
const char *engine_role_name(enum engine_role r);
const char *engine_state_name(enum engine_state s);

/* How the engine reaches a peer: sockets in the product (transport_socket_new: transport.h), the simulated
 * link in the simulator. Borrowed by the engine, outlives it. */
struct transport {
    /* deadline: until something answers there; to prove who it is may take it longer. */
    Channel *(*connect)(struct transport *t, const char *address, int64_t deadline, Error **errp);
    /* NULL with errp: shut down or broken. A refused or badly authenticated peer is logged and the wait goes
     * on. */
    Channel *(*accept)(struct transport *t, Error **errp);
    void (*shutdown)(struct transport *t); /* of the listening side; accept fails from now on */
    void *opaque;
};

struct engine_owner {
    void *opaque;
    /* A standby builds its guest from the stream; a primary's guest is given to engine_new. */
    struct guest_factory *factory;
    /* Role, state, or something to report changed; text is one line for people. */
    void (*event)(void *opaque, const char *name, const char *text);
    /* The guest ended (power-off, panic) and the end may now take effect outside: on the primary after the
     * acknowledged final epoch, on the backup on the primary's word. Also ENGINE end of an unprotected guest.
     */
    void (*guest_ended)(void *opaque, enum guest_request how);
    /* The backup has taken over: the guest, built by factory, is the owner's running machine now. */
    void (*promoted)(void *opaque, Guest *g);
    /* The guest runs at the destination of a migration: this process has served its time. */
    void (*migrated)(void *opaque);
};

struct engine_params {
    char to[256];          /* primary: where the backup listens */
    int64_t interval_ns;   /* 10 ms */
    int64_t min_epoch_ns;  /* 1 ms */
    int64_t timeout_ns;    /* 1 s: silence that counts */
    uint32_t verify_every; /* epochs; 0 never */
    bool delta;            /* keep a shadow and send deltas (default) */
    char arbiter[1100];    /* "manual" */
};
void engine_params_default(struct engine_params *p);

/* What a migration does when the guest changes its memory faster than the link carries it. */
enum engine_on_slow {
    ENGINE_SLOW_THROTTLE, /* the guest is slowed down, more and more; if that is not enough, PAUSE */
    ENGINE_SLOW_PAUSE,    /* it stands still for as long as the rest takes */
    ENGINE_SLOW_CANCEL,   /* it goes on here */
    ENGINE_SLOW_POSTCOPY, /* it runs there at once, and fetches what it needs from here */
};

/* Are pages packed (LZ4)? */
enum engine_packing {
    ENGINE_PACK_AUTO, /* when the link is what is waited for, and slower than packing */
    ENGINE_PACK_ON,
    ENGINE_PACK_OFF,
};

#define ENGINE_CHANNELS_MAX 16u

struct engine_migrate_params {
    char to[256];        /* where the destination listens, as a standby */
    int64_t downtime_ns; /* 20 ms: so long may the guest stand still */
    int64_t deadline_ns; /* the whole; 0: as long as it takes */
    enum engine_on_slow on_slow;
    enum engine_packing packing;
    unsigned channels;      /* 1, to ENGINE_CHANNELS_MAX: connections that carry memory in the passes */
    bool postcopy;          /* as with SLOW_POSTCOPY, once all memory was sent one time */
    uint64_t max_bandwidth; /* bytes a second, while the guest runs here; 0: what the link carries */
    int64_t timeout_ns;     /* 1 s: silence that counts */
    char arbiter[1100];     /* "manual" */
};
void engine_migrate_params_default(struct engine_migrate_params *p);

/* What of it may change on the way, too. Negative: stays as it is. */
struct engine_migrate_change {
    int64_t downtime_ns, deadline_ns, max_bandwidth;
    int on_slow;
};
#define ENGINE_MIGRATE_NO_CHANGE                                                                             \
    {                                                                                                        \
        -1, -1, -1, -1                                                                                       \
    }
void engine_migrate_params_change(struct engine_migrate_params *p, const struct engine_migrate_change *c);

/* guest NULL: a backup, LISTENING once engine_listen() was called. */
Engine *engine_new(const char *vm_name, Guest *guest, struct transport *t, const struct engine_owner *owner,
                   Error **errp);
/* The end begins: the session ends, and requests under way return; engine_free() follows. */
void engine_quit(Engine *e);
/* Ends everything; the guest stays the owner's, unless a standby's factory made it and it was never promoted.
 * A primary that is protected says nothing to its backup, which takes over: it is left paused, its held
 * output discarded. So to switch a machine off, engine_unprotect() first. NULL is fine. */
void engine_free(Engine *e);

/* Begin accepting a primary, now or whenever this side is a backup; once. Its HELLO names timeout and
 * arbiter; arbiter: the only one that is accepted (an arbiter may be a program that runs here), NULL or
 * empty: any. */
bool engine_listen(Engine *e, const char *arbiter, Error **errp);
/* Primary, UNPROTECTED: connect, check, begin to sync. Returns when the peer accepted the configuration, or
 * with what is missing (all of it, one line each). check_only: and nothing else. */
bool engine_protect(Engine *e, const struct engine_params *p, bool check_only, Error **errp);
/* Primary: end protection; held output is released only if the arbiter's rules allow it. force also ends
 * ASKING; the arbiter is asked on behind it, and a denial that comes late makes this side FENCED. Waits until
 * done. */
bool engine_unprotect(Engine *e, bool force, Error **errp);
/* Backup: take over now: asks the primary to hand over if it answers, else the arbiter; peer_is_dead: the
 * user vouches (manual arbiter), with what follows as of force above. */
bool engine_failover(Engine *e, bool peer_is_dead, Error **errp);
/* Primary, PROTECTED: planned change of roles; waits until the guest is the other side's, which runs it as soon as it is
 * protected there. leave: this side does not stand by then, and says so: it is about to end; waits for the session's
 * end, too. */
bool engine_swap(Engine *e, bool leave, Error **errp);

/* Protection moves on to another standby, without a gap. On the backup, STANDBY: returns when that one has accepted the
 * configuration; this side ends as LISTENING (owner.migrated if it does not listen). On the primary, PROTECTED: asks the backup to
 * do so, and returns at once. engine_status()'s migration has the outcome; until then everything stays as it is. */
bool engine_move_backup(Engine *e, const char *to, Error **errp);

/* Primary, UNPROTECTED: moves the guest to another host while it runs. Returns when the destination accepted the
 * configuration (MIGRATING), or with what is missing. It ends as MIGRATED (owner.migrated), or UNPROTECTED again with
 * last_error. In postcopy the guest runs at the destination, primary there, while both are POSTCOPY or POSTCOPY_PAUSED: a
 * broken link is made anew by the source; what it holds cannot be had anywhere else. */
bool engine_migrate(Engine *e, const struct engine_migrate_params *p, Error **errp);
/* Primary, MIGRATING: the guest goes on here. force also ends the ASKING that follows a link that broke after the
 * permission to run was sent: as of engine_unprotect(). Waits until done. Also on a backup that moves: it stays. */
bool engine_migrate_cancel(Engine *e, bool force, Error **errp);

/* Any time: what the next migration begins with, unless its caller says otherwise; one that is under way goes by it at
 * once. */
bool engine_migrate_set(Engine *e, const struct engine_migrate_change *c, Error **errp);
/* Of the migration under way, else of the next. */
void engine_migrate_get(Engine *e, struct engine_migrate_params *ret_params);

/* The source of a migration, POSTCOPY: takes the link down, and keeps it so until it is told to resume. */
bool engine_migrate_pause(Engine *e, Error **errp);
/* The source, POSTCOPY_PAUSED, which tries by itself as well: makes the link anew, now. to: where the destination listens;
 * NULL or empty: where it did. Also ASKING, of a postcopy: the user says that the guest runs there, which counts once the
 * destination says so, too. Waits for the outcome of one attempt. */
bool engine_migrate_recover(Engine *e, const char *to, Error **errp);

enum engine_migration_outcome {
    ENGINE_MIGRATION_NONE,
    ENGINE_MIGRATION_SETUP, /* nothing was sent yet */
    ENGINE_MIGRATION_ACTIVE,
    ENGINE_MIGRATION_COMPLETED,
    ENGINE_MIGRATION_FAILED,
    ENGINE_MIGRATION_CANCELLED
};

/* Of the last migration from here; to here: outcome, began and ended only. */
struct engine_migration {
    enum engine_migration_outcome outcome;
    int64_t began, looked, ended;    /* clock_now(); 0: not (yet) */
    uint64_t bytes_sent, bytes_left; /* left: memory that the destination has not */
    uint64_t passes, bandwidth;      /* bytes a second */
    uint64_t dirty_rate;             /* the same: what the guest changed, in the last pass */
    bool packs;                      /* at the moment */
    unsigned throttle;               /* percent of the time that the guest stands still, to write less */
    int64_t expected_ns;             /* of downtime, were it now */
    uint64_t asked;                  /* postcopy: pages that somebody over there waited for */
    uint64_t resumed;                /* and broken links that were made anew */
    /* the downtime, and what it was spent on: to stop, to send the rest, until it was loaded, until the guest ran */
    int64_t downtime_ns, pause_ns, send_ns, load_ns, start_ns;
};

struct engine_summary {
    uint64_t p50, p99, max;
};

struct engine_status {
    enum engine_role role;
    enum engine_state state;
    bool unstarted; /* primary by a swap: the guest has not run here yet, and is nobody's to touch */
    bool elsewhere; /* primary, and the other side runs the guest: this one never will again */
    char pair[40];
    uint64_t generation, epoch;
    char peer[256], arbiter[1100];
    int64_t interval_ns;
    uint64_t rate_hz; /* checkpoints in the last second */
    struct engine_summary pause_us, dirty_pages, ack_us, output_held_us;
    uint64_t bytes_per_epoch; /* mean of the last 1024 epochs */
    uint64_t epochs, staging_full, verified;
    uint64_t pages[4];                          /* zero, delta, full, packed (of epochs: none) */
    uint64_t sync_pages_left;                   /* the first sync: pages of RAM */
    uint64_t sync_bytes_left, sync_bytes_total; /* and bytes of disks to look at */
    uint64_t sync_bytes_per_s;                  /* so far */
    struct engine_migration migration;
    int64_t took_over_ns; /* clock_now() of the first instruction here after a takeover; 0: none */
    char last_error[512];
    char report[2048]; /* of the last change of role: lines "what: value" */
};
void engine_status(Engine *e, struct engine_status *ret_status);

#endif
