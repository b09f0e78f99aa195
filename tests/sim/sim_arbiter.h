/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated arbiter: one record a generation, first come, for ever; the way there and the way back take
 * time, and either may be cut: then the claimant learns nothing, although the record may have been made. Its
 * spec is "sim".
 */
#ifndef SIM_ARBITER_H
#define SIM_ARBITER_H

#include "engine/arbiter.h"
#include "sim_runtime.h"

/* Becomes the factory of arbiters. */
void sim_arbiter_init(uint64_t seed);
void sim_arbiter_set_reachable(unsigned machine, bool reachable);
/* Whose the generation is: false, nobody's yet. */
bool sim_arbiter_winner(const char *pair, uint64_t generation, enum arbiter_side *ret_side);

#endif
