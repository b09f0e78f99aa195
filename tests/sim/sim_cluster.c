/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_cluster.h"
#include "sim_arbiter.h"
#include "sim_history.h"
#include "sim_link.h"
#include "sim_user.h"

#include <stdlib.h>

#define LATELY (1500 * NS_PER_MS) /* more than a link's timeout: what was before that is known to its ends */

struct cluster cluster;

static bool won_by(const struct sim_node *n, enum arbiter_side side)
{
    enum arbiter_side winner;

    return sim_arbiter_winner(sim_node_pair(n), sim_node_generation(n), &winner) && winner == side;
}

bool cluster_goes_on(const struct sim_node *n)
{
    if (sim_node_alive(n) && sim_node_lacks(n))
        return false; /* not without the other side */
    if (cluster.manual && sim_node_alive(n) && sim_node_state(n) == ENGINE_ASKING)
        return false; /* perhaps: that is for the user to find out */
    if (sim_node_runs(n) && history_forked(sim_guest_cpu(sim_node_guest(n))->lineage))
        return false; /* the other side runs already, this one has not heard of it */
    return sim_node_runs(n) && (sim_node_state(n) == ENGINE_UNPROTECTED || !won_by(n, ARBITER_BACKUP));
}

void cluster_disturbed(unsigned a, unsigned b, int64_t how_long)
{
    int64_t *until[] = {&cluster.disturbed[a][b], &cluster.disturbed[b][a]};

    for (int i = 0; i < 2; i++)
        if (*until[i] < sim_now() + how_long)
            *until[i] = sim_now() + how_long;
}

bool cluster_is_disturbed(unsigned a, unsigned b)
{
    return cluster.disturbed[a][b] && sim_now() < cluster.disturbed[a][b] + LATELY;
}

struct sim_node *cluster_successor(const struct sim_node *n)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        struct sim_node *x = cluster.nodes[i];

        if (x != n && sim_node_has_let_go(n) && sim_node_is_successor(x) && sim_node_same_pair(n, x) &&
            !cluster_is_disturbed(n->machine, i))
            return x;
    }
    return NULL;
}

/* A backup has let go of the right to claim for n: it is on its way, and will come. But not from one that dies. */
static bool will_succeed(const struct sim_node *n, const struct sim_node *dying)
{
    for (unsigned i = 0; i < cluster.machines; i++)
        if (cluster.nodes[i] != dying && cluster_successor(cluster.nodes[i]) == n)
            return true;
    return false;
}

static bool will_take_over(const struct sim_node *n, const struct sim_node *from)
{
    if (!sim_node_alive(n) || sim_node_role(n) != ENGINE_BACKUP || won_by(n, ARBITER_PRIMARY) ||
        sim_store_of(n->machine)->troubled || sim_node_has_let_go(n))
        return false;
    if (sim_node_state(n) == ENGINE_SYNCING && !will_succeed(n, from))
        return false;
    if (cluster.manual && sim_node_state(n) != ENGINE_PROMOTING)
        return user_would_vouch(n, from) && sim_now() >= cluster.loosely;
    if (sim_node_lacks(n))
        return false;
    if (sim_node_state(n) == ENGINE_ASKING)
        return true;
    if (sim_node_state(n) == ENGINE_PROMOTING) /* in a swap the arbiter may yet be out of reach */
        return cluster.manual || won_by(n, ARBITER_BACKUP);
    if ((sim_node_state(n) != ENGINE_STANDBY && sim_node_state(n) != ENGINE_SYNCING) ||
        sim_now() < cluster.loosely)
        return false;
    return !sim_node_runs(from) || (sim_node_state(from) == ENGINE_PROTECTED && sim_node_same_pair(from, n));
}

/* If n died now, would the guest be lost? */
static bool would_lose(const struct sim_node *n)
{
    if (!cluster.expected || !sim_node_alive(n))
        return false;
    for (unsigned i = 0; i < cluster.machines; i++)
        if (cluster.nodes[i] != n &&
            (cluster_goes_on(cluster.nodes[i]) || will_take_over(cluster.nodes[i], n)))
            return false;
    return true;
}

/* True: it may live. */
static bool about_to_die(struct sim_node *n)
{
    bool loses = would_lose(n);

    if (loses && cluster.merciful) {
        sim_trace("%s is spared", sim_host_name(n->host));
        return true;
    }
    if (sim_node_alive(n))
        user_sees_death(n);
    if (!loses)
        return false;
    sim_trace("nobody is left who could run the guest");
    cluster.expected = false;
    return false;
}

/* --- the gate --- */

/* Somebody else runs the guest, and nobody has gone on from where he is. */
static bool runs_elsewhere(const struct sim_node *n)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        const struct sim_node *x = cluster.nodes[i];

        if (x != n && sim_node_runs(x) && sim_node_state(x) != ENGINE_ASKING &&
            !history_forked(sim_guest_cpu(sim_node_guest(x))->lineage))
            return true;
    }
    return false;
}

static bool has_newest(unsigned machine)
{
    const struct sim_store *s = sim_store_of(machine);

    return s->ran && s->lineage == history_latest();
}

/* A record of that role is there, and the arbiter gave its pair to that side. */
static bool is_given(const struct sim_store *s, enum disk_role role, enum arbiter_side side)
{
    enum arbiter_side winner;
    struct disk_record r;

    for (unsigned i = 0; i < sim_store_disks(); i++) {
        sim_store_peek_record(s, i, &r);
        if (r.role == role && sim_arbiter_winner(r.pair, r.generation, &winner) && winner == side)
            return true;
    }
    return false;
}

static void on_admitted(struct sim_node *n, bool standby, bool forced)
{
    const struct sim_store *s = sim_store_of(n->machine);

    if (standby && has_newest(n->machine) && !history_has_ended() &&
        !is_given(s, DISK_SUPERSEDED, ARBITER_BACKUP)) /* to one that has not gone on yet */
        sim_fail("%s may overwrite the one newest copy", sim_host_name(n->host));
    if (standby)
        return;
    if (runs_elsewhere(n))
        sim_fail("%s may run the guest, which runs elsewhere", sim_host_name(n->host));
    if (!forced && !has_newest(n->machine))
        sim_fail("%s may run on disks that are not the newest: lineage %u%s, the newest is %u",
                 sim_host_name(n->host), s->lineage, s->ran ? "" : ", that ran elsewhere", history_latest());
}

/* A backup that may be, or be told, to go on. */
static bool may_be_taken_over(const struct sim_node *n)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        const struct sim_node *x = cluster.nodes[i];
        bool dead = sim_host_state(x->host) == SIM_HOST_DEAD;

        if (x == n || dead)
            continue;
        if (!sim_node_alive(x) ||
            (sim_node_role(x) == ENGINE_BACKUP && sim_node_state(x) != ENGINE_LISTENING))
            return true;
    }
    return false;
}

static bool newest_is_elsewhere(const struct sim_node *n)
{
    for (unsigned i = 0; i < cluster.machines; i++)
        if (i != n->machine && has_newest(i))
            return true;
    return false;
}

/* The backup was granted, and died before it ran. */
static bool was_to_take_over(const struct sim_store *s)
{
    return s->lineage == history_latest() && is_given(s, DISK_STANDBY, ARBITER_BACKUP);
}

/* He knows where the guest ran last. */
static bool would_force(struct sim_node *n, bool standby)
{
    if (standby)
        return newest_is_elsewhere(n);
    if (runs_elsewhere(n) || may_be_taken_over(n))
        return false;
    return has_newest(n->machine) || was_to_take_over(sim_store_of(n->machine));
}

#define NOTICED (50 * NS_PER_MS) /* by then its engine knows of the failure, and claims nothing */

static bool claims(const struct sim_node *n)
{
    return sim_node_alive(n) && sim_node_role(n) == ENGINE_BACKUP &&
           (sim_node_state(n) == ENGINE_ASKING || sim_node_state(n) == ENGINE_PROMOTING);
}

/* A backup that has claimed already, or does before it knows, and then cannot take over, is a second failure. */
static void failing_main(void *arg)
{
    struct sim_node *n = arg;
    int64_t until = sim_now() + NOTICED;

    while (!claims(n) && sim_now() < until)
        sim_sleep(NS_PER_MS);
    if (!claims(n))
        return;
    sim_trace("the backup's disk fails while it takes over");
    cluster.expected = false;
}

/* Protection may end by it. */
static void on_disk_failure(struct sim_store *s)
{
    struct sim_node *n = cluster.nodes[s->machine];

    cluster.loosely = sim_now() + 4 * NS_PER_S;
    if (claims(n) || (sim_node_alive(n) && sim_node_state(n) == ENGINE_STANDBY))
        sim_spawn(n->host, "failing", failing_main, n);
}

void cluster_start(unsigned machines, bool merciful)
{
    cluster = (struct cluster){.machines = machines, .expected = true, .merciful = merciful};
    cluster.manual = sim_node_manual();
    sim_node_on_doom(about_to_die);
    sim_store_on_failure(on_disk_failure);
    sim_node_on_gate(&(struct sim_gate_watch){on_admitted, would_force});
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
           sim_node_finished(n);
}

void cluster_quit_finished(void)
{
    for (unsigned i = 0; i < cluster.machines; i++)
        if (finished(cluster.nodes[i]))
            sim_node_quit(cluster.nodes[i]);
}

struct boot_crash {
    struct sim_node *node;
    int64_t after;
};

/* Its power goes again while it looks at its disks. */
static void boot_crash_main(void *arg)
{
    struct boot_crash *b = arg;

    sim_sleep(b->after);
    if (!b->node->booted)
        sim_node_crash(b->node, DEATH_POWER);
    free(b);
}

/* Not one that the arbiter may just have granted the guest: nobody else would be let run it. */
static void crash_boot(struct sim_node *n, struct sim_rng *rng)
{
    struct boot_crash *b;
    struct disk_record r;

    sim_store_peek_record(sim_store_of(n->machine), 0, &r);
    if (cluster.expected && r.role == DISK_PRIMARY)
        return;
    b = malloc(sizeof(*b));
    if (!b)
        abort();
    *b = (struct boot_crash){.node = n, .after = sim_rng_range(rng, 0, 15 * NS_PER_MS)};
    sim_spawn(sim_host_current(), "boot-crash", boot_crash_main, b);
}

bool cluster_restart_one(struct sim_rng *rng, bool smoothly)
{
    unsigned first = (unsigned)sim_rng_below(rng, cluster.machines);

    for (unsigned i = 0; i < cluster.machines; i++) {
        unsigned machine = (first + i) % cluster.machines;

        if (sim_host_state(cluster.nodes[machine]->host) != SIM_HOST_DEAD)
            continue;
        cluster.nodes[machine] = sim_node_return(machine, ++cluster.lives[machine]);
        if (!smoothly && sim_rng_one_in(rng, 6))
            crash_boot(cluster.nodes[machine], rng);
        return true;
    }
    return false;
}

void cluster_run(unsigned machine)
{
    if (sim_host_state(cluster.nodes[machine]->host) == SIM_HOST_DEAD)
        cluster.nodes[machine] = sim_node_run(machine, ++cluster.lives[machine]);
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
