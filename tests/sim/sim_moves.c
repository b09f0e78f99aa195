/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_moves.h"
#include "sim_cluster.h"
#include "sim_faults.h"
#include "sim_history.h"
#include "sim_sniffer.h"
#include "sim_user.h"

#include <stdlib.h>

static SimHost *world;
static struct sim_rng rng;
static bool spares_primary, faulty;
static unsigned done;

struct trio {
    struct sim_node *primary, *backup, *third;
};

static struct sim_node *of(SimHost *h)
{
    return sim_host_data(h);
}

/* Machine 3 - a - b is the third of 0, 1 and 2. */
static struct sim_node *third(const struct sim_node *a, const struct sim_node *b)
{
    return cluster.nodes[3 - a->machine - b->machine];
}

/* --- the right to claim on its way --- */

struct handover {
    struct sim_node *backup;
    unsigned to; /* machine */
};

/* It may claim, or has. */
static bool has_right(const struct sim_node *n)
{
    return sim_node_alive(n) && !sim_node_has_let_go(n) &&
           (sim_node_role(n) == ENGINE_PRIMARY || sim_node_state(n) == ENGINE_STANDBY ||
            sim_node_state(n) == ENGINE_ASKING || sim_node_state(n) == ENGINE_PROMOTING);
}

static bool has_arrived(const struct handover *h)
{
    return has_right(cluster.nodes[h->to]);
}

static bool somebody_goes_on(void)
{
    for (unsigned i = 0; i < cluster.machines; i++)
        if (cluster_goes_on(cluster.nodes[i]))
            return true;
    return false;
}

static bool came_between(const struct handover *h)
{
    return cluster_is_disturbed(h->backup->machine, h->to) || !sim_node_alive(h->backup) ||
           !sim_node_alive(cluster.nodes[h->to]);
}

/* Until nobody has it under way any more. */
static void watch_main(void *arg)
{
    struct handover *h = arg;

    while (sim_node_has_let_go(h->backup) && !has_arrived(h) && cluster_successor(h->backup))
        sim_sleep(NS_PER_MS / 10);
    done += has_arrived(h);
    if (cluster.expected && !has_arrived(h) && !has_right(h->backup) && !somebody_goes_on() &&
        came_between(h)) {
        sim_trace("the primary is dead, and its backup and the successor were parted: nobody may claim");
        cluster.expected = false;
    }
    free(h);
}

static void watch(struct sim_node *primary, struct sim_node *backup)
{
    struct handover *h = malloc(sizeof(*h));

    if (!h)
        abort();
    *h = (struct handover){backup, third(primary, backup)->machine};
    backup->letting_go = true;
    sim_spawn(world, "handover", watch_main, h);
}

/* --- what fails --- */

enum { AT_ANY_TIME, AT_RECORD };

struct ambush {
    struct trio t;
    int when;
    enum wire_record record;
    bool read, met;
    int64_t after;
};

static struct ambush *ambushes[8];

static struct sim_node *victim(const struct trio *t)
{
    struct sim_node *const all[] = {t->backup, t->third, t->primary, t->primary};

    return all[sim_rng_below(&rng, spares_primary ? 2 : 4)];
}

static void kill(struct sim_node *n)
{
    if (!sim_node_alive(n))
        return;
    if (sim_rng_one_in(&rng, 3))
        sim_node_crash_after(n, sim_rng_below(&rng, sim_rng_one_in(&rng, 2) ? 200 : 5000));
    else
        cluster_crash(n, sim_rng_one_in(&rng, 2) ? DEATH_POWER : DEATH_PROCESS);
}

/* The primary would lose its backup by most of these, and one that is spared must not be asked whether it goes on. */
static void strike(const struct trio *t)
{
    struct sim_node *a = victim(t), *b = victim(t);
    unsigned how = spares_primary ? 0 : (unsigned)sim_rng_below(&rng, 6);

    if (how <= 2 || a == b) {
        kill(a);
    } else if (how == 3) {
        faults_freeze(a);
    } else if (how == 4) {
        faults_reset(a->machine, b->machine);
    } else {
        faults_cut(a->machine, b->machine);
        if (sim_rng_one_in(&rng, 2))
            faults_cut(b->machine, a->machine);
    }
}

static void ambush_main(void *arg)
{
    struct ambush *a = arg;
    int64_t until = sim_now() + 2 * NS_PER_S;

    while (a->when == AT_RECORD && !a->met && sim_now() < until)
        sim_block(a, until);
    sim_sleep(a->after);
    strike(&a->t);
    if (sim_rng_one_in(&rng, 5)) /* two at once */
        strike(&a->t);
    for (int i = 0; i < 8; i++)
        if (ambushes[i] == a)
            ambushes[i] = NULL;
    free(a);
}

static struct ambush draw(const struct trio *t)
{
    static const enum wire_record records[] = {WIRE_MOVED,   WIRE_LET_GO,  WIRE_LET_GO,
                                               WIRE_SUCCEED, WIRE_SUCCEED, WIRE_SUCCEEDED};
    struct ambush a = {.t = *t};

    a.when = sim_rng_one_in(&rng, 4) ? AT_ANY_TIME : AT_RECORD;
    a.record = records[sim_rng_below(&rng, 6)];
    a.read = sim_rng_one_in(&rng, 2);
    if (a.when == AT_ANY_TIME)
        a.after = sim_rng_range(&rng, 0, 200 * NS_PER_MS);
    else if (sim_rng_one_in(&rng, 2))
        a.after = sim_rng_range(&rng, 0, 2 * NS_PER_MS);
    return a;
}

static void lie_in_wait(const struct trio *t)
{
    struct ambush *a = malloc(sizeof(*a));

    if (!a)
        abort();
    *a = draw(t);
    for (int i = 0; i < 8; i++) {
        if (!ambushes[i]) {
            ambushes[i] = a;
            sim_spawn(world, "ambush", ambush_main, a);
            return;
        }
    }
    free(a);
}

static void on_record(enum wire_record type, bool read, SimHost *from, SimHost *to)
{
    if (type == WIRE_NOT_MOVED && !read)
        of(from)->letting_go = false;
    if (type == WIRE_LET_GO && read)
        watch(of(from), of(to));
    for (int i = 0; i < 8; i++) {
        if (ambushes[i] && ambushes[i]->record == type && ambushes[i]->read == read) {
            ambushes[i]->met = true;
            sim_wake(ambushes[i]);
        }
    }
}

/* --- moves --- */

void moves_init(SimHost *w, uint64_t seed, bool only_backups, bool with_faults)
{
    world = w;
    rng = sim_rng_make(seed, 14);
    spares_primary = only_backups;
    faulty = with_faults;
    sniffer_watch_moves(on_record);
}

unsigned moves_done(void)
{
    return done;
}

static bool is_idle(const struct sim_node *n)
{
    return sim_node_alive(n) && sim_host_state(n->host) == SIM_HOST_UP && !n->commands;
}

static bool is_backup_of(const struct sim_node *n, const struct sim_node *primary)
{
    return is_idle(n) && sim_node_role(n) == ENGINE_BACKUP && sim_node_state(n) == ENGINE_STANDBY &&
           sim_node_same_pair(n, primary) && !sim_node_has_let_go(n);
}

static bool find_trio(struct trio *t)
{
    t->primary = cluster_runner();
    if (!t->primary || !is_idle(t->primary) || sim_node_state(t->primary) != ENGINE_PROTECTED)
        return false;
    for (unsigned i = 0; i < cluster.machines; i++) {
        t->backup = cluster.nodes[i];
        if (t->backup != t->primary && is_backup_of(t->backup, t->primary)) {
            t->third = third(t->primary, t->backup);
            return true;
        }
    }
    return false;
}

static void command(const struct trio *t)
{
    cluster_command(sim_rng_one_in(&rng, 3) ? t->primary : t->backup, NODE_MOVE_BACKUP, t->third->machine);
}

static bool waits(const struct sim_node *n)
{
    return is_idle(n) && sim_node_role(n) == ENGINE_BACKUP && sim_node_state(n) == ENGINE_LISTENING;
}

/* Its user thinks better of it. */
static bool cancel(const struct trio *t)
{
    if (!is_idle(t->third) || !sim_node_is_successor(t->third) || !sim_rng_one_in(&rng, 4))
        return false;
    cluster_command(t->backup, NODE_MIGRATE_CANCEL, 0);
    return true;
}

bool moves_begin(void)
{
    struct trio t;

    if (find_trio(&t) && cancel(&t))
        return true;
    if (!find_trio(&t) || (!waits(t.third) && !sim_rng_one_in(&rng, 10)) || sim_rng_one_in(&rng, 3))
        return false;
    command(&t);
    if (faulty && !sim_rng_one_in(&rng, 3))
        lie_in_wait(&t);
    return true;
}

/* --- with nothing against it --- */

static void let_pass(bool (*fn)(const struct trio *t), const struct trio *t)
{
    int64_t until = sim_now() + 5 * NS_PER_S;

    while (!fn(t) && sim_now() < until) {
        user_resolves(true);
        sim_sleep(5 * NS_PER_MS);
    }
}

static bool is_protected(const struct trio *t)
{
    struct trio now;

    (void)t;
    return find_trio(&now);
}

static bool has_moved(const struct trio *t)
{
    return sim_node_alive(t->backup) && sim_node_state(t->backup) == ENGINE_LISTENING &&
           is_backup_of(t->third, t->primary);
}

static void protect(void)
{
    struct sim_node *runner = cluster_runner(), *listener = cluster_listener(&rng);

    if (runner && listener && is_idle(runner) && sim_node_state(runner) == ENGINE_UNPROTECTED)
        cluster_command(runner, NODE_PROTECT, listener->machine);
}

static struct sim_node *try_to_move(void)
{
    struct trio t;

    cluster_quit_finished();
    cluster_restart_one(&rng, true);
    sim_sleep(NS_PER_S);
    protect();
    let_pass(is_protected, NULL);
    if (!find_trio(&t) || !waits(t.third))
        return NULL;
    command(&t);
    let_pass(has_moved, &t);
    return has_moved(&t) && sim_node_runs(t.primary) && sim_now() >= cluster.loosely ? t.primary : NULL;
}

static void fail_no_more(void)
{
    sim_store_fail_no_more();
    for (unsigned i = 0; i < cluster.machines; i++)
        if (sim_node_alive(cluster.nodes[i]) && sim_node_guest(cluster.nodes[i]))
            sim_guest_fail(sim_node_guest(cluster.nodes[i]), 0, false, "");
}

struct sim_node *moves_prove(void)
{
    struct sim_node *primary = NULL;

    fail_no_more();
    for (int i = 0; i < 20 && !primary && !history_has_ended(); i++)
        primary = try_to_move();
    if (!primary && !history_has_ended())
        sim_fail("everything has healed, and the backup does not move");
    return primary;
}
