/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk: the end of a chain, on a medium, on the simulated clock. Requests take a while and complete in any
 * order, on a fiber of the host that opened it; whoever waits (carry_out) waits on his own.
 */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include "sim_medium.h"
#include "sim_runtime.h"

void sim_disk_init(uint64_t seed);
/* Of the running fiber's host. A medium is open once at a time. */
Block *sim_disk_open(const char *id, struct sim_medium *m);
/* fn is told of every request that fails as planned (sim_medium.fail_in). */
void sim_disk_on_failure(void (*fn)(void));
/* Something has failed as planned. */
bool sim_disk_has_failed(void);
/* As long as a write and a flush take. */
void sim_disk_pause(void);

#endif
