/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/journal_writer.h"
#include "base/fault.h"
#include "base/task.h"

#include <stdlib.h>
#include <string.h>

#define EVERYTHING UINT64_MAX /* that the journal holds */

struct JournalWriter {
    /* set once */
    Journal *journal;
    Block *images[JOURNAL_DISKS_MAX];
    uint32_t count;
    uint64_t limit;
    Task *task;
    /* the task's own */
    bool unflushed; /* something is in place and perhaps not on the medium */
    uint64_t unflushed_bytes;
    /* shared */
    struct task_mutex lock;
    struct task_cond changed;
    struct epoch_writes *first, **end; /* waiting */
    bool busy, stopping;
    uint64_t backlog; /* bytes, of those that wait and those that are under way */
    uint64_t durable;
    Error *error;
};

/* --- the task, without the lock --- */

/* All up to the epoch, which took so many bytes of the backlog. */
static void tell_durable(JournalWriter *jw, uint64_t epoch, uint64_t bytes)
{
    task_lock(&jw->lock);
    jw->durable = epoch;
    jw->backlog -= bytes;
    task_broadcast(&jw->changed);
    task_unlock(&jw->lock);
}

static bool make_durable(JournalWriter *jw, const struct epoch_writes *first, const struct epoch_writes *end,
                         Error **errp)
{
    uint64_t bytes = 0, epoch = 0;

    if (first == end)
        return true;
    if (!fault_point("journal.no_sync_before_apply") && !journal_sync(jw->journal, errp))
        return false;
    for (const struct epoch_writes *w = first; w != end; w = w->next) {
        bytes += w->bytes;
        epoch = w->epoch;
    }
    tell_durable(jw, epoch, bytes);
    return true;
}

/* All that is in place, which is all up to the epoch, is on the medium, and need not be in the journal. */
static bool flush_images(JournalWriter *jw, uint64_t epoch, Error **errp)
{
    if (!jw->unflushed)
        return true;
    for (uint32_t i = 0; i < jw->count; i++)
        if (!block_flush(jw->images[i], errp))
            return false;
    jw->unflushed = false;
    jw->unflushed_bytes = 0;
    journal_release(jw->journal, epoch);
    return true;
}

static bool put_in_place(JournalWriter *jw, const struct epoch_writes *w, Error **errp)
{
    if (!w->count)
        return true;
    jw->unflushed = true;
    jw->unflushed_bytes += w->bytes;
    return epoch_writes_apply(w, jw->images, jw->count, false, errp) &&
           (jw->unflushed_bytes < JOURNAL_WRITER_UNFLUSHED || flush_images(jw, w->epoch, errp));
}

/* What is appended, from first to before end, becomes durable and then goes into its place. */
static bool settle(JournalWriter *jw, const struct epoch_writes *first, const struct epoch_writes *end,
                   Error **errp)
{
    if (!make_durable(jw, first, end, errp))
        return false;
    for (const struct epoch_writes *w = first; w != end; w = w->next)
        if (!put_in_place(jw, w, errp))
            return false;
    return true;
}

/* Appends from first on, as long as there is room; *ret_end is the first one that is not in the journal. */
static bool append(JournalWriter *jw, const struct epoch_writes *first, const struct epoch_writes **ret_end,
                   Error **errp)
{
    const struct epoch_writes *w = first;
    bool full = false;

    while (w && (!w->count || journal_append(jw->journal, w, &full, errp)))
        w = w->next;
    *ret_end = w;
    return !w || full;
}

static bool queue_is_empty(JournalWriter *jw)
{
    bool empty;

    task_lock(&jw->lock);
    empty = !jw->first;
    task_unlock(&jw->lock);
    return empty;
}

static bool write_batch(JournalWriter *jw, const struct epoch_writes *batch, Error **errp)
{
    const struct epoch_writes *first = batch, *end;

    for (; first; first = end) {
        if (!append(jw, first, &end, errp) || !settle(jw, first, end, errp))
            return false;
        if (end && !flush_images(jw, EVERYTHING, errp)) /* the journal is full */
            return false;
    }
    return !queue_is_empty(jw) || flush_images(jw, EVERYTHING, errp);
}

static void free_all(struct epoch_writes *w)
{
    while (w) {
        struct epoch_writes *next = w->next;

        epoch_writes_free(w);
        w = next;
    }
}

static void run(void *arg)
{
    JournalWriter *jw = arg;

    task_lock(&jw->lock);
    while (!jw->stopping && !jw->error) {
        struct epoch_writes *batch = jw->first;
        Error *err = NULL;

        if (!batch) {
            task_wait(&jw->changed, &jw->lock);
            continue;
        }
        jw->first = NULL;
        jw->end = &jw->first;
        jw->busy = true;
        task_unlock(&jw->lock);
        write_batch(jw, batch, &err);
        free_all(batch);
        task_lock(&jw->lock);
        jw->busy = false;
        jw->error = err;
        task_broadcast(&jw->changed);
    }
    task_unlock(&jw->lock);
}

/* --- for the others --- */

static bool check_images(const Journal *j, Block *const *images, Error **errp)
{
    const struct journal_identity *identity = journal_get_identity(j);

    for (uint32_t i = 0; i < identity->disk_count; i++)
        if (images[i]->size != identity->disks[i].size) {
            error_setg(errp, "disk %s: the image has %llu bytes, the journal is for one of %llu",
                       images[i]->id, (unsigned long long)images[i]->size,
                       (unsigned long long)identity->disks[i].size);
            return false;
        }
    return true;
}

JournalWriter *journal_writer_new(Journal *j, Block *const *images, uint64_t backlog_limit, Error **errp)
{
    JournalWriter *jw = calloc(1, sizeof(*jw));

    if (!jw) {
        error_setg(errp, "out of memory");
        journal_close(j);
        return NULL;
    }
    jw->journal = j;
    jw->count = journal_get_identity(j)->disk_count;
    memcpy(jw->images, images, jw->count * sizeof(images[0]));
    jw->limit = backlog_limit;
    jw->end = &jw->first;
    task_mutex_init(&jw->lock);
    task_cond_init(&jw->changed);
    if (check_images(j, images, errp))
        jw->task = task_start("journal", run, jw, errp);
    if (jw->task)
        return jw;
    journal_writer_free(jw);
    return NULL;
}

void journal_writer_free(JournalWriter *jw)
{
    if (!jw)
        return;
    task_lock(&jw->lock);
    jw->stopping = true;
    task_broadcast(&jw->changed);
    task_unlock(&jw->lock);
    task_join(jw->task);
    free_all(jw->first);
    journal_close(jw->journal);
    error_free(jw->error);
    task_cond_destroy(&jw->changed);
    task_mutex_destroy(&jw->lock);
    free(jw);
}

/* With the lock. false: it has failed. */
static bool check_error(JournalWriter *jw, Error **errp)
{
    if (jw->error)
        error_propagate(errp, error_copy(jw->error));
    return !jw->error;
}

bool journal_writer_put(JournalWriter *jw, struct epoch_writes *w, Error **errp)
{
    bool ok;

    task_lock(&jw->lock);
    while (jw->backlog >= jw->limit && !jw->error)
        task_wait(&jw->changed, &jw->lock);
    ok = check_error(jw, errp);
    if (ok) {
        w->next = NULL;
        *jw->end = w;
        jw->end = &w->next;
        jw->backlog += w->bytes;
        task_broadcast(&jw->changed);
    }
    task_unlock(&jw->lock);
    if (!ok)
        epoch_writes_free(w);
    return ok;
}

bool journal_writer_drain(JournalWriter *jw, Error **errp)
{
    bool ok;

    task_lock(&jw->lock);
    while ((jw->first || jw->busy) && !jw->error)
        task_wait(&jw->changed, &jw->lock);
    ok = check_error(jw, errp);
    task_unlock(&jw->lock);
    return ok;
}

bool journal_writer_get_error(JournalWriter *jw, Error **errp)
{
    bool ok;

    task_lock(&jw->lock);
    ok = check_error(jw, errp);
    task_unlock(&jw->lock);
    return ok;
}

static uint64_t figure(JournalWriter *jw, const uint64_t *which)
{
    uint64_t value;

    task_lock(&jw->lock);
    value = *which;
    task_unlock(&jw->lock);
    return value;
}

uint64_t journal_writer_backlog(JournalWriter *jw)
{
    return figure(jw, &jw->backlog);
}

uint64_t journal_writer_durable_epoch(JournalWriter *jw)
{
    return figure(jw, &jw->durable);
}
