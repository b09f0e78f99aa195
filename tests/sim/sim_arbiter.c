/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_arbiter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RECORDS 256

struct record {
    char pair[40];
    uint64_t generation;
    enum arbiter_side side;
};

static struct record records[MAX_RECORDS];
static int record_count;
static bool cut[SIM_MACHINES];
static struct sim_rng rng;
static int64_t max_delay;
static bool refuses; /* out of reach means "no route" at once, not silence */

static struct record *find(const char *pair, uint64_t generation)
{
    for (int i = 0; i < record_count; i++)
        if (records[i].generation == generation && !strcmp(records[i].pair, pair))
            return &records[i];
    return NULL;
}

bool sim_arbiter_winner(const char *pair, uint64_t generation, enum arbiter_side *ret_side)
{
    struct record *r = find(pair, generation);

    if (r)
        *ret_side = r->side;
    return r;
}

void sim_arbiter_set_reachable(unsigned machine, bool reachable)
{
    cut[machine] = !reachable;
    sim_wake(cut);
}

/* One way of the journey; false: the deadline passed. */
static bool travel(int64_t until)
{
    unsigned machine = sim_host_machine(sim_host_current());

    sim_sleep(sim_rng_range(&rng, 10 * NS_PER_US, max_delay));
    while (cut[machine] && !refuses && sim_now() < until)
        sim_block(cut, until);
    return !(cut[machine] && refuses) && sim_now() < until;
}

static enum arbiter_answer decide(const struct arbiter_claim *c)
{
    struct record *r = find(c->pair, c->generation);

    if (!r) {
        if (record_count == MAX_RECORDS)
            sim_fail("too many claims");
        r = &records[record_count++];
        r->generation = c->generation;
        r->side = c->side;
        snprintf(r->pair, sizeof(r->pair), "%s", c->pair);
    }
    sim_trace("arbiter: generation %llu is the %s's; the %s asked", (unsigned long long)c->generation,
              r->side == ARBITER_PRIMARY ? "primary" : "backup",
              c->side == ARBITER_PRIMARY ? "primary" : "backup");
    return r->side == c->side ? ARBITER_GRANTED : ARBITER_DENIED;
}

static enum arbiter_answer claim(Arbiter *a, const struct arbiter_claim *c, int64_t deadline, Error **errp)
{
    int64_t until = sim_from_host_time(sim_host_current(), deadline);
    enum arbiter_answer answer = ARBITER_UNKNOWN;

    (void)a;
    if (travel(until)) {
        answer = decide(c);
        if (travel(until))
            return answer;
    }
    error_setg_errno(errp, ETIMEDOUT, "the arbiter cannot be reached");
    return ARBITER_UNKNOWN;
}

static void free_arbiter(Arbiter *a)
{
    free(a);
}

static const struct arbiter_ops ops = {.claim = claim, .free = free_arbiter};

static Arbiter *make(const char *spec, Error **errp)
{
    Arbiter *a;

    (void)errp;
    if (strcmp(spec, "sim"))
        return NULL;
    a = calloc(1, sizeof(*a));
    if (!a)
        abort();
    a->ops = &ops;
    snprintf(a->kind, sizeof(a->kind), "%s", spec);
    return a;
}

void sim_arbiter_init(uint64_t seed)
{
    static const int64_t delays[] = {NS_PER_MS, 20 * NS_PER_MS, 300 * NS_PER_MS};

    rng = sim_rng_make(seed, 4);
    max_delay = delays[sim_rng_below(&rng, 3)];
    refuses = sim_rng_one_in(&rng, 2);
    arbiter_set_factory(make);
}
