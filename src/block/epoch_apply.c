/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Applying an epoch: its writes go out in order, up to APPLY_DEPTH at a time. A disk may carry out requests
 * under way in any order; so a write that overlaps one under way waits for it, and a comparison waits for
 * all.
 */
#include "base/task.h"
#include "block/epoch_writes.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>

#define APPLY_DEPTH 32

struct slot {
    struct block_request request;
    struct applying *applying;
    const struct disk_write *write; /* NULL: free */
};

struct applying {
    const struct epoch_writes *epoch;
    Block *const *images;
    struct slot slots[APPLY_DEPTH]; /* a slot's request is its own while it is under way */

    struct task_mutex lock; /* for what follows and slots[].write */
    struct task_cond changed;
    unsigned under_way;
    const struct disk_write *failed; /* the first one */
    int error;
};

static void on_done(struct block_request *r)
{
    struct slot *s = r->opaque;
    struct applying *a = s->applying;

    task_lock(&a->lock);
    if (r->error && !a->error) {
        a->error = r->error;
        a->failed = s->write;
    }
    s->write = NULL;
    a->under_way--;
    task_broadcast(&a->changed);
    task_unlock(&a->lock);
}

static bool overlaps(const struct disk_write *a, const struct disk_write *b)
{
    return a->disk == b->disk && a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

/* A free slot, or NULL as long as d must wait. */
static struct slot *find_slot(struct applying *a, const struct disk_write *d)
{
    struct slot *free_slot = NULL;

    for (int i = 0; i < APPLY_DEPTH; i++) {
        if (!a->slots[i].write)
            free_slot = &a->slots[i];
        else if (overlaps(a->slots[i].write, d))
            return NULL;
    }
    return free_slot;
}

/* NULL: a write has failed. */
static struct slot *take_slot(struct applying *a, const struct disk_write *d)
{
    struct slot *s = NULL;

    task_lock(&a->lock);
    while (!a->error && !(s = find_slot(a, d)))
        task_wait(&a->changed, &a->lock);
    if (s) {
        s->write = d;
        a->under_way++;
    }
    task_unlock(&a->lock);
    return s;
}

static bool wait_for_all(struct applying *a)
{
    bool ok;

    task_lock(&a->lock);
    while (a->under_way)
        task_wait(&a->changed, &a->lock);
    ok = !a->error;
    task_unlock(&a->lock);
    return ok;
}

/* false: a write has failed, not necessarily this one. */
static bool submit(struct applying *a, const struct disk_write *d)
{
    struct slot *s = take_slot(a, d);

    if (!s)
        return false;
    s->applying = a;
    s->request = (struct block_request){
        .op = d->kind == DISK_WRITE_DATA ? BLOCK_WRITE : BLOCK_ZERO,
        .unmap = d->kind == DISK_WRITE_UNMAP,
        .offset = d->offset,
        .size = d->size,
        .data = d->kind == DISK_WRITE_DATA ? (void *)d->data : NULL, /* a write only reads it */
        .done = on_done,
        .opaque = s,
    };
    block_submit(a->images[d->disk], &s->request);
    return true;
}

static bool hash(Block *image, const struct disk_write *d, uint8_t ret_hash[DISK_HASH_SIZE], Error **errp)
{
    void *buf = malloc(d->size ? d->size : 1);
    bool ok = false;

    if (!buf)
        error_setg(errp, "disk %s: out of memory for %llu bytes to compare", image->id,
                   (unsigned long long)d->size);
    else if (block_read(image, d->offset, buf, d->size, errp)) {
        ok = gnutls_hash_fast(GNUTLS_DIG_SHA256, buf, d->size, ret_hash) == 0;
        if (!ok)
            error_setg(errp, "disk %s: cannot compute a SHA-256", image->id);
    }
    free(buf);
    return ok;
}

static bool verify(struct applying *a, const struct disk_write *d, Error **errp)
{
    Block *image = a->images[d->disk];
    uint8_t found[DISK_HASH_SIZE];

    if (!hash(image, d, found, errp))
        return false;
    if (!memcmp(found, d->data, sizeof(found)))
        return true;
    error_setg(errp, "disk %s: %llu bytes at %llu differ from the primary's after epoch %llu", image->id,
               (unsigned long long)d->size, (unsigned long long)d->offset,
               (unsigned long long)a->epoch->epoch);
    return false;
}

static bool check(const struct disk_write *d, Block *const *images, uint32_t count, Error **errp)
{
    if (d->disk >= count) {
        error_setg(errp, "a write to disk number %u, of %u disks", d->disk, count);
        return false;
    }
    if (d->offset > images[d->disk]->size || d->size > images[d->disk]->size - d->offset) {
        error_setg(errp, "disk %s: %llu bytes at %llu lie beyond its end", images[d->disk]->id,
                   (unsigned long long)d->size, (unsigned long long)d->offset);
        return false;
    }
    if (d->kind == DISK_WRITE_VERIFY ? d->data_size != DISK_HASH_SIZE || d->size > BLOCK_SIZE_MAX
                                     : d->kind == DISK_WRITE_DATA && d->data_size != d->size) {
        error_setg(errp, "disk %s: a write of %llu bytes comes with %u bytes of data", images[d->disk]->id,
                   (unsigned long long)d->size, d->data_size);
        return false;
    }
    return true;
}

/* What failed() does not know yet is in *errp. */
static bool apply_all(struct applying *a, uint32_t count, bool replaying, Error **errp)
{
    for (const struct disk_write *d = a->epoch->first; d; d = d->next) {
        if (!check(d, a->images, count, errp))
            return false;
        if (d->kind == DISK_WRITE_VERIFY ? !replaying && (!wait_for_all(a) || !verify(a, d, errp))
                                         : !submit(a, d))
            return false;
    }
    return true;
}

bool epoch_writes_apply(const struct epoch_writes *w, Block *const *images, uint32_t count, bool replaying,
                        Error **errp)
{
    struct applying a = {.epoch = w, .images = images};
    Error *err = NULL;
    bool ok;

    task_mutex_init(&a.lock);
    task_cond_init(&a.changed);
    ok = apply_all(&a, count, replaying, &err);
    ok = wait_for_all(&a) && ok;
    if (a.error && !err)
        error_setg_errno(&err, a.error, "disk %s: cannot write %llu bytes at %llu",
                         images[a.failed->disk]->id, (unsigned long long)a.failed->size,
                         (unsigned long long)a.failed->offset);
    task_cond_destroy(&a.changed);
    task_mutex_destroy(&a.lock);
    if (!ok)
        error_propagate(errp, err);
    return ok;
}
