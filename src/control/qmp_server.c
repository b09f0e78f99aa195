/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/qmp_server.h"
#include "base/task.h"
#include "control/qmp_client.h"
#include "stream/channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLIENTS_MAX 64

struct QmpServer {
    const struct qmp_command *commands;
    void *opaque;
    char path[256];
    Listener *listener;
    Task *task;
    struct task_mutex lock; /* clients, stopping */
    struct qmp_client *clients[CLIENTS_MAX];
    bool stopping;
};

/* A free slot; frees the clients that have left. NULL: all are taken. Lock held; only the accepting task
 * calls this. */
static struct qmp_client **find_slot(QmpServer *s)
{
    struct qmp_client **slot = NULL;

    for (int i = 0; i < CLIENTS_MAX; i++) {
        if (s->clients[i] && qmp_client_gone(s->clients[i])) {
            qmp_client_free(s->clients[i]);
            s->clients[i] = NULL;
        }
        if (!s->clients[i])
            slot = &s->clients[i];
    }
    return slot;
}

static void welcome(QmpServer *s, Channel *ch)
{
    struct qmp_client **slot;

    task_lock(&s->lock);
    slot = s->stopping ? NULL : find_slot(s);
    if (slot)
        *slot = qmp_client_new(ch, s->commands, s->opaque);
    else
        channel_close(ch);
    task_unlock(&s->lock);
}

static void accept_main(void *arg)
{
    QmpServer *s = arg;
    Channel *ch;

    while ((ch = listener_accept(s->listener, NULL)))
        welcome(s, ch);
}

/* A socket that nobody answers is left from a process that was killed. */
static bool remove_stale(const char *path, const char *address, Error **errp)
{
    Channel *ch = channel_connect(address, clock_now() + NS_PER_S, NULL);

    if (ch) {
        channel_close(ch);
        error_setg(
            errp,
            "%s: another perdure of this name is running; choose another --name, or end it with perdure quit",
            path);
        return false;
    }
    if (unlink(path) < 0 && errno != ENOENT) {
        error_setg_errno(errp, errno, "%s: cannot remove the stale socket", path);
        return false;
    }
    return true;
}

static bool open_socket(QmpServer *s, const char *path, Error **errp)
{
    char address[300];
    mode_t mask;

    snprintf(address, sizeof(address), "unix:%s", path);
    if (!remove_stale(path, address, errp))
        return false;
    mask = umask(0177);
    s->listener = listener_new(address, errp);
    umask(mask);
    if (!s->listener)
        return false;
    snprintf(s->path, sizeof(s->path), "%s", path);
    s->task = task_start("qmp", accept_main, s, errp);
    return s->task != NULL;
}

QmpServer *qmp_server_new(const char *path, const struct qmp_command *commands, void *opaque, Error **errp)
{
    QmpServer *s = calloc(1, sizeof(*s));

    if (!s) {
        error_setg_errno(errp, ENOMEM, "control socket");
        return NULL;
    }
    s->commands = commands;
    s->opaque = opaque;
    task_mutex_init(&s->lock);
    if (!open_socket(s, path, errp)) {
        qmp_server_free(s);
        return NULL;
    }
    return s;
}

void qmp_server_event(QmpServer *s, const char *event, json_t *data)
{
    task_lock(&s->lock);
    for (int i = 0; i < CLIENTS_MAX; i++) {
        if (s->clients[i])
            qmp_client_event(s->clients[i], event, data);
    }
    task_unlock(&s->lock);
    json_decref(data);
}

bool qmp_server_has_clients(QmpServer *s)
{
    bool any = false;

    task_lock(&s->lock);
    for (int i = 0; i < CLIENTS_MAX; i++)
        any |= s->clients[i] && !qmp_client_gone(s->clients[i]);
    task_unlock(&s->lock);
    return any;
}

void qmp_server_free(QmpServer *s)
{
    if (!s)
        return;
    task_lock(&s->lock);
    s->stopping = true;
    task_unlock(&s->lock);
    if (s->listener)
        listener_shutdown(s->listener);
    task_join(s->task);
    /* A client's last command may still want to send an event: the lock is free while its task ends. */
    for (int i = 0; i < CLIENTS_MAX; i++)
        qmp_client_free(s->clients[i]);
    listener_close(s->listener);
    if (s->path[0])
        unlink(s->path);
    task_mutex_destroy(&s->lock);
    free(s);
}
