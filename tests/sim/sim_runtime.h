/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated computers: fibers instead of threads, a clock that jumps, and a choice from the seed wherever
 * threads would race.
 *
 * One OS thread runs everything. A fiber belongs to a host. A host is up, frozen (its fibers do not run, the
 * clock goes on) or dead (they never run again; what they held is given back when the process ends). When no
 * fiber can run, the clock jumps to the next deadline. The struct task_runtime of base/task.h is implemented
 * here, so that the engine runs on it unchanged; code of the simulator itself waits with sim_block() and
 * needs no locks.
 *
 *     sim_runtime_init(seed);
 *     sim_spawn(sim_host_new("world", 0), "scenario", scenario_main, NULL);
 *     sim_run();                      // until sim_stop()
 */
#ifndef SIM_RUNTIME_H
#define SIM_RUNTIME_H

#include "base/task.h"
#include "sim_random.h"

typedef struct SimHost SimHost;

enum sim_host_state { SIM_HOST_UP, SIM_HOST_FROZEN, SIM_HOST_DEAD };

/* Sets the task runtime and the source of random bytes; again only while there are no fibers. */
void sim_runtime_init(uint64_t seed);
/* Schedules fibers until sim_stop(). */
void sim_run(void);
void sim_stop(void);
/* Schedules fibers until t is finished, and frees it: for a test that has many short scenarios. */
void sim_run_until(Task *t);

/* --- hosts --- */
#define SIM_MACHINES 4
/* One life of a computer: machine (below SIM_MACHINES) stays the same when it is started again. */
SimHost *sim_host_new(const char *name, unsigned machine);
unsigned sim_host_machine(const SimHost *h);
const char *sim_host_name(const SimHost *h);
enum sim_host_state sim_host_state(const SimHost *h);
/* From a fiber of h itself it does not return. */
void sim_host_kill(SimHost *h);
void sim_host_freeze(SimHost *h);
void sim_host_thaw(SimHost *h);
/* The host of the running fiber; NULL in the scheduler. */
SimHost *sim_host_current(void);
/* Called in the scheduler before a fiber of another host than the last runs: swaps what is process-wide in
 * the product. */
void sim_on_host_switch(void (*fn)(SimHost *from, SimHost *to));
/* For whoever needs to find his own data from a host. */
void sim_host_set_data(SimHost *h, void *data);
void *sim_host_data(const SimHost *h);

/* --- time and fibers --- */
/* The world's time. Each host's own clock_now() differs by an offset of its own, as boot times do. */
int64_t sim_now(void);
/* A host's own time in the world's, TIME_NEVER staying what it is. */
int64_t sim_from_host_time(const SimHost *h, int64_t t);
Task *sim_spawn(SimHost *h, const char *name, void (*fn)(void *arg), void *arg);
/* The fiber is finished; task_join() then frees it without waiting. */
bool sim_finished(const Task *t);
/* Waits until sim_wake(on), or the world's time deadline (false). Spurious wakes happen. */
bool sim_block(const void *on, int64_t deadline);
void sim_wake(const void *on);
void sim_sleep(int64_t ns);
/* Lets others run, perhaps. */
void sim_yield(void);
uint64_t sim_switches(void);

/* --- what is written down --- */
/* One event of the history: part of the history's hash, kept for a failure's report, printed when tracing is
 * on. */
void sim_trace(const char *fmt, ...) PERDURE_PRINTF(1, 2);
void sim_trace_print(bool on);
uint64_t sim_trace_hash(void);
/* A checker failed: prints the end of the history, who waits for what, and ends the process with status 1. */
void sim_fail(const char *fmt, ...) PERDURE_PRINTF(1, 2) __attribute__((noreturn));
/* For sim_fail(): every living fiber and what it waits for. */
void sim_dump_tasks(void);
/* Printed in front of a failure. */
void sim_set_title(const char *title);

#endif
