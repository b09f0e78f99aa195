/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/disk_worker.h"

#include <assert.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/task.h"

struct list {
    struct disk_request *first, **end;
};

struct disk_worker {
    RawImage *image;
    void (*done_fn)(void *opaque);
    void *opaque;
    Task *task;

    struct task_mutex lock; /* protects what follows */
    struct task_cond changed;
    struct list submitted, done;
    bool stopping;
};

static void list_init(struct list *l)
{
    l->first = NULL;
    l->end = &l->first;
}

static void list_put(struct list *l, struct disk_request *r)
{
    r->next = NULL;
    *l->end = r;
    l->end = &r->next;
}

static struct disk_request *list_take(struct list *l)
{
    struct disk_request *r = l->first;

    if (!r)
        return NULL;
    l->first = r->next;
    if (!l->first)
        l->end = &l->first;
    return r;
}

static bool carry_out(RawImage *image, struct disk_request *r)
{
    Error *err = NULL;
    bool ok = false;

    switch (r->operation) {
    case DISK_READ:
        ok = raw_image_read(image, r->offset, r->data, r->size, &err);
        break;
    case DISK_WRITE:
        ok = raw_image_write(image, r->offset, r->data, r->size, &err);
        break;
    case DISK_FLUSH:
        ok = raw_image_flush(image, &err);
        break;
    }
    if (!ok) {
        log_warn("%s", error_get_pretty(err));
        error_free(err);
    }
    return ok;
}

static void work(void *arg)
{
    struct disk_worker *w = arg;
    struct disk_request *r;

    task_lock(&w->lock);
    while ((r = list_take(&w->submitted)) || !w->stopping) {
        if (!r) {
            task_wait(&w->changed, &w->lock);
            continue;
        }
        task_unlock(&w->lock);
        r->ok = carry_out(w->image, r);
        task_lock(&w->lock);
        list_put(&w->done, r);
        w->done_fn(w->opaque);
    }
    task_unlock(&w->lock);
}

struct disk_worker *disk_worker_new(RawImage *image, void (*done)(void *opaque), void *opaque, Error **errp)
{
    struct disk_worker *w = calloc(1, sizeof(*w));

    if (!w) {
        error_setg(errp, "out of memory");
        return NULL;
    }
    *w = (struct disk_worker){.image = image, .done_fn = done, .opaque = opaque};
    task_mutex_init(&w->lock);
    task_cond_init(&w->changed);
    list_init(&w->submitted);
    list_init(&w->done);
    w->task = task_start("disk", work, w, errp);
    if (w->task)
        return w;
    disk_worker_free(w);
    return NULL;
}

void disk_worker_stop(struct disk_worker *w)
{
    task_lock(&w->lock);
    w->stopping = true;
    task_broadcast(&w->changed);
    task_unlock(&w->lock);
    task_join(w->task);
    w->task = NULL;
}

void disk_worker_free(struct disk_worker *w)
{
    if (!w)
        return;
    assert(!w->task && !w->submitted.first && !w->done.first);
    task_cond_destroy(&w->changed);
    task_mutex_destroy(&w->lock);
    free(w);
}

void disk_worker_submit(struct disk_worker *w, struct disk_request *r)
{
    task_lock(&w->lock);
    list_put(&w->submitted, r);
    task_broadcast(&w->changed);
    task_unlock(&w->lock);
}

struct disk_request *disk_worker_take_done(struct disk_worker *w)
{
    struct disk_request *r;

    task_lock(&w->lock);
    r = list_take(&w->done);
    task_unlock(&w->lock);
    return r;
}
