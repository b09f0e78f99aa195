/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Moves: of three machines one runs the guest, one is its backup, and that moves to the third, again and again
 * (engine/successor.h), as its own user or the primary's wants it; and just then something fails, at a moment that the seed
 * chooses among those of the move.
 *
 * What is promised then: whatever fails by itself, somebody runs the guest. Only where the primary dies, and
 * something comes between the backup that has let go and its successor, may nobody be left; that, and nothing else, ends the
 * cluster's promise here.
 */
#ifndef SIM_MOVES_H
#define SIM_MOVES_H

#include "sim_node.h"

/* faulty: something may fail on the way; only_backups: nothing that the primary would notice on its own machine. */
void moves_init(SimHost *world, uint64_t seed, bool only_backups, bool faulty);
/* A move, if there is a backup and it is time for one. */
bool moves_begin(void);
/* Everything has healed: protects the guest, moves its backup, which fails the run if it cannot be done, and returns the primary; NULL:
 * the guest has ended. */
struct sim_node *moves_prove(void);
/* How many backups have moved. */
unsigned moves_done(void);

#endif
