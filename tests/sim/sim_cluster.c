/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_cluster.h"
#include "sim_arbiter.h"
#include "sim_history.h"
#include "sim_link.h"
#include "sim_user.h"

#include <string.h>

struct cluster cluster;

static bool won_by(const struct sim_node *n, enum arbiter_side side)
{
    enum arbiter_side winner;

    return sim_arbiter_winner(sim_node_pair(n), sim_node_generation(n), &winner) && winner == side;
}

/* n runs the guest and nobody will stop it. */
static bool will_go_on(const struct sim_node *n)
{
    if (cluster.manual && sim_node_alive(n) && sim_node_state(n) == ENGINE_ASKING)
        return false; /* perhaps: that is for the user to find out */
    if (sim_node_runs(n) && history_forked(sim_guest_cpu(sim_node_guest(n))->lineage))
        return false; /* the other side runs already, this one has not heard of it */
    return sim_node_runs(n) && (sim_node_state(n) == ENGINE_UNPROTECTED || !won_by(n, ARBITER_BACKUP));
}

static bool will_take_over(const struct sim_node *n, const struct sim_node *from)
{
    if (!sim_node_alive(n) || sim_node_role(n) != ENGINE_BACKUP || won_by(n, ARBITER_PRIMARY))
        return false;
    if (cluster.manual && sim_node_state(n) != ENGINE_PROMOTING)
        return user_would_vouch(n, from) && sim_now() >= cluster.loosely;
    if (sim_node_state(n) == ENGINE_ASKING)
        return true;
    if (sim_node_state(n) == ENGINE_PROMOTING) /* in a swap the arbiter may yet be out of reach */
        return cluster.manual || won_by(n, ARBITER_BACKUP);
    if (sim_node_state(n) != ENGINE_STANDBY || sim_now() < cluster.loosely)
        return false;
    return !sim_node_runs(from) ||
           (sim_node_state(from) == ENGINE_PROTECTED && sim_node_generation(from) == sim_node_generation(n) &&
            !strcmp(sim_node_pair(from), sim_node_pair(n)));
}

/* If n died now, would the guest be lost? */
static bool would_lose(const struct sim_node *n)
{
    if (!cluster.expected || !sim_node_alive(n))
        return false;
    for (unsigned i = 0; i < cluster.machines; i++)
        if (cluster.nodes[i] != n && (will_go_on(cluster.nodes[i]) || will_take_over(cluster.nodes[i], n)))
            return false;
    return true;
}

/* True: it may live. */
static bool about_to_die(struct sim_node *n)
{
    bool loses = would_lose(n);

    if (loses && cluster.merciful)
        return true;
    if (sim_node_alive(n))
        user_sees_death(n);
    if (!loses)
        return false;
    sim_trace("nobody is left who could run the guest");
    cluster.expected = false;
    return false;
}

void cluster_start(unsigned machines, bool merciful)
{
    cluster = (struct cluster){.machines = machines, .expected = true, .merciful = merciful};
    cluster.manual = sim_node_manual();
    sim_node_on_doom(about_to_die);
    for (unsigned i = 0; i < machines; i++)
        cluster.nodes[i] = sim_node_boot(i, ++cluster.lives[i], i == 0);
}

unsigned cluster_runners(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < cluster.machines; i++)
        count += sim_node_runs(cluster.nodes[i]);
    return count;
}

struct sim_node *cluster_runner(void)
{
    if (cluster_runners() != 1)
        return NULL;
    for (unsigned i = 0; i < cluster.machines; i++)
        if (sim_node_runs(cluster.nodes[i]))
            return cluster.nodes[i];
    return NULL;
}

struct sim_node *cluster_any(struct sim_rng *rng, bool not_runner)
{
    unsigned first = (unsigned)sim_rng_below(rng, cluster.machines);

    for (unsigned i = 0; i < cluster.machines; i++) {
        struct sim_node *n = cluster.nodes[(first + i) % cluster.machines];

        if (sim_node_alive(n) && !(not_runner && sim_node_role(n) == ENGINE_PRIMARY))
            return n;
    }
    return NULL;
}

/* A user without an arbiter may try one that still asks, too. */
static bool takes_primary(const struct sim_node *n)
{
    enum engine_state s;

    if (!sim_node_alive(n) || sim_host_state(n->host) != SIM_HOST_UP || sim_node_role(n) != ENGINE_BACKUP)
        return false;
    s = sim_node_state(n);
    return s == ENGINE_LISTENING || (cluster.manual && s == ENGINE_ASKING);
}

struct sim_node *cluster_listener(struct sim_rng *rng)
{
    unsigned first = (unsigned)sim_rng_below(rng, cluster.machines);

    for (unsigned i = 0; i < cluster.machines; i++) {
        struct sim_node *n = cluster.nodes[(first + i) % cluster.machines];

        if (takes_primary(n))
            return n;
    }
    return NULL;
}

bool cluster_busy(void)
{
    for (unsigned i = 0; i < cluster.machines; i++)
        if (sim_node_alive(cluster.nodes[i]) && cluster.nodes[i]->commands)
            return true;
    return false;
}

void cluster_command(struct sim_node *n, enum node_command what, unsigned to)
{
    if (cluster.command_count < sizeof(cluster.commands) / sizeof(cluster.commands[0]))
        cluster.commands[cluster.command_count++] = sim_node_command(n, what, to);
}

void cluster_crash(struct sim_node *n, enum sim_death how)
{
    if (!about_to_die(n))
        sim_node_crash(n, how);
}

/* A process whose guest ended, or that lost its guest to the other side. */
static bool finished(const struct sim_node *n)
{
    return sim_node_alive(n) && sim_host_state(n->host) == SIM_HOST_UP && !n->commands &&
           (n->ended || (sim_node_role(n) == ENGINE_PRIMARY && sim_node_state(n) == ENGINE_FENCED));
}

void cluster_quit_finished(void)
{
    for (unsigned i = 0; i < cluster.machines; i++)
        if (finished(cluster.nodes[i]))
            sim_node_quit(cluster.nodes[i]);
}

bool cluster_restart_one(void)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        if (sim_host_state(cluster.nodes[i]->host) != SIM_HOST_DEAD)
            continue;
        cluster.nodes[i] = sim_node_boot(i, ++cluster.lives[i], false);
        return true;
    }
    return false;
}

void cluster_heal(void)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        for (unsigned j = 0; j < cluster.machines; j++)
            sim_link_heal(i, j);
        sim_arbiter_set_reachable(i, true);
        sim_host_thaw(cluster.nodes[i]->host);
    }
}
