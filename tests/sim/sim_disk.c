/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct flight {
    struct flight *next;
    struct block_request *request;
    struct medium_op *op;
    uint64_t mark; /* FLUSH: what had completed */
    int64_t due;
    int error;
};

struct sim_disk {
    Block block;
    struct sim_medium *medium;
    struct flight *flights;
    unsigned busy; /* requests that are not over */
    Task *worker;  /* from the first submitted request on */
    bool quit;
};

static struct sim_rng rng;
static int64_t fastest, slowest;
static void (*on_failure)(void);
static bool failed;

void sim_disk_init(uint64_t seed)
{
    static const int64_t most[] = {50 * NS_PER_US, 400 * NS_PER_US, 3 * NS_PER_MS};

    rng = sim_rng_make(seed, 11);
    slowest = most[sim_rng_below(&rng, 3)];
    fastest = slowest / 20;
}

void sim_disk_on_failure(void (*fn)(void))
{
    on_failure = fn;
}

bool sim_disk_has_failed(void)
{
    return failed;
}

static int64_t duration(enum block_op op)
{
    return sim_rng_range(&rng, fastest, op == BLOCK_FLUSH ? 2 * slowest : slowest);
}

void sim_disk_pause(void)
{
    sim_sleep(duration(BLOCK_WRITE) + duration(BLOCK_FLUSH));
}

static int planned_error(struct sim_disk *d, enum block_op op)
{
    struct sim_medium *m = d->medium;

    if (!m->fail_in[op] || --m->fail_in[op])
        return 0;
    sim_trace("disk %s: a %s fails as planned", d->block.id, block_op_name(op));
    failed = true;
    if (on_failure)
        on_failure();
    return EIO;
}

static struct flight begin(struct sim_disk *d, struct block_request *r, bool may_fail)
{
    return (struct flight){
        .request = r,
        .op = medium_begin(d->medium, r),
        .mark = medium_mark(d->medium),
        .due = sim_now() + duration(r->op),
        .error = may_fail ? planned_error(d, r->op) : 0,
    };
}

static int finish(struct sim_disk *d, struct flight *f)
{
    struct block_request *r = f->request;

    medium_finish(d->medium, f->op, f->error, &rng);
    if (!f->error && r->op == BLOCK_READ)
        memcpy(r->data, d->medium->view + r->offset, r->size);
    if (!f->error && r->op == BLOCK_FLUSH)
        medium_flush(d->medium, f->mark);
    return f->error;
}

/* --- submitted --- */

static struct flight **find_due(struct sim_disk *d)
{
    struct flight **due = &d->flights;

    for (struct flight **f = &d->flights; *f; f = &(*f)->next)
        if ((*f)->due < (*due)->due)
            due = f;
    return due;
}

static void complete(struct sim_disk *d, struct flight **link)
{
    struct flight *f = *link;
    struct block_request *r = f->request;
    int error = finish(d, f);

    *link = f->next;
    free(f);
    block_complete(r, error);
    d->busy--;
    sim_wake(&d->busy);
}

static void worker_main(void *arg)
{
    struct sim_disk *d = arg;

    while (!d->quit) {
        struct flight **due = find_due(d);

        if (*due && (*due)->due <= sim_now())
            complete(d, due);
        else
            sim_block(d, *due ? (*due)->due : TIME_NEVER);
    }
}

/* Whoever will get the error: until he has it, nobody knows what is there. */
static void note_doubt(struct sim_disk *d, const struct flight *f)
{
    const struct block_request *r = f->request;

    if (!f->error || !f->op)
        return;
    for (uint64_t at = r->offset; at < r->offset + r->size; at += SIM_SECTOR)
        d->medium->doubtful[at / SIM_SECTOR]++;
}

static void submit(Block *b, struct block_request *r)
{
    struct sim_disk *d = (struct sim_disk *)b;
    struct flight *f = malloc(sizeof(*f));

    if (!f)
        abort();
    *f = begin(d, r,
               r->op != BLOCK_READ); /* what failed is read back: the checkers want to know what it left */
    note_doubt(d, f);
    f->next = d->flights;
    d->flights = f;
    d->busy++;
    if (!d->worker)
        d->worker = sim_spawn(sim_host_current(), "disk", worker_main, d);
    sim_wake(d);
}

/* --- waited for --- */

static int carry_out(Block *b, struct block_request *r)
{
    struct sim_disk *d = (struct sim_disk *)b;
    struct flight f = begin(d, r, true);
    int error;

    d->busy++;
    sim_sleep(f.due - sim_now());
    error = finish(d, &f);
    d->busy--;
    sim_wake(&d->busy);
    return error;
}

static void drain(Block *b)
{
    struct sim_disk *d = (struct sim_disk *)b;

    while (d->busy)
        sim_block(&d->busy, TIME_NEVER);
}

static void close_disk(Block *b)
{
    struct sim_disk *d = (struct sim_disk *)b;

    if (d->busy)
        sim_fail("disk %s is closed with %u requests under way", b->id, d->busy);
    d->quit = true;
    sim_wake(d);
    if (d->worker)
        task_join(d->worker);
    d->medium->open = false;
    free(d);
}

static const struct block_ops ops = {
    .name = "sim",
    .submit = submit,
    .carry_out = carry_out,
    .drain = drain,
    .close = close_disk,
};

Block *sim_disk_open(const char *id, struct sim_medium *m)
{
    struct sim_disk *d = calloc(1, sizeof(*d));

    if (!d)
        abort();
    if (m->open)
        sim_fail("disk %s is opened twice", id);
    m->open = true;
    d->block = (Block){.ops = &ops, .size = m->size};
    strncpy(d->block.id, id, sizeof(d->block.id) - 1);
    d->medium = m;
    return &d->block;
}
