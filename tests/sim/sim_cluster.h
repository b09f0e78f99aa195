/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cluster: the machines of a scenario, what may be done to them, and what the guest's owner may expect of
 * them: while `expected` is true the faults so far were ones that the product promises to survive.
 */
#ifndef SIM_CLUSTER_H
#define SIM_CLUSTER_H

#include "sim_node.h"

#define CLUSTER_MAX 3

struct cluster {
    unsigned machines;
    struct sim_node *nodes[CLUSTER_MAX]; /* the present life of each; NULL: never started */
    unsigned lives[CLUSTER_MAX];
    bool expected;   /* somebody must run the guest when all has healed */
    bool merciful;   /* nothing dies that the guest cannot be without */
    bool manual;     /* no arbiter but the user */
    int64_t loosely; /* until then protection may end by itself, and the promise with it */
    struct command *commands[512];
    unsigned command_count;
    int64_t disturbed[CLUSTER_MAX]
                     [CLUSTER_MAX]; /* until when something was between two machines, or on them */
};

extern struct cluster cluster;

void cluster_start(unsigned machines, bool merciful);
/* The one node that runs the guest, NULL none or several. */
struct sim_node *cluster_runner(void);
unsigned cluster_runners(void);
/* Some living, not frozen standby that a primary may try, NULL none. */
struct sim_node *cluster_listener(struct sim_rng *rng);
/* Some living node, perhaps only one that is no primary. */
struct sim_node *cluster_any(struct sim_rng *rng, bool not_runner);
/* From now on for so long. */
void cluster_disturbed(unsigned a, unsigned b, int64_t how_long);
/* Something was lately, or is: a connection between the two may be lost, and nobody know it yet. */
bool cluster_is_disturbed(unsigned a, unsigned b);
/* n is a backup that lets go, or one that has: the machine that is to succeed it will, unless something comes between the two. NULL: it
 * is none, or something has. */
struct sim_node *cluster_successor(const struct sim_node *n);
/* It runs the guest, and nobody will stop it. */
bool cluster_goes_on(const struct sim_node *n);
bool cluster_busy(void); /* a command is under way */
void cluster_command(struct sim_node *n, enum node_command what, unsigned to);
void cluster_crash(struct sim_node *n, enum sim_death how);
/* Starts a machine that is dead; unless smoothly its power may go again at once. */
bool cluster_restart_one(struct sim_rng *rng, bool smoothly);
/* Ends processes that have nothing more to do. */
void cluster_quit_finished(void);
/* Runs the guest on that machine, forced if need be and if its user knows that he may; nothing if it is alive. */
void cluster_run(unsigned machine);
/* No cut, no frozen host, arbiter in reach. */
void cluster_heal(void);

#endif
