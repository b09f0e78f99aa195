/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_faults.h"
#include "sim_arbiter.h"
#include "sim_cluster.h"
#include "sim_link.h"

#include <stdlib.h>

static SimHost *world;
static struct sim_rng *rng;

void faults_init(SimHost *w, struct sim_rng *r)
{
    world = w;
    rng = r;
}

struct passing {
    int64_t after;
    SimHost *frozen;
    bool arbiter, cut;
    unsigned a, b;
};

static void pass_main(void *arg)
{
    struct passing *p = arg;

    sim_sleep(p->after);
    if (p->frozen) {
        sim_host_thaw(p->frozen);
        sim_trace("%s is back", sim_host_name(p->frozen));
    }
    if (p->arbiter)
        sim_arbiter_set_reachable(p->a, true);
    if (p->cut) {
        sim_link_heal(p->a, p->b);
        sim_trace("healed %u to %u", p->a, p->b);
    }
    free(p);
}

static void pass(struct passing what)
{
    struct passing *p = malloc(sizeof(*p));

    if (!p)
        abort();
    *p = what;
    sim_spawn(world, "passing", pass_main, p);
}

/* Shorter than a timeout, about one, or much longer. */
static int64_t some_while(void)
{
    static const int64_t most[] = {50 * NS_PER_MS, NS_PER_S, 4 * NS_PER_S};

    return sim_rng_range(rng, NS_PER_MS, most[sim_rng_below(rng, 3)]);
}

void faults_cut(unsigned from, unsigned to)
{
    int64_t how_long = some_while();

    sim_trace("cut %u to %u", from, to);
    sim_link_cut(from, to);
    cluster_disturbed(from, to, how_long);
    pass((struct passing){.after = how_long, .cut = true, .a = from, .b = to});
}

void faults_reset(unsigned a, unsigned b)
{
    sim_trace("the connections between %u and %u are reset", a, b);
    sim_link_reset(a, b);
    cluster_disturbed(a, b, 0);
}

void faults_freeze(struct sim_node *n)
{
    int64_t how_long;

    if (sim_host_state(n->host) != SIM_HOST_UP)
        return;
    how_long = some_while();
    sim_trace("%s freezes", sim_host_name(n->host));
    sim_host_freeze(n->host);
    for (unsigned i = 0; i < cluster.machines; i++)
        cluster_disturbed(n->machine, i, how_long);
    pass((struct passing){.after = how_long, .frozen = n->host});
}

void faults_hide_arbiter(unsigned machine)
{
    sim_trace("the arbiter is out of reach for %u", machine);
    sim_arbiter_set_reachable(machine, false);
    pass((struct passing){.after = some_while(), .arbiter = true, .a = machine});
}
