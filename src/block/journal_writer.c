/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/journal_writer.h"
#include "base/fault.h"

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
    bool images_failed; /* what comes goes into the journal, and no further */
    bool unflushed;     /* something is in place and perhaps not on the medium */
    uint64_t unflushed_bytes;
    int64_t flush_at;
    /* shared */
    struct task_mutex lock;
    struct task_cond changed;
    struct epoch_writes *first, **end; /* waiting */
    bool busy, stopping, draining;
    bool unsettled;             /* what is in place has to be flushed, and can be */
    bool journal_failed;        /* nothing is written any more */
    uint64_t backlog;           /* bytes, of those that wait and those that are under way */
    uint64_t durable, in_place; /* epochs, the last ones */
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
    if (!jw->unflushed)
        jw->flush_at = clock_now() + JOURNAL_WRITER_UNFLUSHED_NS;
    jw->unflushed = true;
    jw->unflushed_bytes += w->bytes;
    return epoch_writes_apply(w, jw->images, jw->count, false, errp) &&
           (jw->unflushed_bytes < JOURNAL_WRITER_UNFLUSHED || flush_images(jw, w->epoch, errp));
}

/* Lock not held. The first one is kept. */
static void tell_error(JournalWriter *jw, Error *err)
{
    task_lock(&jw->lock);
    if (jw->error)
        error_free(err);
    else
        jw->error = err;
    task_broadcast(&jw->changed);
    task_unlock(&jw->lock);
}

static void tell_in_place(JournalWriter *jw, uint64_t epoch)
{
    task_lock(&jw->lock);
    jw->in_place = epoch;
    task_broadcast(&jw->changed);
    task_unlock(&jw->lock);
}

/* What is durable, from first to before end, goes into its place. */
static void apply(JournalWriter *jw, const struct epoch_writes *first, const struct epoch_writes *end)
{
    Error *err = NULL;

    for (const struct epoch_writes *w = first; w != end && !jw->images_failed; w = w->next) {
        jw->images_failed = !put_in_place(jw, w, &err);
        if (!jw->images_failed)
            tell_in_place(jw, w->epoch);
    }
    if (err)
        tell_error(jw, err);
}

/* The journal has no room for the next one. */
static bool make_room(JournalWriter *jw, Error **errp)
{
    if (!jw->images_failed)
        return flush_images(jw, EVERYTHING, errp);
    error_setg(errp, "the journal is full, and what it holds cannot be put in place");
    return false;
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

static bool write_batch(JournalWriter *jw, const struct epoch_writes *batch, Error **errp)
{
    const struct epoch_writes *first = batch, *end;

    for (; first; first = end) {
        if (!append(jw, first, &end, errp) || !make_durable(jw, first, end, errp))
            return false;
        apply(jw, first, end);
        if (end && !make_room(jw, errp))
            return false;
    }
    return true;
}

static void free_all(struct epoch_writes *w)
{
    while (w) {
        struct epoch_writes *next = w->next;

        epoch_writes_free(w);
        w = next;
    }
}

/* --- its turns; lock held, but not while it is busy --- */

static void begin_work(JournalWriter *jw)
{
    jw->busy = true;
    task_unlock(&jw->lock);
}

static void end_work(JournalWriter *jw)
{
    task_lock(&jw->lock);
    jw->busy = false;
    jw->unsettled = jw->unflushed && !jw->images_failed;
    task_broadcast(&jw->changed);
}

static void write_all(JournalWriter *jw)
{
    struct epoch_writes *batch = jw->first;
    Error *err = NULL;
    bool ok;

    jw->first = NULL;
    jw->end = &jw->first;
    begin_work(jw);
    ok = write_batch(jw, batch, &err);
    free_all(batch);
    if (!ok)
        tell_error(jw, err);
    end_work(jw);
    jw->journal_failed = !ok;
}

static void flush_all(JournalWriter *jw)
{
    Error *err = NULL;

    begin_work(jw);
    jw->images_failed = !flush_images(jw, EVERYTHING, &err);
    if (err)
        tell_error(jw, err);
    end_work(jw);
}

static bool flush_is_due(JournalWriter *jw)
{
    return jw->unsettled && (jw->draining || clock_now() >= jw->flush_at);
}

static void run(void *arg)
{
    JournalWriter *jw = arg;

    task_lock(&jw->lock);
    while (!jw->stopping && !jw->journal_failed) {
        if (jw->first)
            write_all(jw);
        else if (flush_is_due(jw))
            flush_all(jw);
        else if (jw->unsettled)
            task_wait_until(&jw->changed, &jw->lock, jw->flush_at);
        else
            task_wait(&jw->changed, &jw->lock);
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

static bool has_work(const JournalWriter *jw)
{
    return !jw->journal_failed && (jw->busy || jw->first || jw->unsettled);
}

bool journal_writer_drain(JournalWriter *jw, Error **errp)
{
    bool ok;

    task_lock(&jw->lock);
    jw->draining = true;
    task_broadcast(&jw->changed);
    while (has_work(jw) && !fault_point("journal.no_drain"))
        task_wait(&jw->changed, &jw->lock);
    jw->draining = false;
    ok = check_error(jw, errp);
    task_unlock(&jw->lock);
    return ok;
}

bool journal_writer_wait_in_place(JournalWriter *jw, uint64_t epoch, Error **errp)
{
    bool ok;

    task_lock(&jw->lock);
    while (jw->in_place < epoch && !jw->error)
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
