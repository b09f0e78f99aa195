/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_node.h"
#include "sim_gate.h"
#include "sim_history.h"
#include "sim_link.h"
#include "sim_observer.h"

#include "engine/session.h"
#include "registry/context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct engine_params params;
static struct engine_migrate_params migrate_params;
static unsigned crashes;
static bool manual;
static struct sim_rng rng; /* what is tried first */
static struct sim_gate_watch gate_watch;

static struct sim_node *node_of(const SimHost *h)
{
    return sim_host_data(h);
}

static void switch_host(SimHost *from, SimHost *to)
{
    struct sim_node *n = node_of(to);

    (void)from;
    registry_context_switch(n ? n->registries : NULL);
}

void sim_node_init(uint64_t seed)
{
    static const uint32_t verify_every[] = {0, 0, 1, 5, 10, 30};

    rng = sim_rng_make(seed, 8);
    sim_on_host_switch(switch_host);
    engine_params_default(&params);
    params.interval_ns = sim_rng_range(&rng, 2, 60) * NS_PER_MS;
    params.min_epoch_ns = sim_rng_range(&rng, 1, 4) * NS_PER_MS / 2;
    params.timeout_ns = sim_rng_range(&rng, 2, 10) * 100 * NS_PER_MS;
    params.verify_every = verify_every[sim_rng_below(&rng, 6)];
    params.delta = !sim_rng_one_in(&rng, 3);
    engine_migrate_params_default(&migrate_params);
    migrate_params.timeout_ns = params.timeout_ns;
    manual = sim_rng_one_in(&rng, 4);
    snprintf(params.arbiter, sizeof(params.arbiter), manual ? "manual" : "sim");
    snprintf(migrate_params.arbiter, sizeof(migrate_params.arbiter), "%s", params.arbiter);
    migrate_params.on_slow = sim_rng_one_in(&rng, 3) ? ENGINE_SLOW_CANCEL : ENGINE_SLOW_PAUSE;
    migrate_params.downtime_ns = sim_rng_range(&rng, 1, 40) * NS_PER_MS;
    migrate_params.max_bandwidth =
        sim_rng_one_in(&rng, 3) ? (uint64_t)sim_rng_range(&rng, 64, 4096) << 10 : 0;
    migrate_params.postcopy = sim_rng_one_in(&rng, 2);
    if (migrate_params.postcopy) /* simulated links are quick */
        migrate_params.downtime_ns = 0;
    if (sim_rng_one_in(&rng, 3))
        migrate_params.on_slow = ENGINE_SLOW_POSTCOPY;
    migrate_params.channels = sim_rng_one_in(&rng, 2) ? 1 : 2 + (unsigned)sim_rng_below(&rng, 2);
}

bool sim_node_manual(void)
{
    return manual;
}

/* --- the owner's side of the engine --- */

static void on_event(void *opaque, const char *name, const char *text)
{
    struct sim_node *n = opaque;

    sim_trace("%s: %s", name, text);
    if (strstr(text, "from the primary's") && strstr(text, "differ"))
        sim_fail("a verification finds that the two sides differ");
    if (strcmp(name, "PERDURE_STATE") || !n->engine)
        return;
    if (strstr(text, "PROMOTING -> primary SYNCING") || strstr(text, "-> UNPROTECTED"))
        observer_swapped(n->host, strstr(text, "SYNCING:"));
    n->letting_go = false;
    if (strstr(text, "later planned failure") || strstr(n->engine->last_error, "later planned failure"))
        sim_fail("an error of the clean-up hides the first one");
    if (n->guest &&
        (strstr(text, "-> UNPROTECTED") || strstr(text, "-> SYNCING") || strstr(text, "-> MIGRATING")))
        sim_guest_fail_no_more((SimGuest *)n->guest);
}

static void on_guest_ended(void *opaque, enum guest_request how)
{
    struct sim_node *n = opaque;
    Guest *g = n->guest ? n->guest : n->made;
    const struct sim_cpu *cpu = g ? sim_guest_cpu((SimGuest *)g) : NULL;

    sim_trace("the guest ended: %d", how);
    if (n->told_ended)
        sim_fail("the end of the guest is told twice");
    n->told_ended = n->ended = true;
    if (cpu && cpu->lineage && cpu->request)
        history_ended(cpu->lineage, cpu->step);
}

/* The guest ended while no engine listened. */
static void on_free_end(void *opaque)
{
    struct sim_node *n = opaque;
    const struct sim_cpu *cpu = sim_guest_cpu((SimGuest *)(n->guest ? n->guest : n->made));

    sim_trace("the unprotected guest ended");
    n->ended = true;
    history_ended(cpu->lineage, cpu->step);
}

static void on_promoted(void *opaque, Guest *g)
{
    struct sim_node *n = opaque;

    if (g != n->made && g != n->guest)
        sim_fail("another guest is promoted than the one that was made");
    n->guest = g;
    sim_trace("promoted");
}

static void on_migrated(void *opaque)
{
    (void)opaque;
    sim_trace("migrated");
}

static Guest *make_guest(struct guest_factory *gf, VMStream *f, Error **errp)
{
    struct guest_factory *base = sim_guest_factory();
    struct sim_node *n = gf->opaque;

    n->made = base->create(base, f, errp);
    if (n->made)
        sim_guest_on_end((SimGuest *)n->made, on_free_end, n);
    return n->made;
}

static void destroy_guest(struct guest_factory *gf, Guest *g)
{
    struct guest_factory *base = sim_guest_factory();
    struct sim_node *n = gf->opaque;

    if (n->guest == g)
        sim_fail("the engine destroys a guest that is its owner's");
    n->made = NULL;
    base->destroy(base, g);
}

/* --- life --- */

static bool try_gate(struct sim_node *n, bool standby, bool force)
{
    Error *err = NULL;
    bool ok = sim_gate(sim_store_here(), standby, force, &err);

    sim_trace("the gate lets it be %s%s: %s", standby ? "a standby" : "run", force ? ", forced" : "",
              ok ? "yes" : error_get_pretty(err));
    error_free(err);
    if (ok)
        gate_watch.admitted(n, standby, force);
    return ok;
}

/* An empty machine is nothing to be run, and one that was never protected nothing to be overwritten. */
static bool makes_sense(const struct sim_store *s, bool standby)
{
    struct disk_record r;

    if (!standby && history_has_ended())
        return false;
    sim_store_peek_record(s, 0, &r);
    return r.role != DISK_NO_RECORD || s->ran != standby;
}

/* *ret_run: the guest; else as a standby. */
static bool pass_gate(struct sim_node *n, bool *ret_run, bool *ret_forced)
{
    bool first = sim_rng_one_in(&rng, 2);

    for (int i = 0; i < 4; i++) {
        bool standby = first ^ (i % 2), force = i >= 2;

        if ((n->only_to_run && standby) || !makes_sense(sim_store_here(), standby) ||
            (force && !gate_watch.would_force(n, standby)))
            continue;
        *ret_run = !standby;
        *ret_forced = force;
        if (try_gate(n, standby, force))
            return true;
    }
    return false;
}

static void give_up(struct sim_node *n)
{
    sim_trace("nothing may be started here");
    n->gone = true;
    sim_host_kill(n->host);
}

static void power_on(struct sim_node *n, bool forced)
{
    Error *err = NULL;

    n->guest = sim_guest_guest(sim_guest_new(&err));
    sim_guest_on_end((SimGuest *)n->guest, on_free_end, n);
    if (n->returning)
        sim_guest_boot((SimGuest *)n->guest, !forced);
    else
        sim_guest_power_on((SimGuest *)n->guest);
}

static void boot_main(void *arg)
{
    struct sim_node *n = arg;
    struct guest_factory *factory;
    bool forced = false;
    Error *err = NULL;
    Engine *e;

    if (n->returning && !pass_gate(n, &n->with_guest, &forced))
        give_up(n);
    factory = calloc(1, sizeof(*factory));
    if (!factory)
        abort();
    *factory = (struct guest_factory){make_guest, destroy_guest, n};
    n->owner = (struct engine_owner){n, factory, on_event, on_guest_ended, on_promoted, on_migrated};
    n->transport = sim_transport_new(n->host);
    if (n->with_guest)
        power_on(n, forced);
    e = engine_new("vm", n->guest, n->transport, &n->owner, &err);
    if (!e || !engine_listen(e, NULL, &err))
        sim_fail("the engine does not start: %s", error_get_pretty(err));
    n->engine = e;
    n->booted = true;
    sim_trace("booted %s", n->with_guest ? "with a guest" : "as a standby");
}

static struct sim_node *boot(unsigned machine, unsigned life, bool with_guest, bool returning)
{
    struct sim_node *n = calloc(1, sizeof(*n));
    char name[16];

    if (!n)
        abort();
    snprintf(name, sizeof(name), "%c%u", 'A' + machine, life);
    n->host = sim_host_new(name, machine);
    n->machine = machine;
    n->with_guest = with_guest;
    n->returning = returning;
    n->registries = registry_context_new();
    if (!n->registries)
        abort();
    sim_host_set_data(n->host, n);
    sim_spawn(n->host, "boot", boot_main, n);
    return n;
}

struct sim_node *sim_node_boot(unsigned machine, unsigned life, bool with_guest)
{
    return boot(machine, life, with_guest, false);
}

struct sim_node *sim_node_return(unsigned machine, unsigned life)
{
    return boot(machine, life, false, true);
}

struct sim_node *sim_node_run(unsigned machine, unsigned life)
{
    struct sim_node *n = boot(machine, life, false, true);

    n->only_to_run = true;
    return n;
}

void sim_node_on_gate(const struct sim_gate_watch *w)
{
    gate_watch = *w;
}

static void quit_main(void *arg)
{
    struct sim_node *n = arg;
    Engine *e = n->engine;

    engine_quit(e); /* commands under way return */
    while (n->commands)
        sim_sleep(NS_PER_MS);
    n->engine = NULL;
    engine_free(e);
    sim_guest_free((SimGuest *)n->guest);
    sim_transport_free(n->transport);
    if (n->made && n->made != n->guest)
        sim_fail("the guest that the engine made is left behind");
    free(n->owner.factory);
    sim_trace("quit");
    n->gone = true;
    sim_link_host_died(n->host, DEATH_PROCESS);
    sim_host_kill(n->host);
}

void sim_node_quit(struct sim_node *n)
{
    n->quitting = true;
    sim_spawn(n->host, "quit", quit_main, n);
}

void sim_node_crash(struct sim_node *n, enum sim_death how)
{
    static const char *const ways[] = {"power", "silently", "process"};

    if (sim_host_state(n->host) == SIM_HOST_DEAD)
        return;
    crashes++;
    sim_trace("%s dies (%s)", sim_host_name(n->host), ways[how]);
    sim_store_crash(n->machine, how);
    sim_link_host_died(n->host, how);
    sim_host_kill(n->host);
}

static bool (*doomed)(struct sim_node *n);

static void crash_now(SimHost *h)
{
    struct sim_node *n = node_of(h);

    if (!doomed || !doomed(n))
        sim_node_crash(n, DEATH_SILENT);
}

void sim_node_on_doom(bool (*fn)(struct sim_node *n))
{
    doomed = fn;
}

unsigned sim_node_crashes(void)
{
    return crashes;
}

void sim_node_crash_after(struct sim_node *n, uint64_t bytes)
{
    sim_trace("%s will die after %llu bytes", sim_host_name(n->host), (unsigned long long)bytes);
    sim_link_crash_after(n->host, bytes, crash_now);
}

void sim_node_crash_in_epoch(struct sim_node *n, unsigned nth, uint64_t bytes)
{
    sim_trace("%s will die in its epoch %u from now, %llu bytes after the pages", sim_host_name(n->host), nth,
              (unsigned long long)bytes);
    sim_link_send_finely(n->host);
    n->die_in = nth;
    n->die_bytes = bytes;
}

void sim_node_sent_pages(SimHost *h)
{
    struct sim_node *n = node_of(h);

    if (n && n->die_in && !--n->die_in)
        sim_link_crash_after(h, n->die_bytes, crash_now);
}

/* --- commands --- */

static bool run_command(struct command *c, Error **errp)
{
    struct engine_migrate_params m = migrate_params;
    struct engine_params p = params;
    Engine *e = c->node->engine;

    snprintf(p.to, sizeof(p.to), "sim:%u", c->to);
    snprintf(m.to, sizeof(m.to), "%s", p.to);
    switch (c->what) {
    case NODE_PROTECT:
    case NODE_CHECK:
        return engine_protect(e, &p, c->what == NODE_CHECK, errp);
    case NODE_UNPROTECT:
    case NODE_UNPROTECT_FORCE:
        return engine_unprotect(e, c->what == NODE_UNPROTECT_FORCE, errp);
    case NODE_FAILOVER:
    case NODE_FAILOVER_DEAD:
        return engine_failover(e, c->what == NODE_FAILOVER_DEAD, errp);
    case NODE_SWAP:
        return engine_swap(e, false, errp);
    case NODE_MIGRATE:
        return engine_migrate(e, &m, errp);
    case NODE_MIGRATE_CANCEL:
        return engine_migrate_cancel(e, false, errp);
    case NODE_MIGRATE_RECOVER:
        return engine_migrate_recover(e, NULL, errp);
    case NODE_MOVE_BACKUP:
        return engine_move_backup(e, p.to, errp);
    }
    return false;
}

static void command_main(void *arg)
{
    static const char *const names[] = {"protect",        "check",
                                        "unprotect",      "unprotect --force",
                                        "failover",       "failover --peer-is-dead",
                                        "swap",           "migrate",
                                        "migrate-cancel", "migrate-recover",
                                        "migrate-backup"};
    struct command *c = arg;
    Error *err = NULL;

    sim_trace("%s: begins", names[c->what]);
    c->ok = run_command(c, &err);
    sim_trace("%s: %s", names[c->what], c->ok ? "done" : error_get_pretty(err));
    if (!c->ok)
        snprintf(c->error, sizeof(c->error), "%s", error_get_pretty(err));
    error_free(err);
    c->node->commands--;
    c->done = true;
}

struct command *sim_node_command(struct sim_node *n, enum node_command what, unsigned to)
{
    struct command *c = calloc(1, sizeof(*c));

    if (!c)
        abort();
    c->node = n;
    c->what = what;
    c->to = to;
    n->commands++;
    sim_spawn(n->host, "command", command_main, c);
    return c;
}

/* --- looked at --- */

bool sim_node_alive(const struct sim_node *n)
{
    return n && n->booted && n->engine && !n->quitting && sim_host_state(n->host) != SIM_HOST_DEAD;
}

enum engine_role sim_node_role(const struct sim_node *n)
{
    return n->engine->role;
}

enum engine_state sim_node_state(const struct sim_node *n)
{
    return n->engine->state;
}

bool sim_node_finished(const struct sim_node *n)
{
    return n->ended || (sim_node_role(n) == ENGINE_PRIMARY &&
                        (sim_node_state(n) == ENGINE_FENCED || sim_node_state(n) == ENGINE_MIGRATED));
}

static bool in_postcopy(const struct sim_node *n)
{
    return sim_node_role(n) == ENGINE_PRIMARY &&
           (sim_node_state(n) == ENGINE_POSTCOPY || sim_node_state(n) == ENGINE_POSTCOPY_PAUSED);
}

bool sim_node_serves(const struct sim_node *n)
{
    return in_postcopy(n) && n->engine->serves;
}

bool sim_node_lacks(const struct sim_node *n)
{
    Guest *g = n->guest ? n->guest : n->made;

    return g && (in_postcopy(n) || sim_node_state(n) == ENGINE_PROMOTING) && !sim_node_serves(n) &&
           sim_guest_lacks((SimGuest *)g);
}

bool sim_node_runs(const struct sim_node *n)
{
    return sim_node_alive(n) && n->guest && sim_node_role(n) == ENGINE_PRIMARY && !sim_node_finished(n) &&
           !sim_node_serves(n) && sim_guest_runs((SimGuest *)n->guest);
}

static const struct session *session_of(const struct sim_node *n)
{
    const Engine *e = n->engine;

    return e->role == ENGINE_BACKUP && !e->session_ended ? e->session : NULL;
}

bool sim_node_has_let_go(const struct sim_node *n)
{
    const struct session *s = sim_node_alive(n) ? session_of(n) : NULL;

    return s && (s->closing || n->letting_go) && sim_node_state(n) == ENGINE_STANDBY;
}

bool sim_node_is_successor(const struct sim_node *n)
{
    const struct session *s = sim_node_alive(n) ? session_of(n) : NULL;

    return s && s->hello.kind == WIRE_KIND_SUCCESSOR && sim_node_state(n) == ENGINE_SYNCING && !s->closing &&
           !s->link.down;
}

uint64_t sim_node_generation(const struct sim_node *n)
{
    return n->engine->generation;
}

const char *sim_node_pair(const struct sim_node *n)
{
    return n->engine->pair;
}

bool sim_node_same_pair(const struct sim_node *a, const struct sim_node *b)
{
    return sim_node_generation(a) == sim_node_generation(b) && !strcmp(sim_node_pair(a), sim_node_pair(b));
}

const char *sim_node_error(const struct sim_node *n)
{
    return n->engine->last_error;
}

SimGuest *sim_node_guest(const struct sim_node *n)
{
    return (SimGuest *)n->guest;
}
