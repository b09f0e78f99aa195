/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_scenario.h"
#include "sim_cluster.h"
#include "sim_faults.h"
#include "sim_history.h"
#include "sim_moves.h"
#include "sim_user.h"

#include "engine/engine_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a seed is about. Most faults come one at a time, with time to recover; some come as they like. */
struct style {
    const char *name;
    int64_t gap_ns; /* mean, between two actions */
    int64_t length_ns;
    bool only_backups; /* nothing ever happens to who runs the guest */
    unsigned weights[17];
};

enum action {
    ACT_SWAP,
    ACT_UNPROTECT,
    ACT_FAILOVER,
    ACT_CRASH,
    ACT_CRASH_AT_BYTE,
    ACT_FREEZE,
    ACT_CUT_ONE_WAY,
    ACT_CUT,
    ACT_RESET_LINK,
    ACT_ARBITER,
    ACT_GUEST_RESET,
    ACT_GUEST_END,
    ACT_GUEST_FAILS,
    ACT_RESTART,
    ACT_QUIT,
    ACT_DISK_FAILS,
    ACT_NOTHING,
};

static const struct style styles[] = {
    {"calm",
     400 * NS_PER_MS,
     5 * NS_PER_S,
     false,
     {6, 3, 3, [ACT_GUEST_RESET] = 3, [ACT_GUEST_FAILS] = 1, [ACT_DISK_FAILS] = 1}},
    {"crashes",
     700 * NS_PER_MS,
     8 * NS_PER_S,
     false,
     {1, 1, 1, 4, 8, [ACT_ARBITER] = 4, [ACT_RESTART] = 12, [ACT_DISK_FAILS] = 2, [ACT_NOTHING] = 2}},
    {"freezes",
     900 * NS_PER_MS,
     8 * NS_PER_S,
     false,
     {1, 1, 1, 0, 1, 10, [ACT_ARBITER] = 2, [ACT_RESTART] = 8}},
    {"cuts",
     900 * NS_PER_MS,
     8 * NS_PER_S,
     false,
     {1, 1, 1, 0, 1, 1, 5, 5, 4, 2, [ACT_RESTART] = 8, [ACT_DISK_FAILS] = 1}},
    {"chaos", 100 * NS_PER_MS, 5 * NS_PER_S, false, {2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 2, 0, 1, 12, 2, 2}},
    {"ends", 500 * NS_PER_MS, 5 * NS_PER_S, false, {1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 3, 3, 1, 6}},
    {"backups",
     400 * NS_PER_MS,
     6 * NS_PER_S,
     true,
     {[ACT_CRASH] = 3, 5, [ACT_GUEST_RESET] = 1, [ACT_RESTART] = 10, [ACT_DISK_FAILS] = 1}},
};

static const struct style *style;
static struct sim_rng rng;
static SimHost *world;
static uint64_t failures_planned, actions;
static unsigned protects;
static bool moving;

/* --- actions --- */

static void let_guest_fail(struct sim_node *n)
{
    char text[64];

    if (!n || !sim_node_guest(n))
        return;
    snprintf(text, sizeof(text), "planned failure %llu", (unsigned long long)++failures_planned);
    sim_guest_fail(sim_node_guest(n), 1 + (unsigned)sim_rng_below(&rng, 40), sim_rng_one_in(&rng, 3), text);
    cluster.loosely = sim_now() + 4 * NS_PER_S;
}

static void wish(struct sim_node *n, enum guest_request what)
{
    if (n && sim_host_state(n->host) == SIM_HOST_UP && sim_node_guest(n))
        sim_guest_wish(sim_node_guest(n), what);
}

static void command_on_standby(void)
{
    struct sim_node *n = cluster_any(&rng, true);

    if (n && sim_node_role(n) == ENGINE_BACKUP && sim_host_state(n->host) == SIM_HOST_UP)
        cluster_command(n, NODE_FAILOVER, 0);
}

static void crash_some(bool at_byte)
{
    struct sim_node *n = cluster_any(&rng, style->only_backups);

    if (!n)
        return;
    if (!at_byte)
        cluster_crash(n, sim_rng_one_in(&rng, 2) ? DEATH_POWER : DEATH_PROCESS);
    else if (sim_rng_one_in(&rng, 3))
        sim_node_crash_in_epoch(n, 1 + (unsigned)sim_rng_below(&rng, 40), sim_rng_below(&rng, 500));
    else
        sim_node_crash_after(n, sim_rng_below(&rng, sim_rng_one_in(&rng, 2) ? 3000 : 300000));
}

static unsigned other_machine(unsigned a)
{
    return (a + 1 + (unsigned)sim_rng_below(&rng, cluster.machines - 1)) % cluster.machines;
}

static void act(enum action what)
{
    struct sim_node *runner = cluster_runner(), *any = cluster_any(&rng, style->only_backups);
    unsigned a = (unsigned)sim_rng_below(&rng, cluster.machines), b = other_machine(a);
    bool runner_up = runner && sim_host_state(runner->host) == SIM_HOST_UP && !runner->commands;

    switch (what) {
    case ACT_SWAP:
        if (runner_up)
            cluster_command(runner, NODE_SWAP, 0);
        break;
    case ACT_UNPROTECT:
        if (runner_up) {
            cluster.loosely = sim_now() + 4 * NS_PER_S;
            cluster_command(
                runner, sim_node_state(runner) == ENGINE_MIGRATING ? NODE_MIGRATE_CANCEL : NODE_UNPROTECT, 0);
        }
        break;
    case ACT_FAILOVER:
        command_on_standby();
        break;
    case ACT_CRASH:
    case ACT_CRASH_AT_BYTE:
        crash_some(what == ACT_CRASH_AT_BYTE);
        break;
    case ACT_FREEZE:
        if (any)
            faults_freeze(any);
        break;
    case ACT_CUT_ONE_WAY:
        faults_cut(a, b);
        break;
    case ACT_CUT:
        faults_cut(a, b);
        faults_cut(b, a);
        break;
    case ACT_RESET_LINK:
        faults_reset(a, b);
        break;
    case ACT_ARBITER:
        faults_hide_arbiter(a);
        break;
    case ACT_GUEST_RESET:
        wish(runner, GUEST_REQUEST_RESET);
        break;
    case ACT_GUEST_END:
        wish(runner, sim_rng_one_in(&rng, 2) ? GUEST_REQUEST_POWEROFF : GUEST_REQUEST_PANIC);
        break;
    case ACT_GUEST_FAILS:
        let_guest_fail(runner);
        break;
    case ACT_RESTART:
        cluster_quit_finished();
        cluster_restart_one(&rng, false);
        break;
    case ACT_QUIT:
        any = cluster_any(&rng, true);
        if (any && sim_host_state(any->host) == SIM_HOST_UP && sim_node_state(any) == ENGINE_LISTENING)
            sim_node_quit(any);
        break;
    case ACT_DISK_FAILS:
        sim_store_let_fail((unsigned)sim_rng_below(&rng, cluster.machines), &rng);
        break;
    case ACT_NOTHING:
        break;
    }
}

static enum action choose_action(void)
{
    unsigned sum = 0, pick;

    for (int i = 0; i <= ACT_NOTHING; i++)
        sum += style->weights[i];
    pick = (unsigned)sim_rng_below(&rng, sum);
    for (int i = 0; i <= ACT_NOTHING; i++) {
        if (pick < style->weights[i])
            return (enum action)i;
        pick -= style->weights[i];
    }
    return ACT_NOTHING;
}

struct sync_crash {
    struct sim_node *backup, *victim;
    int64_t after;
    enum sim_death how;
};

static void sync_crash_main(void *arg)
{
    struct sync_crash *c = arg;
    int64_t until = sim_now() + NS_PER_S;

    while (sim_now() < until && sim_node_alive(c->backup) && sim_node_state(c->backup) != ENGINE_SYNCING)
        sim_sleep(NS_PER_MS);
    sim_sleep(c->after);
    if (sim_node_alive(c->victim))
        cluster_crash(c->victim, c->how);
    free(c);
}

/* One of the two dies in the first sync, or soon after. */
static void crash_in_sync(struct sim_node *primary, struct sim_node *backup)
{
    struct sync_crash *c = malloc(sizeof(*c));

    if (!c)
        abort();
    *c = (struct sync_crash){
        .backup = backup, .victim = backup, .after = sim_rng_range(&rng, 0, 30 * NS_PER_MS)};
    if (!style->only_backups && sim_rng_one_in(&rng, 2))
        c->victim = primary;
    c->how = sim_rng_one_in(&rng, 2) ? DEATH_POWER : DEATH_PROCESS;
    sim_spawn(world, "sync-crash", sync_crash_main, c);
}

/* What a user does with a guest that runs alone, and a standby. */
static enum node_command choose_pairing(void)
{
    if (!style->only_backups && sim_rng_one_in(&rng, 4))
        return NODE_MIGRATE;
    return sim_rng_one_in(&rng, 15) ? NODE_CHECK : NODE_PROTECT;
}

/* Who runs alone is protected again soon: without a pair there is nothing to test. */
static bool protect_runner(void)
{
    struct sim_node *runner = cluster_runner(), *listener = cluster_listener(&rng);

    if (!runner || !listener || runner->commands || sim_host_state(runner->host) != SIM_HOST_UP ||
        sim_node_state(runner) != ENGINE_UNPROTECTED || history_has_ended())
        return false;
    if (style->weights[ACT_CRASH_AT_BYTE] > 1 && sim_rng_one_in(&rng, 8))
        crash_in_sync(runner, listener);
    if (!sim_rng_one_in(&rng, 12))
        cluster_command(runner, choose_pairing(), listener->machine);
    return true;
}

/* --- the end --- */

static bool settled(void)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        struct sim_node *n = cluster.nodes[i];
        enum engine_state s;

        if (!n->booted && sim_host_state(n->host) != SIM_HOST_DEAD)
            return false;
        if (!sim_node_alive(n))
            continue;
        s = sim_node_state(n);
        if (s == ENGINE_ASKING || s == ENGINE_PROMOTING || s == ENGINE_SYNCING || s == ENGINE_MIGRATING ||
            s == ENGINE_POSTCOPY || s == ENGINE_POSTCOPY_PAUSED || n->commands)
            return false;
    }
    return !cluster.expected || history_has_ended() || cluster_runner();
}

static void say_states(void)
{
    for (unsigned i = 0; i < cluster.machines; i++) {
        struct sim_node *n = cluster.nodes[i];

        if (sim_node_alive(n))
            sim_trace("%s: %s %s generation %llu%s%s, last error: %s", sim_host_name(n->host),
                      engine_role_name(sim_node_role(n)), engine_state_name(sim_node_state(n)),
                      (unsigned long long)sim_node_generation(n), n->ended ? ", ended" : "",
                      sim_node_runs(n) ? ", runs" : "", sim_node_error(n));
        else
            sim_trace("%s: dead or not up", sim_host_name(n->host));
    }
}

static void check_settles(void)
{
    int64_t until = sim_now() + 30 * NS_PER_S;

    while (!settled()) {
        user_resolves(sim_now() < until - 20 * NS_PER_S);
        if (sim_now() > until) {
            say_states();
            sim_fail("everything has healed, and the cluster does not settle");
        }
        sim_sleep(20 * NS_PER_MS);
    }
    say_states();
    if (cluster_runners() > 1)
        sim_fail("the guest runs twice");
    if (history_has_ended() && cluster_runners())
        sim_fail("the guest runs although it was switched off");
}

static void check_progress(void)
{
    uint64_t before = world_progress();
    int64_t until = sim_now() + 20 * NS_PER_S;

    while (cluster.expected && !history_has_ended() && world_progress() < before + 3) {
        if (sim_now() > until)
            sim_fail("the guest runs, and its clients get no answers");
        user_resolves(true); /* a death that was planned long ago may come now */
        sim_sleep(20 * NS_PER_MS);
    }
}

static void check_quits(void)
{
    int64_t until = sim_now() + 30 * NS_PER_S;

    world_stop();
    for (unsigned i = 0; i < cluster.machines; i++)
        if (sim_node_alive(cluster.nodes[i]))
            sim_node_quit(cluster.nodes[i]);
    for (unsigned i = 0; i < cluster.machines; i++) {
        while (cluster.nodes[i]->quitting && !cluster.nodes[i]->gone) {
            if (sim_now() > until)
                sim_fail("%s does not end when asked to", sim_host_name(cluster.nodes[i]->host));
            sim_sleep(20 * NS_PER_MS);
        }
    }
}

static void check_backups_harmless(void)
{
    if (style->only_backups && history_takeovers())
        sim_fail("only backups died, and the guest was taken over");
}

static bool is_booting(void)
{
    for (unsigned i = 0; i < cluster.machines; i++)
        if (!cluster.nodes[i]->booted && sim_host_state(cluster.nodes[i]->host) != SIM_HOST_DEAD)
            return true;
    return false;
}

static bool is_quitting(void)
{
    for (unsigned i = 0; i < cluster.machines; i++)
        if (cluster.nodes[i]->quitting && !cluster.nodes[i]->gone)
            return true;
    return false;
}

/* One that was still connecting to where it should move waits for that. */
static void quit_standbys(void)
{
    int64_t until = sim_now() + 20 * NS_PER_S;

    for (unsigned i = 0; i < cluster.machines; i++) {
        struct sim_node *n = cluster.nodes[i];

        if (!sim_node_alive(n) || sim_node_state(n) != ENGINE_LISTENING || n->commands)
            continue;
        sim_node_quit(n);
    }
    do
        sim_sleep(NS_PER_S);
    while (is_quitting() && sim_now() < until);
}

static bool nobody_runs(void)
{
    return !cluster_runner() && !history_has_ended();
}

/* A user who knows that nobody runs the guest, and where it ran last: he ends what waits, and runs it there. */
static void insist(void)
{
    cluster_quit_finished();
    quit_standbys();
    for (unsigned i = 0; i < cluster.machines && nobody_runs(); i++) {
        cluster_run(i);
        while (is_booting())
            sim_sleep(20 * NS_PER_MS);
    }
}

/* Nobody runs the guest: what is dead is started until somebody may. */
static void bring_back(void)
{
    for (int i = 0; i < 8 && nobody_runs(); i++) {
        if (!cluster_restart_one(&rng, true))
            break;
        while (is_booting())
            sim_sleep(20 * NS_PER_MS);
    }
    if (nobody_runs() && !cluster.expected)
        insist();
    if (!cluster_runners() && !history_has_ended()) {
        say_states();
        sim_fail("every machine is there, and nobody may run the guest");
    }
    if (!cluster.expected) {
        sim_trace("the guest is back");
        cluster.expected = true;
    }
}

/* One more, with nothing against it: and the successor is one, when the primary dies. */
static void check_move(void)
{
    struct sim_node *primary;

    if (history_has_ended() || !(primary = moves_prove()))
        return;
    cluster_crash(primary, sim_rng_one_in(&rng, 2) ? DEATH_POWER : DEATH_PROCESS);
    check_settles();
    check_progress();
}

static void scenario_main(void *arg)
{
    int64_t end = sim_now() + style->length_ns;

    (void)arg;
    cluster_start(moving || sim_rng_one_in(&rng, 3) ? 3 : 2, !sim_rng_one_in(&rng, 4));
    world_start(world, sim_rng_next(&rng));
    sim_sleep(50 * NS_PER_MS);
    while (sim_now() < end) {
        user_resolves(true);
        if (!protect_runner() && !(moving && moves_begin())) {
            actions++;
            act(choose_action());
        }
        protects += protect_runner();
        sim_sleep(sim_rng_range(&rng, 0, 2 * style->gap_ns));
        if ((history_has_ended() || !cluster.expected) && sim_rng_one_in(&rng, 5))
            break;
    }
    sim_trace("everything heals");
    cluster_heal();
    sim_sleep(5 * NS_PER_S); /* and what was planned to pass has passed */
    cluster_heal();
    check_settles();
    bring_back();
    check_settles();
    check_progress();
    check_backups_harmless();
    if (moving)
        check_move();
    check_quits();
    sim_stop();
}

bool scenario_moves(uint64_t seed)
{
    struct sim_rng r = sim_rng_make(seed, 13);

    return sim_rng_one_in(&r, 5);
}

void scenario_start(SimHost *h, uint64_t seed)
{
    rng = sim_rng_make(seed, 9);
    user_init(seed);
    style = &styles[sim_rng_below(&rng, sizeof(styles) / sizeof(styles[0]))];
    world = h;
    moving = scenario_moves(seed);
    faults_init(h, &rng);
    if (moving)
        moves_init(h, seed, style->only_backups, style->weights[ACT_CRASH_AT_BYTE] > 0);
    sim_trace("style: %s%s", style->name, moving ? ", the backup moves" : "");
    sim_spawn(h, "scenario", scenario_main, NULL);
}

void scenario_summary(char *buf, size_t size)
{
    snprintf(buf, size,
             "%s%s: %u machines, %llu actions, %u moves, %llu takeovers, %llu boots, %llu outputs, %llu "
             "requests%s%s",
             style->name, cluster.manual ? " (manual)" : "", cluster.machines, (unsigned long long)actions,
             moves_done(), (unsigned long long)history_takeovers(), (unsigned long long)history_boots(),
             (unsigned long long)history_effects(), (unsigned long long)world_progress(),
             history_has_ended() ? ", switched off" : "", cluster.expected ? "" : ", guest lost");
}
