/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the "ram" component, for its files: ram_state.c has the list, saving and loading, ram_postcopy.c the pages
 * that follow when the guest runs elsewhere already.
 */
#ifndef GUEST_RAM_STATE_PRIVATE_H
#define GUEST_RAM_STATE_PRIVATE_H

#include "base/task.h"
#include "guest/page_codec.h"
#include "guest/ram_state.h"
#include "stream/lanes.h"
#include <perdure/savevm.h>

/* What a section's body is; all but RAM_BLOCKS to the end of the record. */
enum ram_body {
    RAM_BLOCKS = 1,
    RAM_PAGES = 2,
    RAM_MISSING = 3,
    RAM_SHARED = 4, /* pages, and each lane has more of them */
};

enum ram_phase {
    RAM_PRECOPY, /* passes copy */
    RAM_TELLING, /* passes tell what changed, and will come later */
    RAM_PUSHING, /* passes put that; the guest does not run here any more */
};

struct ram_state {
    Guest *guest;
    bool live;
    Lanes *lanes; /* of the save or load under way; NULL: all goes over the main stream */
    /* of the save under way */
    PageEncoder *encoder;
    PageEncoder *lane_encoders[LANES_MAX];
    uint64_t
        *pages; /* to be written: those that had changed when the pass began; stopped: those that exist */
    uint64_t next, left;  /* the next to look at; how many are still to be written */
    uint64_t part;        /* at most so many of them in one call */
    uint64_t quota;       /* of the call under way; with these three, while lanes share it, under the lock */
    bool tracking;        /* live */
    enum ram_phase phase; /* live */
    uint64_t *fresh;      /* TELLING: of one pass */
    bool packing;
    PageEncoder *urgent; /* of who answers questions beside the passes */
    struct task_mutex
        lock; /* of what is said so, and of the two below: somebody may answer questions beside the passes */
    uint64_t *later;  /* TELLING, PUSHING: what the destination lacks */
    uint64_t push_at; /* PUSHING: where to go on: behind the last page that was asked for */
    /* of the load under way */
    bool blocks_seen;
    MissingPages *missing; /* NULL: none ever was */
    struct ram_state *chain;
};

/* One that is registered. */
struct ram_state *ram_state_of(Guest *g);
/* A handler's failure goes to the stream, whose first error is reported. Takes err. */
int ram_state_failed(VMStream *f, Error *err);

/* ram_postcopy.c; of a save in TELLING or PUSHING. */
int ram_postcopy_iterate(struct ram_state *r, VMStream *f);
uint64_t ram_postcopy_left(struct ram_state *r);
int ram_postcopy_complete(VMStream *f, void *opaque);
int ram_postcopy_resume(struct MigrationState *s, void *opaque);
void ram_postcopy_cleanup(struct ram_state *r);
/* Of a load. */
int ram_postcopy_load_missing(struct ram_state *r, VMStream *f);

#endif
