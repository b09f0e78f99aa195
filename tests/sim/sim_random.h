/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulator's chance: small generators (splitmix64), all grown from the one seed. Each part has its own,
 * so that one part's draws do not shift another's.
 */
#ifndef SIM_RANDOM_H
#define SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_rng {
    uint64_t state;
};

/* The generator number `stream` of a seed. */
struct sim_rng sim_rng_make(uint64_t seed, uint64_t stream);
uint64_t sim_rng_next(struct sim_rng *r);
/* 0 to n-1; n > 0. */
uint64_t sim_rng_below(struct sim_rng *r, uint64_t n);
/* lo to hi, both included. */
int64_t sim_rng_range(struct sim_rng *r, int64_t lo, int64_t hi);
/* True once in n times. */
bool sim_rng_one_in(struct sim_rng *r, uint64_t n);
/* A good mix of 64 bits. */
uint64_t sim_mix(uint64_t x);

#endif
