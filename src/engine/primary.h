/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Primary: the side whose execution counts. primary.c holds the order of things, sync.c the rounds before the
 * first epoch, epoch.c the cycle, swap.c the handing over, follow.c a backup that moves; precopy.c is a migration instead of all that, and postcopy.c
 * one whose guest runs elsewhere before all of its memory is there.
 */
#ifndef ENGINE_PRIMARY_H
#define ENGINE_PRIMARY_H

#include "engine/converge.h"
#include "engine/packing.h"
#include "engine/pace.h"
#include "engine/session.h"
#include "guest/page_codec.h"

#define PRIMARY_SWAP_LIMIT   (10 * NS_PER_S)
#define PRIMARY_ANSWER_LIMIT (60 * NS_PER_S) /* the backup's heart beats, but no answer comes */

struct primary {
    struct session *s;
    Engine *e;
    Guest *g;

    Staging *staging;
    size_t capacity; /* of staging, in pages */
    PageEncoder *encoder;
    VMStream *batch;   /* pages on their way */
    VMStream *devices; /* an epoch's, saved during the pause */

    uint64_t epoch;             /* the last one begun */
    uint32_t crc;               /* of what was sent for the running one, epoch + 1 */
    int64_t send_until;         /* the guest stands still: when all must be sent; else 0 */
    int64_t last_start;         /* of the running epoch: when the guest was resumed */
    struct converge converge;   /* of a migration */
    struct packing packing;     /* the same */
    struct pace pace;           /* the same */
    uint64_t paced;             /* bytes sent that pace has seen */
    Lanes *lanes;               /* of a migration's passes; NULL: the main connection alone */
    uint64_t lane_bytes;        /* of those that are done */
    unsigned throttled;         /* percent; of a migration that could not keep up */
    enum guest_request request; /* carried by the last acknowledged epoch */

    /* how far things have got: what must be undone */
    bool paused, tracking, replicating, gated, saving;
    bool postcopy;      /* the destination was told that it will lack something */
    bool armed;         /* the first END may have been sent: the backup may hold an epoch, and claim */
    bool permitted;     /* the permission to run was sent */
    bool peer_failed;   /* it said so */
    bool handover;      /* the backup's user asks for a swap */
    bool asked_to_move; /* the backup, by this side's user */
    char moved_to[256]; /* where the backup's successor is; empty: it has none, or was followed */
    struct {
        VMStream *in, *out; /* of the urgent connection */
        Task *task;
        bool over;        /* nothing will be asked for any more; under the engine's lock */
    } answer;             /* postcopy */
    uint64_t sent_before; /* bytes, over links that broke, and in answers */
    enum session_end end;
};

/* For an answer that the guest stands still for, after a swap too: the heart beats, and a disk may have something to do. */
static inline int64_t primary_still_limit(const struct primary *p)
{
    int64_t timeout = p->s->hello.timeout_ns;

    return p->s->swapped && timeout < PRIMARY_SWAP_LIMIT ? PRIMARY_SWAP_LIMIT : timeout;
}

/* Steps return false with errp set, or with p->end. */
bool primary_pause(struct primary *p, Error **errp);
/* Not a guest that has not run here yet: see primary_start(). */
void primary_resume(struct primary *p);
/* Next record must be of type want, and is open then. FAIL from the backup becomes the error. */
bool primary_expect(struct primary *p, enum wire_record want, uint64_t *id, Error **errp);
/* The same, of one that is open. */
bool primary_take(struct primary *p, uint16_t type, enum wire_record want, Error **errp);
/* While nothing is waited for: the peer's FAIL, if it has come, becomes the error. */
bool primary_hear(struct primary *p, Error **errp);
/* What the API wants; false: the session ends (p->end). */
bool primary_may_go_on(struct primary *p);
/* Before every send: a backup whose heart beats but that takes nothing must not hold the guest for ever. */
void primary_limit_send(struct primary *p);
/* Sends the frames in p->batch, at once or with what follows; *crc goes on over them. */
bool primary_ship(struct primary *p, uint32_t *crc, Error **errp);
/* Encodes what is in staging into records of type and sends them; *crc goes on over their frames. */
bool primary_send_staging(struct primary *p, enum wire_record type, uint64_t id, uint32_t *crc, Error **errp);
/* The guest's request while no epoch need carry it. */
bool primary_request_before_epochs(struct primary *p, Error **errp);

/* feed.c: what the replicating components have for the peer. */
/* From here on they may tell that something waits. */
void primary_feed_begin(struct primary *p);
void primary_feed_end(struct primary *p);
/* Sends the messages of an epoch up to this one that wait: all of one that is over, a share of the running
 * one's. *crc goes on over their frames. */
bool primary_feed(struct primary *p, uint64_t epoch, uint32_t *crc, Error **errp);
/* Brings the components on both sides to the same content, while the guest runs. */
bool primary_feed_sync(struct primary *p, Error **errp);
/* They have it already. */
bool primary_feed_equal(struct primary *p, Error **errp);

/* Both machines stand still for a moment: the replicating components start, the backup's first. */
bool primary_start_replication(struct primary *p, Error **errp);

/* sync.c */
bool primary_sync(struct primary *p, Error **errp);

/* follow.c: the next record must be an ack, and is open then; what comes before it may say that the backup moves. */
bool follow_expect_ack(struct primary *p, uint64_t *epoch, Error **errp);
/* Between two epochs: asks the backup to move, or follows it. */
bool follow_step(struct primary *p, Error **errp);
/* Of the session: what is still being waited for will not come. */
void follow_end(struct primary *p);

/* epoch.c */
enum epoch_cause { EPOCH_DUE, EPOCH_STOP, EPOCH_SWAP, EPOCH_FAILED };
/* Waits for the end of the running epoch, and sends what its feeds give meanwhile. */
enum epoch_cause epoch_wait(struct primary *p, Error **errp);
/* One epoch, from pause to release. flags: WIRE_END_FIRST, WIRE_END_SWAP (the guest stays paused). */
bool epoch_run(struct primary *p, uint8_t flags, Error **errp);

/* swap.c: the last epoch, the permission, the answer; p->end says how it went. OPEN: nothing was changed, and protection goes on. */
bool primary_swap(struct primary *p, Error **errp);
/* Sends the permission to run, and waits for the other side's word that it does. */
bool primary_permit(struct primary *p, Error **errp);
/* The machine no longer counts here: nothing of it is seen any more. It is left paused. */
void primary_step_down(struct primary *p);
/* The same when the other side runs: its disks are the newest, or its own now. */
void primary_give_away(struct primary *p);

/* precopy.c: all of it; p->end says how it went. */
void primary_migrate(struct primary *p, Error **errp);
/* Bytes sent, by every connection that memory goes over. */
uint64_t precopy_bytes(const struct primary *p);
/* The lanes are done. Also where there are none. */
void precopy_free_lanes(struct primary *p);
/* Of a migration: takes over what the user changed, and waits until his cap lets more go. */
bool primary_pace(struct primary *p, Error **errp);
/* What the user, the guest, the disks and the link say before each part. */
bool precopy_may_send(struct primary *p, Error **errp);
/* Of each part, before it and after: how fast does the link take it? */
struct part {
    uint64_t bytes;
    int64_t began, waited;
};
struct part precopy_begin_part(struct primary *p);
void precopy_end_part(struct primary *p, const struct part *part);
/* Until the destination has taken in all that was sent. */
bool precopy_await_noted(struct primary *p, Error **errp);
/* It was moved, and this side has served its time. */
void precopy_end(struct primary *p);

/* postcopy.c, in this order: instead of further passes; in the pause; when the guest runs there, until it has all (p->end:
 * MIGRATED, or QUIT). */
bool postcopy_tell(struct primary *p, Error **errp);
bool postcopy_tell_last(struct primary *p, Error **errp);
void postcopy_serve(struct primary *p);
/* The same, from ASKING: the arbiter says that it runs there. */
void postcopy_serve_denied(struct primary *p);
/* From ASKING, before that is certain: one attempt to make the link anew; and then. */
bool postcopy_reach(struct primary *p, bool *ret_fetched);
void postcopy_serve_reached(struct primary *p, bool fetched);
/* Before the guest goes on here, and in the end. */
void postcopy_stop_answering(struct primary *p);

#endif
