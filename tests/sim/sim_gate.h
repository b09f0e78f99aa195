/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Gate: may a process that is started again have the disks of its machine? The product's decision
 * (control/disk_judge.h) on a simulated store, and a user who forces it only where he knows better.
 */
#ifndef SIM_GATE_H
#define SIM_GATE_H

#include "sim_store.h"

/* On the running fiber's host; may wait for an arbiter. What was a standby's is brought to a whole epoch, and
 * checked to be one. */
bool sim_gate(struct sim_store *s, bool standby, bool force, Error **errp);

#endif
