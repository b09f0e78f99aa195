/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_user.h"
#include "sim_arbiter.h"
#include "sim_history.h"

#include <stdio.h>
#include <string.h>

static struct sim_rng rng;

void user_init(uint64_t seed)
{
    rng = sim_rng_make(seed, 10);
}

/* For one protection, not for the ones that may follow it. */
static struct vouch {
    const struct sim_node *node;
    char pair[40];
    uint64_t generation;
} vouched[CLUSTER_MAX];

/* It gave the guest to n by a swap, and has not heard yet that n took it: then it is n's standby. */
static bool hands_over(const struct sim_node *x, const struct sim_node *n)
{
    return sim_node_role(x) == ENGINE_PRIMARY && sim_node_generation(x) + 1 == sim_node_generation(n) &&
           !strcmp(sim_node_pair(x), sim_node_pair(n));
}

bool user_would_vouch(const struct sim_node *n, const struct sim_node *from)
{
    return sim_node_alive(n) && sim_node_role(n) == ENGINE_BACKUP && sim_node_role(from) == ENGINE_PRIMARY &&
           (sim_node_state(from) == ENGINE_PROTECTED || sim_node_state(from) == ENGINE_SYNCING) &&
           sim_node_same_pair(n, from) &&
           (sim_node_state(n) == ENGINE_STANDBY || sim_node_state(n) == ENGINE_ASKING ||
            sim_node_is_successor(n)); /* should it come to be asked */
}

static void vouch_for(unsigned i)
{
    const struct sim_node *n = cluster.nodes[i];

    vouched[i] = (struct vouch){.node = n, .generation = sim_node_generation(n)};
    snprintf(vouched[i].pair, sizeof(vouched[i].pair), "%s", sim_node_pair(n));
}

static bool vouches_for(unsigned i)
{
    const struct sim_node *n = cluster.nodes[i];

    return vouched[i].node == n && vouched[i].generation == sim_node_generation(n) &&
           !strcmp(vouched[i].pair, sim_node_pair(n));
}

void user_sees_death(const struct sim_node *n)
{
    for (unsigned i = 0; i < cluster.machines; i++)
        if (cluster.manual && cluster.nodes[i] != n && user_would_vouch(cluster.nodes[i], n))
            vouch_for(i);
}

/* The other side of n's pair may still be told, or decide, to run. */
static bool other_may_run(const struct sim_node *n)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        const struct sim_node *x = cluster.nodes[i];

        if (x != n && sim_node_alive(x) && hands_over(x, n))
            return true;
        if (x != n && sim_node_alive(x) && sim_node_role(x) == ENGINE_BACKUP && sim_node_same_pair(x, n) &&
            (sim_node_state(x) == ENGINE_STANDBY || sim_node_state(x) == ENGINE_PROMOTING ||
             sim_node_state(x) == ENGINE_MIGRATING || sim_node_is_successor(x)))
            return true;
    }
    return false;
}

static bool primary_lives(const struct sim_node *n)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        const struct sim_node *x = cluster.nodes[i];

        if (x != n && sim_node_alive(x) && sim_node_role(x) == ENGINE_PRIMARY)
            return true;
    }
    return false;
}

static void answer_backup(unsigned i, bool patient)
{
    struct sim_node *n = cluster.nodes[i];

    if (vouches_for(i))
        cluster_command(n, NODE_FAILOVER_DEAD, 0);
    else if (!patient || (primary_lives(n) && sim_rng_one_in(&rng, 50)))
        sim_node_quit(n); /* to be a standby again some day; or its primary comes back to it */
}

/* Of a postcopy: where the guest runs, or what it needs. */
static struct sim_node *other_half(const struct sim_node *n)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        struct sim_node *x = cluster.nodes[i];

        if (x != n && sim_node_alive(x) && !strcmp(sim_node_pair(x), sim_node_pair(n)))
            return x;
    }
    return NULL;
}

/* One half of a guest whose other half is gone for good. */
static void end_half(struct sim_node *n)
{
    const struct sim_node *other = other_half(n);

    if (!other || (sim_node_serves(n) ? !sim_node_lacks(other) && sim_node_state(other) != ENGINE_UNPROTECTED
                                      : !sim_node_serves(other) && sim_node_state(other) != ENGINE_ASKING))
        sim_node_quit(n);
}

static void answer_primary(struct sim_node *n, bool patient)
{
    const struct sim_node *other = other_half(n);

    if (other_may_run(n))
        return;
    if (other && sim_node_lacks(other)) {
        cluster_command(n, NODE_MIGRATE_RECOVER, 0);
        return;
    }
    if (history_forked(sim_guest_cpu(sim_node_guest(n))->lineage))
        sim_node_quit(n); /* the other side ran */
    else if (!patient)
        cluster_command(n, NODE_UNPROTECT_FORCE, 0);
}

/* Everybody who might have taken over from n is dead, and was not granted before. */
static bool runs_nowhere_else(const struct sim_node *n)
{
    enum arbiter_side winner;

    for (unsigned i = 0; i < cluster.machines; i++) {
        const struct sim_node *x = cluster.nodes[i];

        if (x == n || sim_host_state(x->host) == SIM_HOST_DEAD)
            continue;
        if (!sim_node_alive(x) || sim_node_same_pair(x, n) || hands_over(x, n))
            return false;
    }
    return !sim_arbiter_winner(sim_node_pair(n), sim_node_generation(n), &winner) ||
           winner == ARBITER_PRIMARY;
}

/* The arbiter is out of reach: some do not wait for it. */
static void lose_patience(struct sim_node *n)
{
    if (sim_node_role(n) == ENGINE_PRIMARY && runs_nowhere_else(n) && sim_rng_one_in(&rng, 3))
        cluster_command(n, NODE_UNPROTECT_FORCE, 0);
}

void user_resolves(bool patient)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        struct sim_node *n = cluster.nodes[i];

        if (!sim_node_alive(n) || n->commands || sim_host_state(n->host) != SIM_HOST_UP)
            continue;
        if (sim_node_state(n) == ENGINE_POSTCOPY_PAUSED)
            end_half(n);
        if (sim_node_state(n) != ENGINE_ASKING)
            continue;
        if (!cluster.manual)
            lose_patience(n);
        else if (sim_node_role(n) == ENGINE_BACKUP)
            answer_backup(i, patient);
        else
            answer_primary(n, patient);
    }
}
