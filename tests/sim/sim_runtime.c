/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_runtime.h"

#include "base/random.h"
#include "sim_fiber.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPIN_LIMIT   2000000u /* switches without the clock moving: somebody spins */
#define SWITCH_LIMIT UINT64_C(60000000)

struct SimHost {
    SimHost *next;
    char name[24];
    unsigned machine;
    enum sim_host_state state;
    int64_t clock_offset; /* its clock_now() minus the world's */
    void *data;
};

enum fiber_state { READY, BLOCKED, DONE };

struct Task {
    Task *next, *prev;
    SimHost *host;
    Fiber *fiber;
    char name[16];
    unsigned id;
    void (*fn)(void *arg);
    void *arg;
    enum fiber_state state;
    const void *on; /* BLOCKED: what it waits for; may be NULL (only time) */
    const char *why;
    int64_t deadline; /* world time */
    bool timed_out;
};

static SimHost *hosts;
static Task *tasks; /* oldest last */
static Task *current;
static SimHost *running_host; /* of the last fiber that ran */
static void (*host_switch)(SimHost *from, SimHost *to);
static int64_t now;
static unsigned next_id;
static bool stopped;
static uint64_t switches, switches_at_this_time;
static unsigned mutex_waiters;
static struct sim_rng schedule_rng, bytes_rng;
static uint64_t preempt_one_in; /* 0: never */
static int64_t preempt_max_ns;

/* --- hosts --- */

SimHost *sim_host_new(const char *name, unsigned machine)
{
    SimHost *h = calloc(1, sizeof(*h));

    if (!h)
        abort();
    snprintf(h->name, sizeof(h->name), "%s", name);
    h->machine = machine;
    h->clock_offset = sim_rng_range(&schedule_rng, 0, 1000 * NS_PER_S);
    h->next = hosts;
    hosts = h;
    return h;
}

const char *sim_host_name(const SimHost *h)
{
    return h ? h->name : "-";
}

unsigned sim_host_machine(const SimHost *h)
{
    return h->machine;
}

enum sim_host_state sim_host_state(const SimHost *h)
{
    return h->state;
}

SimHost *sim_host_current(void)
{
    return current ? current->host : NULL;
}

void sim_host_set_data(SimHost *h, void *data)
{
    h->data = data;
}

void *sim_host_data(const SimHost *h)
{
    return h->data;
}

void sim_on_host_switch(void (*fn)(SimHost *from, SimHost *to))
{
    host_switch = fn;
}

void sim_host_kill(SimHost *h)
{
    if (h->state == SIM_HOST_DEAD)
        return;
    h->state = SIM_HOST_DEAD;
    if (current && current->host == h)
        fiber_leave(current->fiber, 1);
}

void sim_host_freeze(SimHost *h)
{
    if (h->state == SIM_HOST_UP)
        h->state = SIM_HOST_FROZEN;
    if (current && current->host == h)
        sim_yield();
}

void sim_host_thaw(SimHost *h)
{
    if (h->state == SIM_HOST_FROZEN)
        h->state = SIM_HOST_UP;
}

/* --- time --- */

int64_t sim_now(void)
{
    return now;
}

static int64_t host_now(void)
{
    return now + (current ? current->host->clock_offset : 0);
}

int64_t sim_from_host_time(const SimHost *h, int64_t t)
{
    return t == TIME_NEVER || !h ? t : t - h->clock_offset;
}

uint64_t sim_switches(void)
{
    return switches;
}

/* --- the scheduler --- */

static void fiber_main(void *arg)
{
    Task *t = arg;

    t->fn(t->arg);
    t->state = DONE;
    sim_wake(t);
    fiber_leave(t->fiber, 1);
}

Task *sim_spawn(SimHost *h, const char *name, void (*fn)(void *arg), void *arg)
{
    Task *t = calloc(1, sizeof(*t));

    if (!t)
        abort();
    t->host = h;
    t->fn = fn;
    t->arg = arg;
    t->id = ++next_id;
    t->deadline = TIME_NEVER;
    snprintf(t->name, sizeof(t->name), "%s", name);
    t->fiber = fiber_new(fiber_main, t);
    t->next = tasks;
    if (tasks)
        tasks->prev = t;
    tasks = t;
    return t;
}

static void task_remove(Task *t)
{
    if (t->prev)
        t->prev->next = t->next;
    else
        tasks = t->next;
    if (t->next)
        t->next->prev = t->prev;
    fiber_free(t->fiber);
    free(t);
}

bool sim_finished(const Task *t)
{
    return t->state == DONE;
}

static bool can_run(Task *t)
{
    if (t->host->state != SIM_HOST_UP)
        return false;
    if (t->state == BLOCKED && t->deadline <= now) {
        t->state = READY;
        t->timed_out = true;
    }
    return t->state == READY;
}

static Task *choose(void)
{
    Task *chosen = NULL;
    uint64_t n = 0;

    for (Task *t = tasks; t; t = t->next)
        n += can_run(t);
    if (!n)
        return NULL;
    n = n == 1 ? 0 : sim_rng_below(&schedule_rng, n);
    for (Task *t = tasks; t && !chosen; t = t->next)
        if (t->state == READY && t->host->state == SIM_HOST_UP && n-- == 0)
            chosen = t;
    return chosen;
}

static void jump(void)
{
    int64_t next = TIME_NEVER;

    for (Task *t = tasks; t; t = t->next)
        if (t->state == BLOCKED && t->host->state == SIM_HOST_UP && t->deadline < next)
            next = t->deadline;
    if (next == TIME_NEVER)
        sim_fail("deadlock: no fiber can ever run again");
    now = next;
    switches_at_this_time = 0;
}

static void run_one(Task *t)
{
    if (t->host != running_host && host_switch)
        host_switch(running_host, t->host);
    running_host = t->host;
    current = t;
    switches++;
    fiber_enter(t->fiber);
    current = NULL;
    if (++switches_at_this_time > SPIN_LIMIT)
        sim_fail("fibers spin without time going on; the last was %s on %s", t->name, t->host->name);
    if (switches > SWITCH_LIMIT)
        sim_fail("too many switches: something works without end");
}

static void step(void)
{
    Task *t = choose();

    if (t)
        run_one(t);
    else
        jump();
}

void sim_run(void)
{
    while (!stopped)
        step();
}

void sim_run_until(Task *t)
{
    while (t->state != DONE)
        step();
    task_remove(t);
}

void sim_stop(void)
{
    stopped = true;
    sim_yield();
}

static bool block(const void *on, int64_t deadline, const char *why)
{
    Task *t = current;

    t->state = BLOCKED;
    t->on = on;
    t->why = why;
    t->deadline = deadline;
    t->timed_out = false;
    fiber_leave(t->fiber, 0);
    t->on = NULL;
    t->deadline = TIME_NEVER;
    return !t->timed_out;
}

bool sim_block(const void *on, int64_t deadline)
{
    return block(on, deadline, "event");
}

void sim_wake(const void *on)
{
    for (Task *t = tasks; t; t = t->next)
        if (t->state == BLOCKED && t->on == on)
            t->state = READY;
}

void sim_sleep(int64_t ns)
{
    int64_t end = now + ns;

    while (now < end)
        block(NULL, end, "sleep");
}

void sim_yield(void)
{
    fiber_leave(current->fiber, 0);
}

/* Between any two locks a thread may lose its processor, for a moment or for longer. */
static void preempt(void)
{
    if (!current || !preempt_one_in || !sim_rng_one_in(&schedule_rng, preempt_one_in))
        return;
    if (preempt_max_ns)
        sim_sleep(sim_rng_range(&schedule_rng, 0, preempt_max_ns));
    else
        sim_yield();
}

/* --- struct task_runtime --- */

static Task *rt_start(const char *name, void (*fn)(void *arg), void *arg, Error **errp)
{
    (void)errp;
    return sim_spawn(current->host, name, fn, arg);
}

static void rt_join(Task *t)
{
    while (t->state != DONE)
        block(t, TIME_NEVER, "join");
    task_remove(t);
}

static void rt_mutex_init(struct task_mutex *m)
{
    m->owner = NULL;
}

static void rt_mutex_destroy(struct task_mutex *m)
{
    if (m->owner)
        sim_fail("a mutex is destroyed while %s holds it", ((Task *)m->owner)->name);
}

static void rt_lock(struct task_mutex *m)
{
    preempt();
    if (m->owner == current)
        sim_fail("%s locks a mutex that it holds", current->name);
    while (m->owner) {
        mutex_waiters++;
        block(m, TIME_NEVER, "mutex");
        mutex_waiters--;
    }
    m->owner = current;
}

static void rt_unlock(struct task_mutex *m)
{
    if (m->owner != current)
        sim_fail("%s unlocks a mutex that it does not hold", current->name);
    m->owner = NULL;
    if (mutex_waiters)
        sim_wake(m);
    preempt();
}

static void rt_cond_init(struct task_cond *c)
{
    c->waiters = NULL;
}

static void rt_cond_destroy(struct task_cond *c)
{
    for (Task *t = tasks; t; t = t->next)
        if (t->state == BLOCKED && t->on == c && t->host->state != SIM_HOST_DEAD)
            sim_fail("a condition is destroyed while %s waits for it", t->name);
}

static bool rt_wait_until(struct task_cond *c, struct task_mutex *m, int64_t deadline)
{
    bool woken;

    if (m->owner != current)
        sim_fail("%s waits without its mutex", current->name);
    m->owner = NULL;
    if (mutex_waiters)
        sim_wake(m);
    woken = block(c, sim_from_host_time(current->host, deadline), "condition");
    rt_lock(m);
    return woken;
}

static void rt_broadcast(struct task_cond *c)
{
    sim_wake(c);
}

static const struct task_runtime runtime = {
    .now = host_now,
    .start = rt_start,
    .join = rt_join,
    .mutex_init = rt_mutex_init,
    .mutex_destroy = rt_mutex_destroy,
    .lock = rt_lock,
    .unlock = rt_unlock,
    .cond_init = rt_cond_init,
    .cond_destroy = rt_cond_destroy,
    .wait_until = rt_wait_until,
    .broadcast = rt_broadcast,
};

static void seeded_bytes(void *buf, size_t n)
{
    uint8_t *p = buf;

    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)sim_rng_next(&bytes_rng);
}

void sim_runtime_init(uint64_t seed)
{
    static const uint64_t one_in[] = {0, 200, 20, 4};

    schedule_rng = sim_rng_make(seed, 1);
    bytes_rng = sim_rng_make(seed, 2);
    preempt_one_in = one_in[sim_rng_below(&schedule_rng, 4)];
    preempt_max_ns = sim_rng_one_in(&schedule_rng, 2) ? 0 : 20 * NS_PER_US;
    now = NS_PER_S;
    switches = switches_at_this_time = 0;
    task_set_runtime(&runtime);
    random_set_source(seeded_bytes);
}

/* --- a failure's report --- */

void sim_dump_tasks(void)
{
    static const char *const host_states[] = {"up", "frozen", "dead"};

    for (Task *t = tasks; t; t = t->next) {
        if (t->state == DONE || t->host->state == SIM_HOST_DEAD)
            continue;
        printf("    %s/%s (%s)", t->host->name, t->name, host_states[t->host->state]);
        if (t == current)
            printf(" runs\n");
        else if (t->state == READY)
            printf(" is ready\n");
        else
            printf(" waits for %s%s\n", t->why, t->deadline == TIME_NEVER ? "" : ", with a deadline");
    }
}
