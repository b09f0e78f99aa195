/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/disk_copy.h"
#include "base/bitmap.h"
#include "base/fault.h"
#include "block/disk_chunk.h"
#include "block/disk_message.h"
#include "block/replication_group_private.h"

#include <errno.h>
#include <stdlib.h>

#define CHUNK REPLICATION_CHUNK_SIZE

struct chunks {
    uint64_t count;
    uint64_t *changed, *taken; /* bitmaps; no chunk is in both */
};

struct disk_copy {
    /* the copying task's */
    bool layout_sent, over_sent;
    bool in_pass;
    uint32_t disk;   /* where the pass is, by the primary's numbers */
    uint64_t offset; /* of the chunk that comes next */
    struct disk_writes_out writes;
    uint8_t buffer[CHUNK];
    /* under the group's lock */
    uint64_t left;                              /* chunks, in any bitmap */
    struct chunks disks[REPLICATION_DISKS_MAX]; /* by our numbers */
};

/* --- what changes --- */

/* Lock held. [from, end) */
static void set_changed(struct disk_copy *c, struct chunks *d, uint64_t from, uint64_t end)
{
    while (from < end) {
        uint64_t *changed = &d->changed[from / 64], *taken = &d->taken[from / 64];
        uint64_t n = end - from < 64 - from % 64 ? end - from : 64 - from % 64;
        uint64_t mask = (n < 64 ? BITMAP_BIT(n) - 1 : UINT64_MAX) << from % 64;

        c->left += (uint64_t)__builtin_popcountll(mask & ~(*changed | *taken));
        *changed |= mask;
        *taken &= ~mask;
        from += n;
    }
}

static void note_write(struct disk_copy *c, const struct disk_write *w)
{
    if (w->kind != DISK_WRITE_VERIFY && w->size)
        set_changed(c, &c->disks[w->disk], w->offset / CHUNK, (w->offset + w->size - 1) / CHUNK + 1);
}

void disk_copy_note(ReplicationGroup *g, const struct epoch_writes *w)
{
    task_lock(&g->lock);
    g->target.given = w->epoch;
    for (const struct disk_write *d = w->first; d && g->copy; d = d->next)
        note_write(g->copy, d);
    task_unlock(&g->lock);
}

/* --- a pass --- */

/* Lock held. */
static void take_changed(struct disk_copy *c, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct chunks *d = &c->disks[i];
        uint64_t *empty = d->taken;

        d->taken = d->changed;
        d->changed = empty;
    }
}

/* The last pass had to read all that it took. Nothing happens if it is not over. */
static bool enter_pass(ReplicationGroup *g, Error **errp)
{
    struct disk_copy *c = g->copy;
    JournalWriter *writer;
    uint64_t given, left;

    if (c->in_pass)
        return true;
    task_lock(&g->lock);
    take_changed(c, g->count);
    writer = g->target.writer;
    given = g->target.given;
    left = c->left;
    task_unlock(&g->lock);
    c->disk = 0;
    c->offset = 0;
    c->in_pass = !left || fault_point("disks.copy_overtakes_journal") ||
                 journal_writer_wait_in_place(writer, given, errp);
    return c->in_pass;
}

/* Lock held. The next chunk of the pass, which has it no more. */
static bool take_chunk(ReplicationGroup *g)
{
    struct disk_copy *c = g->copy;

    for (; c->disk < g->target.layout.count; c->disk++, c->offset = 0) {
        struct chunks *d = &c->disks[g->target.here[c->disk]];
        uint64_t chunk = bitmap_find_next(d->taken, d->count, c->offset / CHUNK);

        if (chunk == d->count)
            continue;
        bitmap_clear(d->taken, chunk);
        c->offset = chunk * CHUNK;
        c->left--;
        return true;
    }
    return false;
}

static struct disk_write *next_write(void *opaque, Error **errp)
{
    ReplicationGroup *g = opaque;
    struct disk_copy *c = g->copy;
    bool more;

    task_lock(&g->lock);
    more = take_chunk(g);
    task_unlock(&g->lock);
    if (!more)
        return NULL;
    return disk_chunk_read(g->images[g->target.here[c->disk]], c->disk, c->offset, c->buffer, errp);
}

/* false with no error: the pass is over. */
static bool put_writes(ReplicationGroup *g, VMStream *f, Error **errp)
{
    struct disk_copy *c = g->copy;
    Error *err = NULL;

    if (!enter_pass(g, errp))
        return false;
    if (disk_message_put_writes(&c->writes, f, &err))
        return true;
    c->in_pass = false;
    error_propagate(errp, err);
    return false;
}

/* The pass that goes on, and another one for what changed before the last. */
static bool put_last_writes(ReplicationGroup *g, VMStream *f, Error **errp)
{
    Error *err = NULL;
    bool put;

    do
        put = put_writes(g, f, &err);
    while (!put && !err && disk_copy_left(g));
    error_propagate(errp, err);
    return put;
}

/* --- all messages --- */

static bool put_layout(ReplicationGroup *g, VMStream *f)
{
    disk_message_put_layout(f, &g->target.layout);
    return g->copy->layout_sent = true;
}

static bool put_over(ReplicationGroup *g, VMStream *f)
{
    perdure_stream_put_u8(f, DISK_MESSAGE_SYNC_OVER);
    return g->copy->over_sent = true;
}

bool disk_copy_next(ReplicationGroup *g, VMStream *f, bool last, Error **errp)
{
    struct disk_copy *c = g->copy;
    Error *err = NULL;

    if (!c) {
        error_setg(errp, "no copy is under way");
        return false;
    }
    if (!c->layout_sent)
        return put_layout(g, f);
    if (c->over_sent)
        return false;
    if (last ? put_last_writes(g, f, &err) : put_writes(g, f, &err))
        return true;
    if (last && !err)
        return put_over(g, f);
    error_propagate(errp, err);
    return false;
}

uint64_t disk_copy_left(ReplicationGroup *g)
{
    uint64_t left;

    task_lock(&g->lock);
    left = g->copy ? g->copy->left * CHUNK : 0;
    task_unlock(&g->lock);
    return left;
}

/* --- life --- */

static void copy_free(struct disk_copy *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < REPLICATION_DISKS_MAX; i++) {
        free(c->disks[i].changed);
        free(c->disks[i].taken);
    }
    free(c->writes.part);
    free(c);
}

static bool alloc_chunks(struct chunks *d, uint64_t size)
{
    d->count = (size + CHUNK - 1) / CHUNK;
    d->changed = calloc(1, bitmap_bytes(d->count));
    d->taken = calloc(1, bitmap_bytes(d->count));
    return !d->count || (d->changed && d->taken);
}

static struct disk_copy *copy_new(ReplicationGroup *g)
{
    struct disk_copy *c = calloc(1, sizeof(*c));
    bool ok = c;

    for (uint32_t i = 0; ok && i < g->count; i++) {
        ok = alloc_chunks(&c->disks[i], g->images[i]->size);
        if (ok)
            set_changed(c, &c->disks[i], 0, c->disks[i].count);
    }
    if (ok) {
        c->writes = (struct disk_writes_out){.next = next_write, .opaque = g};
        return c;
    }
    copy_free(c);
    return NULL;
}

static struct disk_copy *exchange(ReplicationGroup *g, struct disk_copy *c)
{
    struct disk_copy *before;

    task_lock(&g->lock);
    before = g->copy;
    g->copy = c;
    task_unlock(&g->lock);
    return before;
}

bool disk_copy_begin(ReplicationGroup *g, Error **errp)
{
    struct disk_copy *c = copy_new(g);

    if (!c) {
        error_setg_errno(errp, ENOMEM, "disks");
        return false;
    }
    copy_free(exchange(g, c));
    return true;
}

void disk_copy_end(ReplicationGroup *g)
{
    copy_free(exchange(g, NULL));
}
