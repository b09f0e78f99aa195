/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk worker: a thread that carries out requests on one image, in the order in which they were submitted. A
 * flush thus covers every write submitted before it, and what a device submitted before its reset is over
 * before what it submits after.
 *
 * The worker touches the request's own memory only, never the guest's. Done requests wait in a list until the
 * device takes them, on the loop. submit and take_done: any thread; done is called on the worker's thread and
 * must only wake.
 */
#ifndef DEVICE_DISK_WORKER_H
#define DEVICE_DISK_WORKER_H

#include "block/raw_image.h"

enum disk_operation { DISK_READ, DISK_WRITE, DISK_FLUSH };

struct disk_request {
    struct disk_request *next;
    enum disk_operation operation;
    uint64_t offset;
    size_t size;
    uint8_t *data; /* the submitter's */
    bool ok;
};

struct disk_worker;

/* image is borrowed. */
struct disk_worker *disk_worker_new(RawImage *image, void (*done)(void *opaque), void *opaque, Error **errp);
/* Finishes what was submitted; every request can be taken after it. */
void disk_worker_stop(struct disk_worker *w);
/* Stopped, and all requests taken. */
void disk_worker_free(struct disk_worker *w);
void disk_worker_submit(struct disk_worker *w, struct disk_request *r);
/* The oldest request that is done, or NULL. */
struct disk_request *disk_worker_take_done(struct disk_worker *w);

#endif
