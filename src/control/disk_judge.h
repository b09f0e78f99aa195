/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk judge: the disk gate's decision about one disk (the table of block/disk_record.h), wherever its image, its
 * record and its journal lie. disk_gate.c gives it files, the simulator its own stores.
 *
 *     struct disk_court c = {.standby = false};
 *
 *     disk_judge(&c, &disk);               // for each disk
 *     if (c.reasons[0]) ...                // every reason, one a line
 *     disk_settle(&disk, &err);            // then, of a standby: each disk becomes a whole epoch by itself
 */
#ifndef CONTROL_DISK_JUDGE_H
#define CONTROL_DISK_JUDGE_H

#include "block/block.h"
#include "block/disk_record.h"

struct judged_disk {
    const char *id, *path; /* for messages */
    Block *image;          /* open, and so locked: nobody else has this disk while it is judged */
    struct disk_record record;
    /* Makes the record durable. */
    bool (*store)(struct judged_disk *d, Error **errp);
    /* Brings the image to the last whole epoch of the journal that the record names; it may name none. */
    bool (*replay)(struct judged_disk *d, Error **errp);
};

struct disk_court {
    bool standby;       /* the disks are to be overwritten, as a standby's; else run */
    bool force;         /* the user says that nothing newer runs anywhere */
    char reasons[4096]; /* against it, one a line; empty: none */
};

/* Claims at the arbiter for a former primary's. What it learns it leaves in the record. */
void disk_judge(struct disk_court *c, struct judged_disk *d);
/* Of a standby, whose guest runs on this very image elsewhere (shared=on): that is not somebody's copy. Nothing is asked or
 * written. */
void disk_judge_shared(struct disk_court *c, const struct judged_disk *d);
/* A standby's disk gets what its journal holds (a primary that never comes leaves a whole epoch), and then names
 * none. */
bool disk_settle(struct judged_disk *d, Error **errp);
/* Takes err: one reason more. */
void disk_court_object(struct disk_court *c, Error *err);

#endif
