/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults that pass by themselves: cuts, freezes, an arbiter out of reach; and connections that are reset. How long they last is
 * drawn from the scenario's generator. The cluster is told, for those who ask later what may have come of it.
 */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include "sim_node.h"

/* world: whose fibers end them. */
void faults_init(SimHost *world, struct sim_rng *rng);
/* One way. */
void faults_cut(unsigned from, unsigned to);
void faults_reset(unsigned a, unsigned b);
/* Nothing if it is not up. */
void faults_freeze(struct sim_node *n);
void faults_hide_arbiter(unsigned machine);

#endif
