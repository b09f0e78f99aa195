/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of Raw: raw.c knows which system calls a request is made of, an engine (raw_uring.c,
 * raw_threads.c) makes them.
 *
 *     raw_next_step(raw, r, &step);  result = <the call>;  if (raw_step_done(raw, r, result, &error)) ...
 * over
 */
#ifndef BLOCK_RAW_PRIVATE_H
#define BLOCK_RAW_PRIVATE_H

#include <time.h>

#include "block/raw.h"

struct raw;

struct raw_engine {
    const char *name;
    bool (*open)(struct raw *raw, Error **errp);
    void (*submit)(struct raw *raw, struct block_request *r);
    void (*drain)(struct raw *raw);
    void (*close)(struct raw *raw);
};
extern const struct raw_engine raw_uring, raw_threads;

/* How a range of zeroes is made: the first of them that the file can do. */
enum raw_zero { RAW_ZERO_PUNCH, RAW_ZERO_RANGE, RAW_ZERO_WRITE, RAW_ZERO_WAYS };

struct raw {
    Block block;
    int fd;
    char *path;
    Loop *loop;
    const struct raw_engine *engine;
    void *engine_state;
    bool cannot[RAW_ZERO_WAYS]; /* found out; any thread */
    enum block_raw_hold hold;   /* changes while nothing is under way */
    int owed;                   /* an errno that the next flush gets; any thread; 0: none */
    int unsynced;               /* the errno of the last flush; any thread; 0: it went well */
    struct timespec offered;    /* a file that is offered: when it was written last */
};

struct raw_step {
    enum raw_call { RAW_READ, RAW_WRITE, RAW_FALLOCATE, RAW_SYNC } call;
    void *data;
    uint64_t offset, size;
    int mode; /* FALLOCATE */
};

void raw_next_step(struct raw *raw, const struct block_request *r, struct raw_step *ret_step);
/* result: what the call returned, or a negative errno. true: r is over, with *ret_error. */
bool raw_step_done(struct raw *raw, struct block_request *r, int64_t result, int *ret_error);

/* All steps of r, on this thread: 0 or an errno. */
int raw_carry_out(struct raw *raw, struct block_request *r);

/* A list of requests, first in, first out. */
struct raw_list {
    struct block_request *first, **end;
};
static inline void raw_list_init(struct raw_list *l)
{
    l->first = NULL;
    l->end = &l->first;
}
static inline void raw_list_put(struct raw_list *l, struct block_request *r)
{
    r->next = NULL;
    *l->end = r;
    l->end = &r->next;
}
static inline struct block_request *raw_list_take(struct raw_list *l)
{
    struct block_request *r = l->first;

    if (!r)
        return NULL;
    l->first = r->next;
    if (!l->first)
        l->end = &l->first;
    return r;
}

#endif
