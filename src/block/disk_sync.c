/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/disk_sync.h"
#include "base/fault.h"
#include "block/disk_chunk.h"
#include "block/disk_hash.h"
#include "block/replication_group_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK REPLICATION_CHUNK_SIZE

static uint64_t total_size(const ReplicationGroup *g)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < g->count; i++)
        n += g->images[i]->size;
    return n;
}

/* Of the epochs up to g->sync.epoch. */
static struct disk_write *next_write(void *opaque, Error **errp)
{
    ReplicationGroup *g = opaque;
    struct disk_write *w;

    (void)errp;
    task_lock(&g->lock);
    w = forward_queue_pop(&g->queue, g->sync.epoch);
    task_unlock(&g->lock);
    return w;
}

bool disk_sync_start(ReplicationGroup *g, Error **errp)
{
    g->sync =
        (struct disk_sync){.buffer = malloc(DISK_SYNC_READ), .writes = {.next = next_write, .opaque = g}};
    if (!g->sync.buffer) {
        error_setg_errno(errp, ENOMEM, "disks");
        return false;
    }
    task_lock(&g->lock);
    forward_queue_reset(&g->queue);
    g->sync_left = g->sync_total = total_size(g);
    g->sync_sent = g->verified = 0;
    task_unlock(&g->lock);
    return true;
}

void disk_sync_equal(ReplicationGroup *g)
{
    g->sync.disk = g->count;
    g->sync.over = true;
    task_lock(&g->lock);
    g->sync_left = 0;
    task_unlock(&g->lock);
}

void disk_sync_stop(ReplicationGroup *g)
{
    free(g->sync.writes.part);
    free(g->sync.buffer);
    task_lock(&g->lock);
    g->sync = (struct disk_sync){0};
    g->sync_left = 0;
    task_unlock(&g->lock);
}

/* --- what the other side is told --- */

static void put_layout(ReplicationGroup *g, VMStream *f)
{
    struct disk_layout l = {.limit = g->queue.limit, .count = g->count};

    for (uint32_t i = 0; i < g->count; i++) {
        memcpy(l.disks[i].id, g->images[i]->id, sizeof(l.disks[i].id));
        l.disks[i].size = g->images[i]->size;
    }
    disk_message_put_layout(f, &l);
}

static void put_over(ReplicationGroup *g, VMStream *f)
{
    perdure_stream_put_u8(f, DISK_MESSAGE_SYNC_OVER);
    task_lock(&g->lock);
    g->sync.over_sent = true;
    task_unlock(&g->lock);
}

bool disk_sync_next(ReplicationGroup *g, uint64_t epoch, VMStream *f)
{
    struct disk_sync *s = &g->sync;

    if (!s->layout_sent) {
        put_layout(g, f);
        s->layout_sent = true;
        return true;
    }
    s->epoch = epoch;
    if (disk_message_put_writes(&s->writes, f, NULL))
        return true;
    if (!s->over || s->over_sent)
        return false;
    put_over(g, f);
    return true;
}

/* --- what it is asked --- */

static bool hash_chunks(struct disk_question *q, const uint8_t *data, uint64_t size, Error **errp)
{
    for (uint64_t at = 0; at < size; at += CHUNK) {
        if (!disk_hash(data + at, size - at < CHUNK ? size - at : CHUNK, q->hashes[q->count++], errp))
            return false;
    }
    return true;
}

/* Goes on where the last one ended; at most to the end of the disk. */
static bool make_question(ReplicationGroup *g, Error **errp)
{
    struct disk_sync *s = &g->sync;
    struct disk_question *q = &s->question;
    Block *image = g->images[s->disk];

    *q = (struct disk_question){.disk = s->disk, .offset = s->offset};
    while (q->count < DISK_QUESTION_MAX && s->offset < image->size) {
        uint64_t left = image->size - s->offset, n = left < DISK_SYNC_READ ? left : DISK_SYNC_READ;

        if (!block_read(image, s->offset, s->buffer, n, errp) || !hash_chunks(q, s->buffer, n, errp))
            return false;
        s->offset += n;
    }
    return true;
}

/* To the next disk that has anything to be looked at; false: there is none. */
static bool advance(ReplicationGroup *g)
{
    struct disk_sync *s = &g->sync;

    while (s->disk < g->count && s->offset == g->images[s->disk]->size) {
        s->disk++;
        s->offset = 0;
    }
    return s->disk < g->count;
}

/* A write that began before the start enters no queue: only when it is done, what is read counts. */
static void wait_for_loose(ReplicationGroup *g)
{
    task_lock(&g->lock);
    while (g->loose)
        task_wait(&g->changed, &g->lock);
    task_unlock(&g->lock);
}

bool disk_sync_ask(ReplicationGroup *g, VMStream *f, Error **errp)
{
    struct disk_sync *s = &g->sync;

    if (s->asked) {
        error_setg(errp, "asked again before the reply");
        return false;
    }
    wait_for_loose(g);
    if (!advance(g) || (s->disk == g->count - 1 && fault_point("disks.sync_ends_early"))) {
        s->over = true;
        return false;
    }
    if (!make_question(g, errp))
        return false;
    s->asked = true;
    disk_message_put_question(f, &s->question);
    return true;
}

/* --- what differs --- */

static bool send_chunk(ReplicationGroup *g, uint32_t disk, uint64_t offset, Error **errp)
{
    uint64_t n = disk_chunk_size(g->images[disk], offset);
    bool lie = fault_point("disks.sync_overtakes_write");
    Block *image = g->images[disk];
    struct disk_write *w = NULL;
    struct chunk_lock c;

    if (lie)
        w = disk_chunk_read(image, disk, offset, g->sync.buffer, errp);
    group_lock_chunk(g, &c, disk, offset, n);
    if (!lie)
        w = disk_chunk_read(image, disk, offset, g->sync.buffer, errp);
    group_unlock_chunk(&c, w);
    if (!w)
        return false;
    task_lock(&g->lock);
    g->sync_sent += n;
    task_unlock(&g->lock);
    return true;
}

static bool send_differing(ReplicationGroup *g, const struct disk_reply *r, Error **errp)
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (!(r->differs[i / 8] & 1u << i % 8))
            continue;
        if (!send_chunk(g, r->disk, r->offset + (uint64_t)i * CHUNK, errp))
            return false;
    }
    return true;
}

static void count_progress(ReplicationGroup *g)
{
    uint64_t left = 0;

    for (uint32_t i = g->sync.disk; i < g->count; i++)
        left += g->images[i]->size;
    task_lock(&g->lock);
    g->sync_left = left - g->sync.offset;
    task_unlock(&g->lock);
}

bool disk_sync_answer(ReplicationGroup *g, VMStream *f, Error **errp)
{
    struct disk_sync *s = &g->sync;
    struct disk_reply r = {0};

    if (!s->asked || perdure_stream_get_u8(f) != DISK_MESSAGE_REPLY || !disk_message_get_reply(f, &r)) {
        perdure_stream_set_error(f, -EBADMSG, "a reply that is none");
        return false;
    }
    s->asked = false;
    if (r.disk != s->question.disk || r.offset != s->question.offset || r.count != s->question.count) {
        error_setg(errp, "the reply is to another question");
        return false;
    }
    if (!send_differing(g, &r, errp))
        return false;
    count_progress(g);
    return true;
}

/* --- verification --- */

/* Takes the next chunk of all disks, round and round; false: there is none, or it is too early. */
static bool next_to_verify(ReplicationGroup *g, uint32_t *ret_disk, uint64_t *ret_offset)
{
    bool ok;

    task_lock(&g->lock);
    ok = g->state == GROUP_FORWARDING && g->sync.over_sent && g->sync_total;
    while (ok && (g->verify_disk >= g->count || g->verify_offset >= g->images[g->verify_disk]->size)) {
        g->verify_disk = g->verify_disk + 1 < g->count ? g->verify_disk + 1 : 0;
        g->verify_offset = 0;
    }
    *ret_disk = g->verify_disk;
    *ret_offset = g->verify_offset;
    g->verify_offset += CHUNK;
    task_unlock(&g->lock);
    return ok;
}

/* What cannot be read here is not compared: the machine hears of it when it reads there. */
static struct disk_write *hash_chunk(Block *image, uint32_t disk, uint64_t offset, uint64_t n)
{
    struct disk_write *w = disk_write_new(DISK_WRITE_VERIFY, disk, offset, n, DISK_HASH_SIZE);
    uint8_t *data = malloc(n);

    if (w && (!data || !block_read(image, offset, data, n, NULL) || !disk_hash(data, n, w->data, NULL))) {
        free(w);
        w = NULL;
    }
    free(data);
    return w;
}

static void verify_chunk(ReplicationGroup *g, uint32_t disk, uint64_t offset)
{
    uint64_t n = disk_chunk_size(g->images[disk], offset);
    struct disk_write *w;
    struct chunk_lock c;

    group_lock_chunk(g, &c, disk, offset, n);
    w = hash_chunk(g->images[disk], disk, offset, n);
    group_unlock_chunk(&c, w);
    if (!w)
        return;
    task_lock(&g->lock);
    g->verified += n;
    task_unlock(&g->lock);
}

static uint64_t chunk_count(const ReplicationGroup *g)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < g->count; i++)
        n += (g->images[i]->size + CHUNK - 1) / CHUNK;
    return n;
}

void replication_group_verify(ReplicationGroup *g, uint64_t bytes)
{
    uint64_t limit = bytes < REPLICATION_VERIFY_MAX ? bytes : REPLICATION_VERIFY_MAX;
    uint64_t all = chunk_count(g), n = (limit + CHUNK - 1) / CHUNK, offset;
    uint32_t disk;

    if (n > all) /* small disks: nothing is compared twice */
        n = all;
    while (n-- && next_to_verify(g, &disk, &offset))
        verify_chunk(g, disk, offset);
}
