/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The user, who answers where the arbiter does not: because it is "manual", or out of reach. He vouches only
 * for what he knows to be true. A primary that died while its output was held may be replaced; one that may
 * have gone on alone before it died may not: what it told the world is lost.
 */
#ifndef SIM_USER_H
#define SIM_USER_H

#include "sim_cluster.h"

void user_init(uint64_t seed);
/* n is about to die: remembers whom he may now vouch for. */
void user_sees_death(const struct sim_node *n);
/* May n, a backup, take over from `from`, if that dies now? */
bool user_would_vouch(const struct sim_node *n, const struct sim_node *from);
/* Answers every question that waits for him; patient: not those that may still answer themselves. */
void user_resolves(bool patient);

#endif
