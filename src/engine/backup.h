/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Backup: the side that holds the last acknowledged epoch. backup.c takes the primary's records one by one,
 * intake.c is an epoch from its first page to its application, promote.c the taking over; incoming.c is
 * the destination of a migration, and fetch.c what it still lacks when the guest runs here.
 */
#ifndef ENGINE_BACKUP_H
#define ENGINE_BACKUP_H

#include "engine/session.h"
#include "engine/successor.h"
#include "guest/missing.h"

/* Postcopy. */
struct fetch {
    MissingPages *missing; /* of the guest's RAM; NULL: it is not one, or all is here */
    VMStream *in;          /* of the urgent connection */
    Task *asker, *taker, *starter;
    struct task_mutex out_lock;
    VMStream *out; /* the same; under out_lock: NULL while the link is broken */
    /* under the engine's lock */
    bool withdrawn; /* it will not be claimed */
    bool claims;    /* it is being claimed, or was */
    bool runs;      /* the guest runs here */
    bool told;      /* and everybody knows */
    bool over;      /* the takeover is, well or not */
    bool closing;   /* the urgent connection ends, in order */
    Error *failure; /* of it */
};

struct backup {
    struct session *s;
    Engine *e;

    /* the epoch that is coming in: nothing of it is applied before all of it is here and checked */
    VMStream *pages, *devices;
    VMStream *message, *reply; /* of a feed; the one at hand */
    uint32_t crc;

    uint64_t epoch;         /* the last accepted one; its pages are in RAM. 0 after a swap: what that left */
    VMStream *last_devices; /* and the rest of its state is here */
    uint64_t hash;          /* after a swap: of RAM, as that left it */
    bool last_was_swap;
    uint8_t last_request; /* enum guest_request */

    bool loading, loaded; /* of a migration: its state is coming; it may run */
    Lanes *lanes;         /* the same; NULL: all of it comes over the main connection */
    struct fetch fetch;
    struct successor *successor; /* this backup moves; NULL: it does not */
    char not_moved[512];         /* what the primary, which asked for it, is to hear */
    bool moved;
    bool unsettled; /* a takeover failed to put acknowledged epochs in place */
    bool replicating;
    bool standby; /* the first epoch was accepted, or a swap made it one: this side may take over */
    enum session_end end;
};

/* One record after the other, until the session or the link ends. */
void backup_take_records(struct backup *b, Error **errp);
/* The link's other connections. */
bool backup_take_connections(struct backup *b, Error **errp);
/* It may take over from here on. */
void backup_become_standby(struct backup *b, const char *why);

/* Handlers of records return false with errp set. */
bool intake_open(struct backup *b, Error **errp);
void intake_close(struct backup *b);
bool intake_sync_pages(struct backup *b, Error **errp);
bool intake_pages(struct backup *b, uint64_t epoch, Error **errp);
bool intake_device(struct backup *b, Error **errp);
bool intake_feed(struct backup *b, uint64_t epoch, Error **errp);
bool intake_end(struct backup *b, uint64_t epoch, Error **errp);

/* succeed.c: fed by another backup, which may claim; this side may not. */
static inline bool backup_is_successor(const struct backup *b)
{
    return b->s->hello.kind == WIRE_KIND_SUCCESSOR;
}
/* From here on it may, and the primary's own connections, which have come, are the link. */
bool succeed(struct backup *b, uint64_t epoch, Error **errp);
/* It holds what its predecessor does: the primary may connect. */
void succeed_await(struct backup *b);

/* incoming.c */
static inline bool backup_is_destination(const struct backup *b)
{
    return b->s->hello.kind == WIRE_KIND_MIGRATE;
}
/* One section of the machine's state. */
bool incoming_section(struct backup *b, uint16_t type, uint64_t id, Error **errp);
/* That was all of it. */
bool incoming_state_end(struct backup *b, Error **errp);
/* Always, in the end. */
void incoming_close(struct backup *b);
/* Nothing more comes over them, and they are no part of the load any more. Also where there are none. */
void incoming_free_lanes(struct backup *b);

/* fetch.c */
/* Memory is missing from here on, and whoever touches it is heard. */
bool fetch_start(struct backup *b, Error **errp);
/* The permission to run has come. Returns when it runs here, or will not, or the link is broken. */
bool fetch_run(struct backup *b, Error **errp);
/* It has come: what follows are pages. */
static inline bool fetch_is_permitted(const struct backup *b)
{
    return b->fetch.starter;
}
/* All that was sent by the main connection has come: waits for the urgent one's. */
void fetch_await_pages(struct backup *b);
/* The sections ended. */
bool fetch_finish(struct backup *b, Error **errp);
/* Records ended early: makes the link anew, again and again, if the guest was claimed. *errp: why they ended. */
void fetch_go_on(struct backup *b, Error **errp);
/* Always, in the end. A guest that runs and lacks memory stands still then. */
void fetch_stop(struct backup *b);
/* promote.c's, before it claims: false if the link broke before. */
bool backup_begin_claim(struct backup *b, Error **errp);

/* compare.c: what was loaded is what was sent, section by section; the error names the first that differs. */
bool compare_devices(Guest *g, const VMStream *sent, Error **errp);

/* promote.c: the guest begins to run here from the last accepted epoch. permitted: in a swap, where it is only this
 * side's, and runs later (promote_start()). On failure the guest has not run. It may also have ended, as its state
 * says: b->end tells. */
bool backup_promote(struct backup *b, bool permitted, Error **errp);
/* No longer anybody's backup: replication off, the guest forgotten, LISTENING. superseded: the other side
 * goes on, so a disk that was a whole epoch is an old one from here. */
void backup_drop(struct backup *b, bool superseded, const char *why);

#endif
