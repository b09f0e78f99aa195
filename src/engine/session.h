/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Session: one link and what runs over it, in one task from begin to end: primary or backup, and after a swap
 * the other one. primary.c and backup.c are the two roles, failover.c what follows when the link is gone.
 */
#ifndef ENGINE_SESSION_H
#define ENGINE_SESSION_H

#include "engine/engine_private.h"
#include "engine/link.h"
#include "engine/report.h"
#include "engine/wire.h"
#include "stream/vmstream.h"

/* How a role's part of a session ended. */
enum session_end {
    SESSION_OPEN,        /* not yet */
    SESSION_LINK_LOST,   /* or the peer speaks nonsense: nothing it says counts any more */
    SESSION_FAILED,      /* this side cannot go on; the link is fine */
    SESSION_PEER_FAILED, /* the other side cannot go on, and said so */
    SESSION_GOODBYE,     /* protection ends in order */
    SESSION_GUEST_ENDED,
    SESSION_SWAPPED,  /* the roles change, the link stays */
    SESSION_MIGRATED, /* the destination runs, and this was all */
    SESSION_QUIT,     /* engine_free() */
};

/* Where a connection arrives: one of each kind, and then the lanes by their numbers. */
#define ARRIVALS (WIRE_KINDS + LANES_MAX)

struct session {
    Engine *e;
    struct link link;
    struct {
        unsigned wanted; /* bits of enum wire_kind: connections that this side waits for, or may have to */
        uint64_t number; /* hello.session of the link that they belong to */
        Channel *ch[ARRIVALS];
    } arrived;          /* backup: left by the accepting task, under the engine's lock */
    VMStream *in, *out; /* of the main connection */
    struct wire_hello hello;
    struct engine_migrate_params migrate; /* the source of a migration (hello.kind) */
    Arbiter *arbiter;
    char peer[256];
    bool primary;           /* the role that runs now */
    bool closing;           /* under the engine's lock */
    bool peer_went_on;      /* the same; of a backup: its primary came back and says that it was granted */
    bool swapped;           /* not the first role on this link */
    bool unstarted;         /* a swap gave the guest to this side, and it has not run here yet */
    Task *freer;            /* of what the last role had, after a swap; NULL: there is none */
    VMStream *last_devices; /* of the epoch that a swap ended with: for the backup that its primary becomes */
    struct {
        bool given; /* the user's word let this side go on, and the arbiter has not answered yet */
        enum arbiter_side side;
        uint64_t generation;
    } vouch;
    struct report report;
    int64_t last_ack; /* when the last epoch was acknowledged; 0: never */
};

/* Over ch, which is taken; it is the main connection. Its arbiter is the caller's to make. */
struct session *session_new(Engine *e, Channel *ch, const char *peer, const struct wire_hello *hello,
                            Error **errp);
void session_free(struct session *s);
/* The task's function; ends with the session, marked so in the engine. */
void session_run(void *session);
/* The link is down, and its connections are closed: makes ch, which is taken, the main one of a new one. */
bool session_relink(struct session *s, Channel *ch, Error **errp);
/* Of session.arrived.ch. */
static inline unsigned session_arrival(enum wire_kind kind, unsigned lane)
{
    return kind == WIRE_KIND_CHANNEL ? WIRE_KINDS + lane - 1 : kind;
}
/* Backup: waits until then for a connection of that kind (lane: 0 unless it is a channel), and takes it. */
Channel *session_await(struct session *s, enum wire_kind kind, unsigned lane, int64_t until, Error **errp);
/* The link's state and the streams' decide: did the link fail, or something on this side? */
bool session_link_broken(struct session *s);
/* *errp is set: if the link was taken down, what took it down is the first error, and the failure of a call
 * under way its consequence. */
void session_blame_link(struct session *s, Error **errp);
/* Makes durable what this side's disks are to the pair from here on: before anything relies on it. */
bool session_mark_disks(struct session *s, enum guest_disk_role role, Error **errp);
/* The same, where nothing can be done about a failure but to tell. */
void session_try_mark_disks(struct session *s, enum guest_disk_role role);
/* Those that both hosts see; see guest_ops. */
bool session_hold_disks(struct session *s, enum guest_disk_hold how, Error **errp);
/* From here on a new primary is made to wait for this session's end, not refused as a second one. */
void session_mark_closing(struct session *s);
#define SESSION_LINGER NS_PER_S
/* Lets the peer read what was sent before the connection goes: waits for its end, for at most ns. */
void session_linger(struct session *s, int64_t ns);
/* For at most ns; TIME_NEVER: only the link's own silence ends a read. */
void session_set_limit(struct session *s, int64_t ns);

/* connect.c, of the side that connects: the main connection; greeted; then the others, and the link is watched. */
#define SESSION_CONNECT_LIMIT (10 * NS_PER_S)
struct session *session_dial(Engine *e, const char *to, const struct wire_hello *hello, int64_t limit,
                             Error **errp);
bool session_introduce(struct session *s, Error **errp);
bool session_connect_others(struct session *s, Error **errp);
/* The first two. */
struct session *session_connect(Engine *e, const char *to, const struct wire_hello *hello, Error **errp);
/* To the successor of the backup, both connections, greeted; the link is not watched yet: nobody answers before it succeeds. */
struct session *session_follow(Engine *e, const char *to, const struct wire_hello *hello, Error **errp);
/* All of them anew, after the link is down. *ret_fetched: there is nothing more to send. */
bool session_reconnect(struct session *s, bool *ret_fetched, Error **errp);

/* hello.c, both of the primary: greets on one connection / sends the configuration; errors are what the peer
 * refuses. */
bool session_greet(VMStream *in, VMStream *out, const struct wire_hello *h, Error **errp);
/* The answer of that type, which is open, must be want. */
bool session_greeted(VMStream *in, uint16_t type, enum wire_record want, Error **errp);
bool session_send_config(VMStream *in, VMStream *out, Guest *g, Error **errp);
/* Of a backup that has its guest from a swap: is it the one that a primary sends the configuration of? */
bool session_config_fits(Guest *g, const void *config, size_t size, Error **errp);
/* On both sides: a guest that can only be moved is refused. */
bool session_may_protect(const Guest *g, Error **errp);

/* promote.c: the guest that a swap gave to this side begins to run. held: its output is. */
void promote_start(struct session *s, bool held);

enum session_end primary_run(struct session *s);
enum session_end backup_run(struct session *s);

/* failover.c */
enum verdict {
    VERDICT_GRANTED,
    VERDICT_VOUCHED, /* the arbiter said nothing, and the user that the other side does not run */
    VERDICT_DENIED,
    VERDICT_THERE, /* the arbiter said nothing, and the user that the other side runs (postcopy) */
    VERDICT_QUIT
};
/* Takes the link down and asks the arbiter until it answers; writes the report's lines. permitted: see
 * arbiter.h. */
enum verdict session_ask(struct session *s, enum arbiter_side side, bool permitted);
/* After VERDICT_VOUCHED, while the guest runs here, UNPROTECTED: asks on until the arbiter answers, so that a
 * side that still asks is denied. If it was the other side that was granted, this one is FENCED at once. */
void session_ask_on(struct session *s);
/* This side was granted to go on alone from that generation of the pair: HELLO says so from now on. */
void session_remember_grant(struct session *s, uint64_t generation);
/* For a backup that was permitted to run: asks for some seconds. */
bool session_claim_permitted(struct session *s, Error **errp);

#endif
