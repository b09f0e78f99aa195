/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of states, and the arbiters that ask real files and programs. */
#include "base/task.h"
#include "engine/arbiter.h"
#include "engine/state.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* --- states and arbiters --- */

static void test_states(void **state)
{
    (void)state;
    assert_true(
        engine_transition_allowed(ENGINE_PRIMARY, ENGINE_UNPROTECTED, ENGINE_PRIMARY, ENGINE_SYNCING));
    assert_false(
        engine_transition_allowed(ENGINE_PRIMARY, ENGINE_FENCED, ENGINE_PRIMARY, ENGINE_UNPROTECTED));
    assert_false(
        engine_transition_allowed(ENGINE_BACKUP, ENGINE_STANDBY, ENGINE_PRIMARY, ENGINE_UNPROTECTED));
    for (int i = 0; i < engine_transition_count; i++)
        assert_int_not_equal(engine_transitions[i].from, ENGINE_FENCED);
}

static enum arbiter_answer ask(const char *spec, uint64_t generation, enum arbiter_side side)
{
    struct arbiter_claim c = {.pair = "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11",
                              .generation = generation,
                              .side = side,
                              .vm = "vm",
                              .peer = "memory:b"};
    Arbiter *a = arbiter_new(spec, NULL);
    enum arbiter_answer answer;

    assert_non_null(a);
    assert_string_equal(a->kind, spec);
    answer = arbiter_claim(a, &c, clock_now() + 300 * NS_PER_MS, NULL);
    arbiter_free(a);
    return answer;
}

static void test_file_arbiter(void **state)
{
    char dir[] = "/tmp/test_arbiter.XXXXXX", spec[64], path[128];

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(spec, sizeof(spec), "file:%s", dir);
    assert_int_equal(ask(spec, 1, ARBITER_BACKUP), ARBITER_GRANTED);
    assert_int_equal(ask(spec, 1, ARBITER_PRIMARY), ARBITER_DENIED);
    assert_int_equal(ask(spec, 1, ARBITER_BACKUP), ARBITER_GRANTED);
    assert_int_equal(ask(spec, 2, ARBITER_PRIMARY), ARBITER_GRANTED);
    assert_int_equal(ask(spec, 2, ARBITER_BACKUP), ARBITER_DENIED);
    for (int i = 1; i <= 2; i++) {
        snprintf(path, sizeof(path), "%s/0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11.%d", dir, i);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(dir), 0); /* nothing else was left there */
    assert_null(arbiter_new(spec, NULL));
}

/* A file system that hangs: this stands in front of the C library's. */
static bool fs_hangs;

int fsync(int fd)
{
    (void)fd;
    while (__atomic_load_n(&fs_hangs, __ATOMIC_ACQUIRE))
        task_sleep_until(clock_now() + NS_PER_MS);
    return 0;
}

static bool given_up_at_once(void *opaque)
{
    (void)opaque;
    return true;
}

static void test_file_arbiter_hangs(void **state)
{
    char dir[] = "/tmp/test_arbiter.XXXXXX", spec[64], command[64];
    struct arbiter_claim c = {
        .pair = "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11", .generation = 1, .vm = "vm", .peer = "b"};
    Error *err = NULL;
    Arbiter *a;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(spec, sizeof(spec), "file:%s", dir);
    a = arbiter_new(spec, NULL);
    __atomic_store_n(&fs_hangs, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) { /* the second one waits for the first */
        assert_int_equal(arbiter_claim(a, &c, clock_now() + 20 * NS_PER_MS, &err), ARBITER_UNKNOWN);
        assert_non_null(strstr(error_get_pretty(err), "does not answer"));
        error_free(err);
        err = NULL;
    }
    c.given_up = given_up_at_once;
    assert_int_equal(arbiter_claim(a, &c, TIME_NEVER, NULL), ARBITER_UNKNOWN);
    c.given_up = NULL;
    __atomic_store_n(&fs_hangs, false, __ATOMIC_RELEASE);
    assert_int_equal(arbiter_claim(a, &c, TIME_NEVER, NULL), ARBITER_GRANTED);
    arbiter_free(a);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void write_script(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fprintf(f, "#!/bin/sh\n%s\n", text);
    fclose(f);
}

static void test_command_arbiter(void **state)
{
    char dir[] = "/tmp/test_arbiter.XXXXXX", path[64], spec[80], command[128];

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/arbiter", dir);
    snprintf(spec, sizeof(spec), "command:%s", path);
    snprintf(command, sizeof(command), "chmod 755 %s", path);
    write_script(path, "[ $PERDURE_SIDE = primary ] || exit $((PERDURE_GENERATION))\n[ $PERDURE_VM = vm ]");
    assert_int_equal(system(command), 0);
    assert_int_equal(ask(spec, 1, ARBITER_PRIMARY), ARBITER_GRANTED);
    assert_int_equal(ask(spec, 1, ARBITER_BACKUP), ARBITER_DENIED);
    assert_int_equal(ask(spec, 2, ARBITER_BACKUP), ARBITER_UNKNOWN);
    write_script(path, "sleep 30");
    assert_int_equal(ask(spec, 1, ARBITER_PRIMARY), ARBITER_UNKNOWN);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void claim_in_vain(void *arg)
{
    struct arbiter_claim c = {
        .pair = "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11", .generation = 1, .vm = "vm", .peer = "b"};

    assert_int_equal(arbiter_claim(arg, &c, TIME_NEVER, NULL), ARBITER_UNKNOWN);
}

/* The process is about to end without waiting for the claim: its command does not outlive it. */
static void test_command_is_killed(void **state)
{
    char dir[] = "/tmp/test_arbiter.XXXXXX", path[64], started[64], spec[80], command[64];
    Arbiter *a;
    Task *t;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/arbiter", dir);
    snprintf(started, sizeof(started), "%s/started", dir);
    snprintf(spec, sizeof(spec), "command:%s", path);
    write_script(path, "touch ${0%/*}/started\nsleep 600");
    assert_int_equal(chmod(path, 0755), 0);
    a = arbiter_new(spec, NULL);
    t = task_start("claim", claim_in_vain, a, NULL);
    while (access(started, F_OK))
        task_sleep_until(clock_now() + NS_PER_MS);
    arbiter_kill_all();
    task_join(t);
    claim_in_vain(a);
    arbiter_free(a);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_file_arbiter),
        cmocka_unit_test(test_file_arbiter_hangs),
        cmocka_unit_test(test_command_arbiter),
        cmocka_unit_test(test_command_is_killed), /* the last: none starts after it */
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
