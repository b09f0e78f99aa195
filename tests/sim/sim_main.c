/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sim: runs seeds, each in a process of its own, and tells which failed (docs/simulator.md).
 */
#include "sim_arbiter.h"
#include "sim_guest.h"
#include "sim_history.h"
#include "sim_link.h"
#include "sim_node.h"
#include "sim_observer.h"
#include "sim_scenario.h"

#include "base/fault.h"
#include "base/log.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#define LEAKS() __lsan_do_recoverable_leak_check()
#else
#define LEAKS() 0
#endif

#define SECONDS_PER_SEED 120 /* of real time, before a run counts as hung */

/* The bugs that the checkers must find: fault points in the engine and under it. */
static const char *const plants[] = {
    "engine.release_before_ack",
    "engine.apply_half_epoch",
    "engine.go_on_without_asking",
    "engine.swap_runs_open",          /* a new primary before it is protected */
    "journal.no_drain",               /* a takeover runs before the journal is in place */
    "disks.sync_overtakes_write",     /* an old chunk over a newer write */
    "disks.sync_ends_early",          /* a takeover runs on half a disk */
    "journal.no_sync_before_apply",   /* a standby dies half-way through an epoch */
    "disks.run_without_asking",       /* a former primary's disk, and the other side went on */
    "engine.claim_after_let_go",      /* a backup that has moved away, and its successor has not failed */
    "engine.successor_claims_untold", /* the backup before it is one still */
    "engine.successor_misses_epochs", /* what they changed while it was brought up to date */
};
#define PLANTS (sizeof(plants) / sizeof(plants[0]))

struct result {
    uint64_t hash, switches;
    char summary[160];
};

static const char *plant;
static bool tracing, verbose, only_moving;

static void log_to_trace(enum log_level level, const char *text)
{
    sim_trace("%s%s", level == LOG_LEVEL_WARN ? "warning: " : "", text);
}

static struct result simulate(uint64_t seed)
{
    struct result r = {0};
    SimHost *world;

    sim_runtime_init(seed);
    sim_trace_print(tracing);
    log_set_sink(log_to_trace);
    sim_link_init(seed);
    sim_arbiter_init(seed);
    sim_store_init(seed);
    sim_guest_init(seed);
    sim_node_init(seed);
    observer_init(sim_node_sent_pages);
    history_begin();
    if (plant)
        fault_arm(plant, 0);
    world = sim_host_new("world", SIM_MACHINES - 1);
    scenario_start(world, seed);
    sim_run();
    r.hash = sim_trace_hash();
    r.switches = sim_switches();
    scenario_summary(r.summary, sizeof(r.summary));
    /* What a host had when it died is leaked by nature. */
    if (!sim_node_crashes() && LEAKS())
        sim_fail("memory is leaked");
    return r;
}

static void on_abort(int signal)
{
    (void)signal;
    sim_fail("an assertion, or an endless loop");
}

static void child(uint64_t seed, int fd)
{
    char title[64];
    struct result r;

    signal(SIGABRT, on_abort);
    signal(SIGALRM, on_abort);
    alarm(SECONDS_PER_SEED);
    snprintf(title, sizeof(title), "seed %llu ", (unsigned long long)seed);
    sim_set_title(title);
    r = simulate(seed);
    fflush(stdout);
    _exit(write(fd, &r, sizeof(r)) == sizeof(r) ? 0 : 1);
}

struct run {
    pid_t pid;
    int fd;
    uint64_t seed;
    char log[32];
};

/* What the child prints is kept until it is known whether anybody wants to read it. */
static struct run start(uint64_t seed)
{
    struct run r = {.seed = seed, .log = "/tmp/perdure-sim-XXXXXX"};
    int fds[2], log = mkstemp(r.log);

    fflush(stdout);
    if (log < 0 || pipe(fds) || (r.pid = fork()) < 0) {
        perror("sim");
        exit(1);
    }
    if (!r.pid) {
        close(fds[0]);
        if (!tracing) {
            dup2(log, STDOUT_FILENO);
            dup2(log, STDERR_FILENO);
        }
        child(seed, fds[1]);
    }
    close(log);
    close(fds[1]);
    r.fd = fds[0];
    return r;
}

static void show(const char *path)
{
    FILE *f = fopen(path, "r");
    int c;

    while (f && (c = getc(f)) != EOF)
        putchar(c);
    if (f)
        fclose(f);
}

/* True: no checker complained. quiet: of a planted bug nobody wants the whole story. */
static bool finish(struct run *r, struct result *ret_result, bool quiet)
{
    bool whole = read(r->fd, ret_result, sizeof(*ret_result)) == sizeof(*ret_result);
    int status;

    close(r->fd);
    waitpid(r->pid, &status, 0);
    if (status && !quiet) {
        show(r->log);
        if (WIFSIGNALED(status))
            printf("seed %llu FAILED: %s\n", (unsigned long long)r->seed, strsignal(WTERMSIG(status)));
        printf("    again: build/tests/sim/sim --seed %llu --trace\n", (unsigned long long)r->seed);
    }
    unlink(r->log);
    return !status && whole;
}

#define JOBS_MAX 16

/* Runs the seeds first..last, several at a time; returns how many failed. stop: at the first failure, whose
 * seed it returns. */
static uint64_t sweep(uint64_t first, uint64_t last, int jobs, bool stop, uint64_t *ret_seed)
{
    struct run runs[JOBS_MAX];
    uint64_t next = first, failed = 0, begun = 0, done = 0;

    while (done < begun || (next <= last && !(stop && failed))) {
        struct result r;

        while (begun - done < (uint64_t)jobs && next <= last && !(stop && failed)) {
            if (!only_moving || scenario_moves(next))
                runs[begun++ % JOBS_MAX] = start(next);
            next++;
        }
        if (done == begun)
            break;
        if (!finish(&runs[done % JOBS_MAX], &r, stop)) {
            if (!failed++ && ret_seed)
                *ret_seed = runs[done % JOBS_MAX].seed;
        } else if (verbose) {
            printf("seed %llu: %s\n", (unsigned long long)runs[done % JOBS_MAX].seed, r.summary);
        }
        done++;
    }
    return failed;
}

static bool replays(uint64_t seed)
{
    struct result a, b;
    struct run r = start(seed);
    bool ok = finish(&r, &a, false);

    r = start(seed);
    ok = finish(&r, &b, false) && ok;
    if (ok && (a.hash != b.hash || a.switches != b.switches)) {
        printf("seed %llu FAILED: the second run differs from the first\n", (unsigned long long)seed);
        ok = false;
    }
    return ok;
}

/* Found is what fails with the bug and passes without it. */
static bool finds(const char *name, uint64_t seeds, int jobs)
{
    uint64_t seed = 0, first = 1;

    while (first <= seeds) {
        bool found;

        plant = name;
        found = sweep(first, seeds, jobs, true, &seed);
        plant = NULL;
        if (!found)
            break;
        if (!sweep(seed, seed, 1, true, NULL)) {
            printf("planted %s: found by seed %llu\n", name, (unsigned long long)seed);
            return true;
        }
        first = seed + 1;
    }
    printf("FAILED: planted %s is not found by %llu seeds\n", name, (unsigned long long)seeds);
    return false;
}

/* All that check-sim asks. Each seed is a test, and each planted bug, and that a seed replays. */
static int check(uint64_t seeds, int jobs, uint64_t passed_before)
{
    uint64_t failed = sweep(1, seeds, jobs, false, NULL), passed = passed_before + seeds - failed;

    for (size_t i = 0; i < PLANTS; i++) {
        bool found = finds(plants[i], seeds < 1000 ? 1000 : seeds, jobs);

        passed += found;
        failed += !found;
    }
    for (uint64_t seed = 1; seed <= 5; seed++) {
        bool same = replays(seed);

        passed += same;
        failed += !same;
    }
    printf("sim: %llu passed, %llu failed, 0 skipped\n", (unsigned long long)passed,
           (unsigned long long)failed);
    return failed > 0;
}

static void usage(FILE *f)
{
    fputs("sim --check [--seeds N] [--jobs N]   what `make check-sim` runs\n"
          "sim [--first F] [--seeds N] [--plant NAME]   seeds F (1) to N (1000), with a planted bug\n"
          "sim --seed S [--trace]               one seed, with its history\n"
          "    --verbose: a line for each seed; --moving: only seeds in which the backup moves\n",
          f);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seeds", 1, NULL, 'n'},  {"first", 1, NULL, 'f'}, {"seed", 1, NULL, 's'},    {"trace", 0, NULL, 't'},
        {"plant", 1, NULL, 'p'},  {"jobs", 1, NULL, 'j'},  {"verbose", 0, NULL, 'v'}, {"check", 0, NULL, 'c'},
        {"moving", 0, NULL, 'm'}, {"help", 0, NULL, 'h'},  {NULL, 0, NULL, 0},
    };
    uint64_t seeds = 1000, first = 1, failed;
    int jobs = (int)sysconf(_SC_NPROCESSORS_ONLN), c;
    bool checking = false;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'n':
            seeds = strtoull(optarg, NULL, 0);
            break;
        case 's':
            first = seeds = strtoull(optarg, NULL, 0);
            break;
        case 'f':
            first = strtoull(optarg, NULL, 0);
            break;
        case 't':
            tracing = true;
            break;
        case 'p':
            plant = optarg;
            break;
        case 'j':
            jobs = atoi(optarg);
            break;
        case 'v':
            verbose = true;
            break;
        case 'm':
            only_moving = true;
            break;
        case 'c':
            checking = true;
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (jobs < 1 || jobs > JOBS_MAX)
        jobs = jobs < 1 ? 1 : JOBS_MAX;
    if (checking)
        return check(seeds, jobs, 0);
    failed = sweep(first, seeds, jobs, false, NULL);
    printf("%llu of %llu seeds failed\n", (unsigned long long)failed,
           (unsigned long long)(seeds - first + 1));
    return failed > 0;
}
