/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * command:PATH: a program of the user's, told by its environment what is claimed. Exit 0 grants, 1 denies;
 * anything else, also a signal and no answer in time, is "unknown". Its standard streams are /dev/null.
 */
#include "engine/arbiter_kinds.h"
#include "base/task.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOK       (10 * NS_PER_MS)
#define KILL_LIMIT NS_PER_S /* for a killed command to be gone: it may hang in the kernel */

/* Of the claim under way: a process has one engine, and that one claim at a time. */
enum { NONE = 0, STARTING = -1, CLOSED = -2 };
static _Atomic pid_t running;

struct command_arbiter {
    Arbiter a;
    char path[1024];
};

/* What a claim adds to our own environment. */
enum { PAIR, GENERATION, SIDE, VM, PEER, ADDED };

struct command_env {
    char text[ADDED][320];
    char **vars; /* NULL-terminated; ours first, so that nothing inherited hides them */
};

static bool env_build(struct command_env *env, const struct arbiter_claim *c)
{
    size_t n = 0;

    snprintf(env->text[PAIR], sizeof(env->text[PAIR]), "PERDURE_PAIR=%s", c->pair);
    snprintf(env->text[GENERATION], sizeof(env->text[GENERATION]), "PERDURE_GENERATION=%" PRIu64,
             c->generation);
    snprintf(env->text[SIDE], sizeof(env->text[SIDE]), "PERDURE_SIDE=%s",
             c->side == ARBITER_PRIMARY ? "primary" : "backup");
    snprintf(env->text[VM], sizeof(env->text[VM]), "PERDURE_VM=%s", c->vm);
    snprintf(env->text[PEER], sizeof(env->text[PEER]), "PERDURE_PEER=%s", c->peer);
    while (environ[n])
        n++;
    env->vars = calloc(n + ADDED + 1, sizeof(*env->vars));
    if (!env->vars)
        return false;
    for (int i = 0; i < ADDED; i++)
        env->vars[i] = env->text[i];
    memcpy(env->vars + ADDED, environ, n * sizeof(*environ));
    return true;
}

/* A command must not inherit what this process holds: sockets and locks would outlive it. Descriptors are
 * close-on-exec; signals are put back to normal. */
static int spawn(const char *path, char **vars, pid_t *ret_pid)
{
    char *argv[] = {(char *)path, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int r;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    for (int fd = 0; fd < 3; fd++)
        posix_spawn_file_actions_addopen(&files, fd, "/dev/null", fd ? O_WRONLY : O_RDONLY, 0);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    r = posix_spawn(ret_pid, path, &files, &attr, argv, vars);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return r;
}

static bool gone(pid_t pid, int *ret_status)
{
    pid_t r = waitpid(pid, ret_status, WNOHANG);

    return r == pid || (r < 0 && errno != EINTR);
}

/* false: it was not done in time, and was killed with all that it started. */
static bool wait_for(pid_t pid, const struct arbiter_claim *c, int64_t deadline, int *ret_status)
{
    int64_t until;

    while (!arbiter_gave_up(c, deadline)) {
        if (gone(pid, ret_status))
            return true;
        task_sleep_until(clock_now() + LOOK);
    }
    kill(-pid, SIGKILL);
    for (until = clock_now() + KILL_LIMIT; !gone(pid, ret_status) && clock_now() < until;)
        task_sleep_until(clock_now() + LOOK);
    return false;
}

static int start(const char *path, char **vars, pid_t *ret_pid)
{
    pid_t none = NONE;
    int errnum;

    if (!atomic_compare_exchange_strong(&running, &none, STARTING))
        return ECANCELED;
    errnum = spawn(path, vars, ret_pid);
    atomic_store(&running, errnum ? NONE : *ret_pid);
    return errnum;
}

static void ended(pid_t pid)
{
    atomic_compare_exchange_strong(&running, &pid, NONE);
}

void arbiter_command_kill(void)
{
    pid_t was = atomic_load(&running);

    while (was == STARTING || !atomic_compare_exchange_strong(&running, &was, CLOSED)) {
        task_sleep_until(clock_now() + NS_PER_MS);
        was = atomic_load(&running);
    }
    if (was > 0)
        kill(-was, SIGKILL);
}

static enum arbiter_answer judge(const char *path, bool done, int status, Error **errp)
{
    if (done && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return ARBITER_GRANTED;
    if (done && WIFEXITED(status) && WEXITSTATUS(status) == 1)
        return ARBITER_DENIED;
    if (!done)
        error_setg(errp, "arbiter command %s did not answer in time", path);
    else if (WIFEXITED(status))
        error_setg(errp, "arbiter command %s exited with %d (0 grants, 1 denies)", path, WEXITSTATUS(status));
    else
        error_setg(errp, "arbiter command %s was ended by signal %d", path, WTERMSIG(status));
    return ARBITER_UNKNOWN;
}

static enum arbiter_answer claim(Arbiter *a, const struct arbiter_claim *c, int64_t deadline, Error **errp)
{
    struct command_arbiter *ca = (struct command_arbiter *)a;
    struct command_env env;
    int status = 0, errnum;
    bool done;
    pid_t pid;

    if (!env_build(&env, c)) {
        error_setg(errp, "out of memory");
        return ARBITER_UNKNOWN;
    }
    errnum = start(ca->path, env.vars, &pid);
    free(env.vars);
    if (errnum) {
        error_setg_errno(errp, errnum, "cannot run arbiter command %s", ca->path);
        return ARBITER_UNKNOWN;
    }
    done = wait_for(pid, c, deadline, &status);
    ended(pid);
    return judge(ca->path, done, status, errp);
}

static void command_free(Arbiter *a)
{
    free(a);
}

static const struct arbiter_ops command_ops = {.claim = claim, .free = command_free};

Arbiter *arbiter_command_new(const char *path, Error **errp)
{
    struct command_arbiter *ca;

    if (strlen(path) >= sizeof(ca->path) || access(path, X_OK)) {
        error_setg(errp, "arbiter command:%s: no program that can be run", path);
        return NULL;
    }
    ca = calloc(1, sizeof(*ca));
    if (!ca) {
        error_setg(errp, "out of memory");
        return NULL;
    }
    ca->a.ops = &command_ops;
    snprintf(ca->path, sizeof(ca->path), "%s", path);
    return &ca->a;
}
