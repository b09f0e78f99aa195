/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/dispatcher.h"
#include "base/log.h"
#include "base/task.h"
#include "cli/config_file.h"
#include "control/notify.h"
#include "control/run_dir.h"
#include "control/addressee.h"
#include "engine/doorman.h"
#include "stream/handover.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILDREN_MAX 64
#define HELLO_TIME   (5 * NS_PER_S)
#define START_TIME   (25 * NS_PER_S) /* it replays its journal first; a primary waits a little longer */
#define LOOK_AGAIN   (20 * NS_PER_MS)
#define IDLE         "60s"

struct dispatcher {
    const char *config;
    struct task_mutex lock;
    struct child {
        pid_t pid; /* 0: the place is free */
        char name[ADDRESSEE_NAME_MAX];
    } children[CHILDREN_MAX];
};

/* --- processes; lock held --- */

static void reap(struct dispatcher *d)
{
    for (int i = 0; i < CHILDREN_MAX; i++) {
        struct child *c = &d->children[i];

        if (!c->pid || waitpid(c->pid, NULL, WNOHANG) != c->pid)
            continue;
        log_info("%s: its standby process has ended", c->name);
        c->pid = 0;
    }
}

/* The one of that name, or a free place, or NULL. */
static struct child *find_place(struct dispatcher *d, const char *name)
{
    struct child *place = NULL;

    for (int i = 0; i < CHILDREN_MAX; i++) {
        if (!d->children[i].pid)
            place = place ? place : &d->children[i];
        else if (!strcmp(d->children[i].name, name))
            return &d->children[i];
    }
    return place;
}

static bool skip_line(void *opaque, const char *key, const char *value, Error **errp)
{
    (void)opaque, (void)key, (void)value, (void)errp;
    return true;
}

/* A session of its own: what ends the dispatcher, at a terminal too, does not end a machine. */
static int spawn(const char *config, const char *name, pid_t *ret_pid)
{
    char *argv[] = {"perdure",  "standby", "--name", (char *)name, "--config", (char *)config,
                    "--listen", "shared",  "--idle", IDLE,         NULL};
    posix_spawnattr_t attr;
    sigset_t none;
    int errnum;

    sigemptyset(&none);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    errnum = posix_spawn(ret_pid, "/proc/self/exe", NULL, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    return errnum;
}

static bool start(struct dispatcher *d, struct child *c, const char *name, Error **errp)
{
    bool known;
    int errnum;

    if (!config_file_read(d->config, name, skip_line, NULL, &known, errp))
        return false;
    if (!known) {
        error_setg(errp, "%s has no section for a machine %s", d->config, name);
        return false;
    }
    errnum = spawn(d->config, name, &c->pid);
    if (errnum) {
        c->pid = 0;
        error_setg_errno(errp, errnum, "cannot start a standby for %s", name);
        return false;
    }
    memcpy(c->name, name, strlen(name) + 1);
    log_info("%s: started its standby, process %d", name, (int)c->pid);
    return true;
}

/* No lock held from here on. */
static bool ensure_running(struct dispatcher *d, const char *name, Error **errp)
{
    struct child *c;
    bool ok = true;

    task_lock(&d->lock);
    reap(d);
    c = find_place(d, name);
    if (!c) {
        error_setg(errp, "no standby is started for %s: there are %d already", name, CHILDREN_MAX);
        ok = false;
    } else if (!c->pid) {
        ok = start(d, c, name, errp);
    }
    task_unlock(&d->lock);
    return ok;
}

/* --- connections --- */

static bool nobody_there(const Error *err)
{
    return error_get_errno(err) == ENOENT || error_get_errno(err) == ECONNREFUSED;
}

/* To the machine's process, which may have to be started first. */
static bool deliver(struct dispatcher *d, int fd, const char *name, Error **errp)
{
    int64_t deadline = clock_now() + START_TIME;
    Error *err = NULL;
    char path[256];

    if (!run_dir_handover(name, true, path, sizeof(path), errp))
        return false;
    while (!handover_send(path, fd, deadline, &err)) {
        if (!nobody_there(err) || clock_now() > deadline) {
            error_propagate(errp, err);
            return false;
        }
        error_free(err);
        err = NULL;
        if (!ensure_running(d, name, errp))
            return false;
        task_sleep_until(clock_now() + LOOK_AGAIN);
    }
    return true;
}

/* A doorman_check: what it returns is delivered, and only to be closed here. */
static Channel *route(void *opaque, Channel *ch, Error **errp)
{
    char name[ADDRESSEE_NAME_MAX];
    int fd = channel_fd_get(ch);

    if (addressee_find(fd, ch->peer, clock_now() + HELLO_TIME, name, errp)) {
        if (deliver(opaque, fd, name, errp))
            return ch;
        error_prepend(errp, "refused %s: ", ch->peer);
    }
    channel_close(ch);
    return NULL;
}

static bool serve(struct dispatcher *d, Listener *l, Error **errp)
{
    Doorman *doorman = doorman_new(l, route, d, errp);
    Channel *ch;

    if (!doorman)
        return false;
    while ((ch = doorman_accept(doorman, errp)))
        channel_close(ch);
    doorman_free(doorman);
    return false;
}

/* A file that cannot be read is better found out now than when a primary comes. */
static bool check_config(const char *config, Error **errp)
{
    return config_file_read(config, "", skip_line, NULL, NULL, errp);
}

bool dispatcher_run(const char *listen, const char *config, Error **errp)
{
    struct dispatcher d = {0};
    char *path = realpath(config, NULL);
    Listener *l = NULL;
    bool ok = false;

    if (!path) {
        error_setg_errno(errp, errno, "--config %s", config);
        return false;
    }
    d.config = path;
    task_mutex_init(&d.lock);
    if (check_config(path, errp))
        l = listener_new(listen, errp);
    if (l) {
        log_info("listening for all machines of %s on %s", path, listener_address(l));
        notify_service("READY=1");
        unsetenv("NOTIFY_SOCKET"); /* of this process, not of those that it starts */
        ok = serve(&d, l, errp);
    }
    listener_close(l);
    task_mutex_destroy(&d.lock);
    free(path);
    return ok;
}
