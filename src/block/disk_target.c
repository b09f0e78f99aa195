/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/disk_target.h"
#include "block/disk_hash.h"
#include "block/replication_group_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Written during the sync before the images are flushed: so little is left at its end, when the primary's
 * machine has output that waits. */
#define UNFLUSHED_MAX (64u << 20)
/* What an epoch may have beyond the limit: what did not ask for room. */
#define SLACK (2u << 20)

/* --- beginning --- */

/* They would be written into what the primary sends. */
static bool nothing_under_way(ReplicationGroup *g, Error **errp)
{
    bool busy;

    task_lock(&g->lock);
    busy = g->ranges.first || g->loose;
    task_unlock(&g->lock);
    if (busy)
        error_setg_errno(errp, EBUSY, "disks: the machine that ran here still has writes under way");
    return !busy;
}

static bool alloc(struct disk_target *t, Error **errp)
{
    t->buffer = malloc(REPLICATION_CHUNK_SIZE);
    t->writes = epoch_writes_new();
    if (t->buffer && t->writes)
        return true;
    error_setg_errno(errp, ENOMEM, "disks");
    return false;
}

static void release(struct disk_target *t)
{
    free(t->buffer);
    epoch_writes_free(t->writes);
    journal_close(t->journal);
    t->buffer = NULL;
    t->writes = NULL;
    t->journal = NULL;
}

bool disk_target_start(ReplicationGroup *g, Error **errp)
{
    struct disk_target *t = &g->target;
    bool settled = t->journal_settled;

    if (!nothing_under_way(g, errp))
        return false;
    task_lock(&g->lock);
    *t = (struct disk_target){.journal_settled = settled};
    task_unlock(&g->lock);
    if ((!g->count || disk_target_clear_journal(g, errp)) && alloc(t, errp))
        return true;
    release(t);
    return false;
}

/* --- LAYOUT --- */

static bool find_disk(ReplicationGroup *g, const char *id, uint32_t *ret_number)
{
    uint32_t i = 0;

    while (i < g->count && strcmp(g->images[i]->id, id))
        i++;
    *ret_number = i;
    return i < g->count;
}

static bool match_disk(ReplicationGroup *g, uint32_t theirs, Error **errp)
{
    const struct disk_layout *l = &g->target.layout;
    const char *id = l->disks[theirs].id;
    uint32_t here;

    if (!find_disk(g, id, &here)) {
        error_setg(errp, "disk %s: the primary has it, this side does not", id);
        return false;
    }
    for (uint32_t i = 0; i < theirs; i++) {
        if (g->target.here[i] == here) {
            error_setg(errp, "disk %s: the primary has it twice", id);
            return false;
        }
    }
    if (l->disks[theirs].size != g->images[here]->size) {
        error_setg(errp, "disk %s: it has %llu bytes at the primary, %llu on this side", id,
                   (unsigned long long)l->disks[theirs].size, (unsigned long long)g->images[here]->size);
        return false;
    }
    g->target.here[theirs] = here;
    return true;
}

static bool is_matched(const struct disk_target *t, uint32_t here)
{
    uint32_t i = 0;

    while (i < t->layout.count && t->here[i] != here)
        i++;
    return i < t->layout.count;
}

static bool match_disks(ReplicationGroup *g, Error **errp)
{
    struct disk_target *t = &g->target;

    for (uint32_t i = 0; i < t->layout.count; i++) {
        if (!match_disk(g, i, errp))
            return false;
    }
    for (uint32_t i = 0; i < g->count; i++) {
        if (!is_matched(t, i)) {
            error_setg(errp, "disk %s: this side has it, the primary does not", g->images[i]->id);
            return false;
        }
    }
    return true;
}

static bool make_journal(ReplicationGroup *g, Error **errp)
{
    struct disk_target *t = &g->target;

    if (g->count)
        t->journal = disk_target_make_journal(g, errp);
    return !g->count || t->journal;
}

static bool hear_layout(ReplicationGroup *g, VMStream *f, Error **errp)
{
    struct disk_target *t = &g->target;

    if (t->layout_heard) {
        error_setg(errp, "LAYOUT came twice");
        return false;
    }
    if (!disk_message_get_layout(f, &t->layout))
        return false;
    if (t->layout.limit > g->options.queue_limit) {
        error_setg(errp, "the primary's epochs may have %llu bytes, this side takes %llu",
                   (unsigned long long)t->layout.limit, (unsigned long long)g->options.queue_limit);
        return false;
    }
    t->layout_heard = match_disks(g, errp) && make_journal(g, errp);
    return t->layout_heard;
}

/* --- WRITES --- */

/* Our number of the primary's disk, where it has n bytes at offset. */
static bool find_place(const ReplicationGroup *g, uint32_t theirs, uint64_t offset, uint64_t n,
                       uint32_t *ret_here, Error **errp)
{
    const struct disk_target *t = &g->target;
    const Block *image;

    if (theirs >= t->layout.count) {
        error_setg(errp, "disk number %u: the primary has %u", theirs, t->layout.count);
        return false;
    }
    image = g->images[t->here[theirs]];
    if (offset > image->size || n > image->size - offset) {
        error_setg(errp, "disk %s: %llu bytes at %llu lie outside of it", image->id, (unsigned long long)n,
                   (unsigned long long)offset);
        return false;
    }
    *ret_here = t->here[theirs];
    return true;
}

/* A single write may be larger than the limit: it comes alone then. */
static bool fits(const ReplicationGroup *g, const struct epoch_writes *w, Error **errp)
{
    uint64_t limit = g->target.layout.limit;

    limit = (limit > BLOCK_SIZE_MAX ? limit : BLOCK_SIZE_MAX) + SLACK;
    if (w->bytes <= limit)
        return true;
    error_setg(errp, "the epoch has more than the %llu bytes that were agreed on", (unsigned long long)limit);
    return false;
}

static bool get_write(ReplicationGroup *g, VMStream *f, struct epoch_writes *into, Error **errp)
{
    struct disk_write *w = disk_message_get_write(f);

    if (!w)
        return false;
    if (!find_place(g, w->disk, w->offset, w->size, &w->disk, errp)) {
        free(w);
        return false;
    }
    if (w->kind == DISK_WRITE_VERIFY && !g->target.over_heard) {
        error_setg(errp, "a verification came before the sync was over");
        free(w);
        return false;
    }
    epoch_writes_add(into, w);
    return fits(g, into, errp);
}

static bool get_writes(ReplicationGroup *g, VMStream *f, struct epoch_writes *into, Error **errp)
{
    do {
        if (!get_write(g, f, into, errp))
            return false;
    } while (perdure_stream_left(f));
    return true;
}

static bool flush_images(ReplicationGroup *g, Error **errp)
{
    for (uint32_t i = 0; i < g->count; i++) {
        if (!block_flush(g->images[i], errp))
            return false;
    }
    g->target.unflushed = 0;
    return true;
}

static bool apply_at_once(ReplicationGroup *g, const struct epoch_writes *w, Error **errp)
{
    g->ran_last = false;
    if (!epoch_writes_apply(w, g->images, g->count, false, errp))
        return false;
    g->target.unflushed += w->bytes;
    return g->target.unflushed < UNFLUSHED_MAX || flush_images(g, errp);
}

static bool hear_sync_writes(ReplicationGroup *g, VMStream *f, Error **errp)
{
    struct epoch_writes *w = epoch_writes_new();
    bool ok;

    if (!w) {
        error_setg_errno(errp, ENOMEM, "disks");
        return false;
    }
    w->epoch = 1;
    ok = get_writes(g, f, w, errp) && apply_at_once(g, w, errp);
    epoch_writes_free(w);
    return ok;
}

static bool hear_writes(ReplicationGroup *g, VMStream *f, Error **errp)
{
    if (g->state == GROUP_TARGET)
        return hear_sync_writes(g, f, errp);
    return get_writes(g, f, g->target.writes, errp);
}

/* --- QUESTION --- */

static bool compare_chunk(ReplicationGroup *g, Block *image, uint64_t offset, const uint8_t *hash,
                          bool *ret_differs, Error **errp)
{
    uint64_t left = image->size - offset, n = left < REPLICATION_CHUNK_SIZE ? left : REPLICATION_CHUNK_SIZE;
    uint8_t mine[DISK_HASH_SIZE];

    if (!block_read(image, offset, g->target.buffer, n, errp) || !disk_hash(g->target.buffer, n, mine, errp))
        return false;
    *ret_differs = memcmp(mine, hash, sizeof(mine)) != 0;
    return true;
}

/* The last chunk begins inside of the disk. */
static bool find_chunks(ReplicationGroup *g, const struct disk_question *q, Block **ret_image, Error **errp)
{
    uint64_t before_last = (uint64_t)(q->count - 1) * REPLICATION_CHUNK_SIZE;
    uint32_t here;

    if (!find_place(g, q->disk, q->offset, before_last + 1, &here, errp))
        return false;
    *ret_image = g->images[here];
    return true;
}

static bool answer(ReplicationGroup *g, const struct disk_question *q, struct disk_reply *ret, Error **errp)
{
    Block *image;

    *ret = (struct disk_reply){.disk = q->disk, .offset = q->offset, .count = q->count};
    if (!find_chunks(g, q, &image, errp))
        return false;
    for (uint32_t i = 0; i < q->count; i++) {
        uint64_t offset = q->offset + (uint64_t)i * REPLICATION_CHUNK_SIZE;
        bool differs = false;

        if (!compare_chunk(g, image, offset, q->hashes[i], &differs, errp))
            return false;
        if (differs)
            ret->differs[i / 8] |= (uint8_t)(1u << i % 8);
    }
    return true;
}

static bool hear_question(ReplicationGroup *g, VMStream *f, VMStream *reply, Error **errp)
{
    struct disk_question q;
    struct disk_reply r;

    if (g->state != GROUP_TARGET || g->target.over_heard) {
        error_setg(errp, "QUESTION came after the sync was over");
        return false;
    }
    if (!disk_message_get_question(f, &q) || !answer(g, &q, &r, errp))
        return false;
    disk_message_put_reply(reply, &r);
    return true;
}

/* --- all messages --- */

static bool hear_sync_over(ReplicationGroup *g, Error **errp)
{
    if (g->target.over_heard) {
        error_setg(errp, "SYNC_OVER came twice");
        return false;
    }
    g->target.over_heard = true;
    return flush_images(g, errp);
}

static bool hear(ReplicationGroup *g, uint8_t kind, VMStream *f, VMStream *reply, Error **errp)
{
    if (kind != DISK_MESSAGE_LAYOUT && !g->target.layout_heard) {
        error_setg(errp, "the first message is not LAYOUT (%u)", kind);
        return false;
    }
    switch (kind) {
    case DISK_MESSAGE_LAYOUT:
        return hear_layout(g, f, errp);
    case DISK_MESSAGE_WRITES:
        return hear_writes(g, f, errp);
    case DISK_MESSAGE_QUESTION:
        return hear_question(g, f, reply, errp);
    case DISK_MESSAGE_SYNC_OVER:
        return hear_sync_over(g, errp);
    }
    error_setg(errp, "there is no message of kind %u", kind);
    return false;
}

bool disk_target_receive(ReplicationGroup *g, VMStream *f, VMStream *reply, Error **errp)
{
    uint8_t kind = perdure_stream_get_u8(f);

    if (perdure_stream_error(f, NULL))
        return false;
    if (g->state != GROUP_TARGET && g->state != GROUP_STANDBY) {
        error_setg(errp, "a message came, but this side replicates nothing");
        return false;
    }
    return hear(g, kind, f, reply, errp);
}

/* --- checkpoints --- */

static void set_epoch(ReplicationGroup *g, uint64_t epoch)
{
    task_lock(&g->lock);
    g->target.epoch = epoch;
    task_unlock(&g->lock);
}

static void set_writer(ReplicationGroup *g, JournalWriter *writer)
{
    task_lock(&g->lock);
    g->target.writer = writer;
    task_unlock(&g->lock);
}

static bool start_writer(ReplicationGroup *g, Error **errp)
{
    struct disk_target *t = &g->target;
    Journal *j = t->journal;
    JournalWriter *writer;

    if (!j)
        return true;
    t->journal = NULL;
    t->journal_settled = false;
    writer = journal_writer_new(j, g->images, g->options.backlog_limit, errp);
    set_writer(g, writer);
    return writer;
}

bool disk_target_begin_standby(ReplicationGroup *g, Error **errp)
{
    if (!g->target.over_heard) {
        error_setg(errp, "disks: a checkpoint came before the sync was over");
        return false;
    }
    if (!flush_images(g, errp) || !start_writer(g, errp))
        return false;
    g->ran_last = false;
    set_epoch(g, 1);
    return true;
}

bool disk_target_checkpoint(ReplicationGroup *g, Error **errp)
{
    struct disk_target *t = &g->target;
    struct epoch_writes *w = t->writes, *next = epoch_writes_new();

    if (!next) {
        error_setg_errno(errp, ENOMEM, "disks");
        return false;
    }
    t->writes = next;
    w->epoch = t->epoch + 1;
    disk_copy_note(g, w);
    if (!t->writer) /* no disks: nothing came */
        epoch_writes_free(w);
    else if (!journal_writer_put(t->writer, w, errp))
        return false;
    set_epoch(g, t->epoch + 1);
    return true;
}

/* --- the end --- */

bool disk_target_stop(ReplicationGroup *g, Error **errp)
{
    struct disk_target *t = &g->target;
    JournalWriter *writer = t->writer;
    bool ok = writer ? journal_writer_drain(writer, errp) : !g->ran_last || flush_images(g, errp);

    t->journal_settled = ok;
    set_writer(g, NULL);
    journal_writer_free(writer);
    release(t);
    return ok;
}
