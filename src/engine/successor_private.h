/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a successor, for its two files: successor_sync.c brings it up to date, successor.c is everything else.
 */
#ifndef ENGINE_SUCCESSOR_PRIVATE_H
#define ENGINE_SUCCESSOR_PRIVATE_H

#include "engine/backup.h"
#include "engine/successor.h"
#include "guest/page_codec.h"

#define SUCCESSOR_BATCH_PAGES  256
#define SUCCESSOR_ANSWER_LIMIT (5 * NS_PER_S) /* the primary waits for an ACK meanwhile */

struct successor {
    Engine *e;
    Guest *guest;
    struct wire_hello hello;
    char to[256];
    bool asked; /* by the primary */
    Task *task;

    /* under the engine's lock */
    struct session *s; /* NULL: not reached yet */
    bool reached;      /* all of the link: link_down() ends whatever waits on it */
    bool cancelled;
    bool ended; /* the task: all but the last round is there, or failure says why not */
    Error *failure;

    struct task_mutex lock; /* RAM, and: */
    uint64_t *changed;      /* pages to be sent, or sent again */

    /* the task's, and when it has ended the session's */
    uint64_t *taken; /* pages of this round */
    PageEncoder *encoder;
    VMStream *batch;
    bool copies; /* the replicating components */
    uint32_t crc;
    int64_t until;     /* of the last round; TIME_NEVER: a round before that */
    struct link *home; /* of the last round: to the primary */

    /* the session's */
    bool holds;  /* all of the last epoch, and is told of the next */
    bool passed; /* a whole one since */
    bool told;   /* the primary */
};

/* The next record must be of type want, and is open then. */
bool successor_expect(struct successor *su, enum wire_record want, uint64_t *id, Error **errp);
/* Takes err; the first counts. */
void successor_fail(struct successor *su, Error *err);

/* The task's function: connects, and sends all but what is left for the last round. */
void successor_run(void *successor);
/* How long the last one may take: the primary's output waits. */
int64_t successor_last_round(const struct successor *su);
/* The last round, when the task has ended: what the components and RAM still have of the last epoch. Until then, and as long as the
 * primary's link is up. */
bool successor_send_last(struct successor *su, struct link *home, int64_t until, Error **errp);

#endif
