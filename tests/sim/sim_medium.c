/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_medium.h"

#include <stdlib.h>
#include <string.h>

struct medium_op {
    struct medium_op *next;
    uint64_t offset, size;
    uint64_t number; /* when it completed; 0: under way */
    uint8_t data[];  /* of a zeroing: zeroes */
};

struct sim_medium *medium_new(uint64_t size)
{
    struct sim_medium *m = calloc(1, sizeof(*m));

    if (!m)
        abort();
    m->size = size;
    m->view = calloc(1, size);
    m->durable = calloc(1, size);
    m->doubtful = calloc(1, size / SIM_SECTOR + 1);
    m->end = &m->first;
    if (!m->view || !m->durable || !m->doubtful)
        abort();
    return m;
}

static void append(struct sim_medium *m, struct medium_op *op)
{
    op->next = NULL;
    *m->end = op;
    m->end = &op->next;
}

struct medium_op *medium_begin(struct sim_medium *m, const struct block_request *r)
{
    struct medium_op *op;

    if (r->op != BLOCK_WRITE && r->op != BLOCK_ZERO)
        return NULL;
    op = calloc(1, sizeof(*op) + r->size);
    if (!op)
        abort();
    op->offset = r->offset;
    op->size = r->size;
    if (r->op == BLOCK_WRITE)
        memcpy(op->data, r->data, r->size);
    append(m, op);
    return op;
}

/* Goes to the end: those that are over are in the order in which they were. */
static void complete(struct sim_medium *m, struct medium_op *op)
{
    struct medium_op **link = &m->first;

    while (*link != op)
        link = &(*link)->next;
    *link = op->next;
    if (!op->next)
        m->end = link;
    append(m, op);
    memcpy(m->view + op->offset, op->data, op->size);
    op->number = ++m->completed;
}

void medium_finish(struct sim_medium *m, struct medium_op *op, int error, struct sim_rng *rng)
{
    if (!op)
        return;
    if (error)
        op->size = sim_rng_below(rng, op->size / SIM_SECTOR + 1) * SIM_SECTOR;
    complete(m, op);
}

uint64_t medium_mark(const struct sim_medium *m)
{
    return m->completed;
}

/* Takes those out that are over, in order; the others stay in theirs. */
void medium_flush(struct sim_medium *m, uint64_t mark)
{
    struct medium_op **link = &m->first, *op;

    while ((op = *link)) {
        if (!op->number || op->number > mark) {
            link = &op->next;
            continue;
        }
        *link = op->next;
        memcpy(m->durable + op->offset, op->data, op->size);
        free(op);
    }
    m->end = link;
}

/* Wholly, not at all, or some of its sectors. */
static void happen_perhaps(const struct medium_op *op, uint8_t *content, struct sim_rng *rng)
{
    uint64_t luck = sim_rng_below(rng, 4);

    for (uint64_t at = 0; at < op->size; at += SIM_SECTOR) {
        uint64_t n = op->size - at < SIM_SECTOR ? op->size - at : SIM_SECTOR;

        if (luck == 0 || (luck > 1 && sim_rng_one_in(rng, 2)))
            memcpy(content + op->offset + at, op->data + at, n);
    }
}

static void forget(struct sim_medium *m)
{
    memset(m->doubtful, 0, m->size / SIM_SECTOR + 1);
    memset(m->fail_in, 0, sizeof(m->fail_in));
    m->open = false;
}

/* The plates first get what the cache wrote back by itself, in the order in which it had it. */
void medium_power_cut(struct sim_medium *m, struct sim_rng *rng)
{
    for (struct medium_op *op = m->first, *next; op; op = next) {
        next = op->next;
        happen_perhaps(op, m->durable, rng);
        free(op);
    }
    m->first = NULL;
    m->end = &m->first;
    memcpy(m->view, m->durable, m->size);
    forget(m);
}

void medium_process_death(struct sim_medium *m, struct sim_rng *rng)
{
    for (struct medium_op *op = m->first; op; op = op->next) {
        if (op->number)
            continue;
        happen_perhaps(op, m->view, rng);
        memcpy(op->data, m->view + op->offset, op->size);
        op->number = ++m->completed;
    }
    forget(m);
}

bool medium_is_durable(const struct sim_medium *m)
{
    return !memcmp(m->view, m->durable, m->size);
}
