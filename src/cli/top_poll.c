/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/top_poll.h"
#include "base/task.h"
#include "cli/client.h"
#include "control/run_dir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A machine whose socket is gone is shown a little longer: one would like to see that it ended. */
#define SHOWN_AFTER_END 5

struct watched {
    struct top_poll *owner;
    Task *task;         /* NULL: the place is free */
    bool over;          /* the task ends by itself; owner's lock */
    struct top_row row; /* owner's lock */
    /* the task's own */
    Client *client;
    int silent; /* answers missed in a row */
};

struct top_poll {
    char only[64]; /* empty: all */
    int64_t interval;
    struct task_mutex lock;
    struct task_cond changed;
    bool quit;
    struct watched watched[TOP_ROWS_MAX];
};

/* --- a machine's task --- */

static void on_event(void *opaque, json_t *event)
{
    struct watched *w = opaque;

    task_lock(&w->owner->lock);
    top_row_event(&w->row, event);
    task_unlock(&w->owner->lock);
}

static json_t *ask(struct watched *w, Error **errp)
{
    if (!w->client) {
        w->client = client_open_within(w->row.name, TOP_TIMEOUT_NS, errp);
        if (!w->client)
            return NULL;
        client_on_event(w->client, on_event, w);
    }
    return client_execute(w->client, "perdure-status", NULL, errp);
}

static void poll_once(struct watched *w)
{
    Error *err = NULL;
    json_t *status = ask(w, &err);

    task_lock(&w->owner->lock);
    if (status)
        top_row_answer(&w->row, status);
    else
        top_row_silent(&w->row, error_get_pretty(err));
    task_unlock(&w->owner->lock);
    w->silent = status ? 0 : w->silent + 1;
    if (!status) {
        client_close(w->client);
        w->client = NULL;
    }
    json_decref(status);
    error_free(err);
}

static bool has_ended(struct watched *w)
{
    char path[256];

    return !w->owner->only[0] && w->silent >= SHOWN_AFTER_END &&
           run_dir_socket(w->row.name, false, path, sizeof(path), NULL) && access(path, F_OK) &&
           errno == ENOENT;
}

/* False: to end. */
static bool wait_for_turn(struct top_poll *p, int64_t until)
{
    bool go_on;

    task_lock(&p->lock);
    while (!p->quit && clock_now() < until)
        task_wait_until(&p->changed, &p->lock, until);
    go_on = !p->quit;
    task_unlock(&p->lock);
    return go_on;
}

static void watch(void *arg)
{
    struct watched *w = arg;
    int64_t begin;

    do {
        begin = clock_now();
        poll_once(w);
    } while (!has_ended(w) && wait_for_turn(w->owner, begin + w->owner->interval));
    client_close(w->client);
    task_lock(&w->owner->lock);
    w->over = true;
    task_unlock(&w->owner->lock);
}

/* --- the caller's --- */

static void add(void *opaque, const char *name)
{
    struct top_poll *p = opaque;
    struct watched *place = NULL;

    for (int i = 0; i < TOP_ROWS_MAX; i++) {
        if (!p->watched[i].task)
            place = &p->watched[i];
        else if (!strcmp(p->watched[i].row.name, name))
            return;
    }
    if (!place)
        return;
    *place = (struct watched){.owner = p};
    top_row_init(&place->row, name);
    top_row_silent(&place->row, "");
    place->task = task_start("top", watch, place, NULL);
}

static void reap(struct watched *w)
{
    bool over;

    task_lock(&w->owner->lock);
    over = w->over;
    task_unlock(&w->owner->lock);
    if (!over)
        return;
    task_join(w->task);
    w->task = NULL;
}

void top_poll_scan(struct top_poll *p)
{
    for (int i = 0; i < TOP_ROWS_MAX; i++)
        if (p->watched[i].task)
            reap(&p->watched[i]);
    if (p->only[0])
        add(p, p->only);
    else
        run_dir_each(add, p);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct top_row *)a)->name, ((const struct top_row *)b)->name);
}

int top_poll_rows(struct top_poll *p, struct top_row *rows, int most)
{
    int n = 0;

    task_lock(&p->lock);
    for (int i = 0; i < TOP_ROWS_MAX && n < most; i++)
        if (p->watched[i].task)
            rows[n++] = p->watched[i].row;
    task_unlock(&p->lock);
    qsort(rows, (size_t)n, sizeof(*rows), by_name);
    return n;
}

struct top_poll *top_poll_new(const char *name, int64_t interval_ns, Error **errp)
{
    struct top_poll *p;

    if (name && !run_dir_check_name(name, errp))
        return NULL;
    p = calloc(1, sizeof(*p));
    if (!p) {
        error_setg_errno(errp, ENOMEM, "top");
        return NULL;
    }
    snprintf(p->only, sizeof(p->only), "%s", name ? name : "");
    p->interval = interval_ns;
    task_mutex_init(&p->lock);
    task_cond_init(&p->changed);
    return p;
}

void top_poll_free(struct top_poll *p)
{
    if (!p)
        return;
    task_lock(&p->lock);
    p->quit = true;
    task_broadcast(&p->changed);
    task_unlock(&p->lock);
    for (int i = 0; i < TOP_ROWS_MAX; i++)
        if (p->watched[i].task)
            task_join(p->watched[i].task);
    task_cond_destroy(&p->changed);
    task_mutex_destroy(&p->lock);
    free(p);
}
