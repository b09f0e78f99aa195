/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Medium: what lies under a simulated disk, and survives the process that uses it.
 *
 * It has two contents: what a read returns (the host's cache and all), and what is on the plates. A write
 * changes the first when it completes and the second with the next flush. When the power goes, each write that
 * was not flushed has happened wholly, not at all, or in some of its sectors; when a process is killed, only
 * those of its requests that were under way are in doubt.
 *
 *     struct medium_op *op = medium_begin(m, BLOCK_WRITE, 4096, 512, data);   // under way
 *     medium_finish(m, op, 0);                                                // it has completed
 *     medium_flush(m, medium_mark(m));
 */
#ifndef SIM_MEDIUM_H
#define SIM_MEDIUM_H

#include "block/block.h"
#include "sim_random.h"

#define SIM_SECTOR 512u

struct medium_op;

struct sim_medium {
    uint64_t size;
    uint8_t *view;    /* what a read returns */
    uint8_t *durable; /* what a power cut leaves at least */
    struct medium_op *first, **end;
    uint64_t completed; /* number of the last write */
    uint8_t *doubtful;  /* per sector: writes of a guest that will fail, or have, and it does not know yet */
    unsigned fail_in[BLOCK_FLUSH + 1]; /* the nth next one fails; 0: none */
    bool open;
};

struct sim_medium *medium_new(uint64_t size);
/* A write or zero is under way; its data is copied. Any other operation: NULL. */
struct medium_op *medium_begin(struct sim_medium *m, const struct block_request *r);
/* It completes. error: it failed, and has happened in its first sectors only, or not at all. */
void medium_finish(struct sim_medium *m, struct medium_op *op, int error, struct sim_rng *rng);
/* What has completed up to now. */
uint64_t medium_mark(const struct sim_medium *m);
void medium_flush(struct sim_medium *m, uint64_t mark);
void medium_power_cut(struct sim_medium *m, struct sim_rng *rng);
void medium_process_death(struct sim_medium *m, struct sim_rng *rng);
/* What a read returns is on the plates too. */
bool medium_is_durable(const struct sim_medium *m);

#endif
