/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scenario: what happens to a small cluster, drawn from the seed: commands, crashes, freezes, cuts, an
 * arbiter out of reach, guests that are reset or switched off. At the end everything heals, and what must
 * then be true is checked.
 */
#ifndef SIM_SCENARIO_H
#define SIM_SCENARIO_H

#include "sim_runtime.h"

/* Spawns the scenario as a fiber of the world; it ends with sim_stop(). */
void scenario_start(SimHost *world, uint64_t seed);
/* The seed is one of those in which the backup moves (sim_moves.h): one in five. */
bool scenario_moves(uint64_t seed);
/* One line about how the run went, for --trace. */
void scenario_summary(char *buf, size_t size);

#endif
