/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory block: the end of a chain whose bytes are an array. It completes requests at once, or, while it is
 * held, when the test lets them go: in any order, with any error.
 *
 *     struct memory_block *m = memory_block_new("root", 1 << 20);
 *     m->held = true;
 *     block_submit(&m->block, r);                  // m->count == 1
 *     memory_block_finish(m, 0, 0);                // the first one that waits, carried out, no error
 *     memory_block_finish(m, 0, EIO);              // not carried out
 *
 * m->errors[op] is what requests of that operation end with while nothing is held; 0 at
 * first. m->seen counts what was carried out, by operation. Not for several threads at once.
 */
#ifndef TESTS_MEMORY_BLOCK_H
#define TESTS_MEMORY_BLOCK_H

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "block/block.h"

#define MEMORY_BLOCK_HELD_MAX 64

struct memory_block {
    Block block;
    uint8_t *bytes; /* block.size */
    bool held;
    unsigned count; /* waiting */
    struct block_request *waiting[MEMORY_BLOCK_HELD_MAX];
    unsigned seen[BLOCK_FLUSH + 1];
    int errors[BLOCK_FLUSH + 1];
};

static inline void memory_block_carry_out(struct memory_block *m, struct block_request *r)
{
    m->seen[r->op]++;
    if (r->op == BLOCK_READ)
        memcpy(r->data, m->bytes + r->offset, r->size);
    else if (r->op == BLOCK_WRITE)
        memcpy(m->bytes + r->offset, r->data, r->size);
    else if (r->op == BLOCK_ZERO)
        memset(m->bytes + r->offset, 0, r->size);
}

/* The i-th of those that wait. */
static inline void memory_block_finish(struct memory_block *m, unsigned i, int error)
{
    struct block_request *r = m->waiting[i];

    assert(i < m->count);
    m->count--;
    memmove(&m->waiting[i], &m->waiting[i + 1], (m->count - i) * sizeof(m->waiting[0]));
    if (!error)
        memory_block_carry_out(m, r);
    block_complete(r, error);
}

static inline void memory_block_submit(Block *b, struct block_request *r)
{
    struct memory_block *m = (struct memory_block *)b;

    assert(m->count < MEMORY_BLOCK_HELD_MAX);
    m->waiting[m->count++] = r;
    if (!m->held)
        memory_block_finish(m, m->count - 1, m->errors[r->op]);
}

static inline void memory_block_drain(Block *b)
{
    struct memory_block *m = (struct memory_block *)b;

    while (m->count)
        memory_block_finish(m, 0, 0);
}

static inline void memory_block_close(Block *b)
{
    struct memory_block *m = (struct memory_block *)b;

    assert(!m->count);
    free(m->bytes);
    free(m);
}

static const struct block_ops memory_block_ops = {.name = "memory",
                                                  .submit = memory_block_submit,
                                                  .drain = memory_block_drain,
                                                  .close = memory_block_close};

static inline struct memory_block *memory_block_new(const char *id, uint64_t size)
{
    struct memory_block *m = calloc(1, sizeof(*m));

    assert(m);
    m->block = (Block){.ops = &memory_block_ops, .size = size};
    strncpy(m->block.id, id, sizeof(m->block.id) - 1);
    m->bytes = calloc(1, size);
    assert(m->bytes);
    return m;
}

#endif
