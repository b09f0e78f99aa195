/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "net/held_queue.h"
#include "base/task.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Epochs that are closed and not yet released; the engine has few in flight. */
#define EPOCHS_MAX 16

struct held_epoch {
    uint64_t number;
    uint64_t end; /* write position when it was closed */
};

struct held_queue {
    struct task_mutex lock;
    bool holding;
    uint8_t *ring;
    size_t size;
    uint64_t read, write; /* positions since the beginning: index is position % size */
    uint64_t open_start;  /* where the open epoch began */
    struct held_epoch closed[EPOCHS_MAX];
    size_t closed_count;
    uint64_t last_closed, last_released;
};

struct held_queue *held_queue_new(size_t limit, Error **errp)
{
    struct held_queue *q = calloc(1, sizeof(*q));

    if (q)
        q->ring = malloc(limit);
    if (!q || !q->ring) {
        error_setg_errno(errp, ENOMEM, "output buffer of %zu bytes", limit);
        free(q);
        return NULL;
    }
    /* Touched here, so that no page fault falls into the guest's time. */
    memset(q->ring, 0, limit);
    q->size = limit;
    task_mutex_init(&q->lock);
    return q;
}

void held_queue_free(struct held_queue *q)
{
    if (!q)
        return;
    task_mutex_destroy(&q->lock);
    free(q->ring);
    free(q);
}

void held_queue_hold(struct held_queue *q)
{
    task_lock(&q->lock);
    q->holding = true;
    q->read = q->write = q->open_start = 0;
    q->closed_count = 0;
    q->last_closed = q->last_released = 0;
    task_unlock(&q->lock);
}

bool held_queue_holding(struct held_queue *q)
{
    bool holding;

    task_lock(&q->lock);
    holding = q->holding;
    task_unlock(&q->lock);
    return holding;
}

static void ring_put(struct held_queue *q, const void *data, size_t size)
{
    size_t at = q->write % q->size, first = size < q->size - at ? size : q->size - at;

    memcpy(q->ring + at, data, first);
    memcpy(q->ring, (const uint8_t *)data + first, size - first);
    q->write += size;
}

static void ring_get(struct held_queue *q, void *data, size_t size)
{
    size_t at = q->read % q->size, first = size < q->size - at ? size : q->size - at;

    memcpy(data, q->ring + at, first);
    memcpy((uint8_t *)data + first, q->ring, size - first);
    q->read += size;
}

/* Lock held. */
static size_t room(const struct held_queue *q)
{
    size_t left = q->size - (size_t)(q->write - q->read);

    if (left <= sizeof(uint32_t))
        return 0;
    left -= sizeof(uint32_t);
    return left < HELD_MESSAGE_MAX ? left : HELD_MESSAGE_MAX;
}

size_t held_queue_room(struct held_queue *q)
{
    size_t left;

    task_lock(&q->lock);
    left = room(q);
    task_unlock(&q->lock);
    return left;
}

enum held_answer held_queue_put(struct held_queue *q, const struct iovec *iov, int n)
{
    enum held_answer answer = HELD_NOT_HOLDING;
    uint32_t size = 0;

    for (int i = 0; i < n; i++)
        size += iov[i].iov_len;
    task_lock(&q->lock);
    if (q->holding && size > room(q)) {
        answer = HELD_FULL;
    } else if (q->holding) {
        answer = q->write == q->open_start ? HELD_TAKEN_FIRST : HELD_TAKEN;
        ring_put(q, &size, sizeof(size));
        for (int i = 0; i < n; i++)
            ring_put(q, iov[i].iov_base, iov[i].iov_len);
    }
    task_unlock(&q->lock);
    return answer;
}

bool held_queue_close_epoch(struct held_queue *q, uint64_t epoch, Error **errp)
{
    const char *why = NULL;

    task_lock(&q->lock);
    if (!q->holding)
        why = "output is not held";
    else if (epoch <= q->last_closed)
        why = "a later epoch was closed before";
    else if (q->closed_count == EPOCHS_MAX)
        why = "too many epochs wait for their release";
    if (!why) {
        q->closed[q->closed_count++] = (struct held_epoch){epoch, q->write};
        q->last_closed = epoch;
        q->open_start = q->write;
    }
    task_unlock(&q->lock);
    if (why)
        error_setg(errp, "cannot close epoch %" PRIu64 ": %s", epoch, why);
    return !why;
}

/* How far messages may be taken. Lock held. */
static uint64_t limit_of(const struct held_queue *q, uint64_t epoch)
{
    uint64_t limit = q->read;

    if (epoch == HELD_EVERYTHING)
        return q->write;
    for (size_t i = 0; i < q->closed_count && q->closed[i].number <= epoch; i++)
        limit = q->closed[i].end;
    return limit;
}

size_t held_queue_take(struct held_queue *q, uint64_t epoch, void *buf)
{
    uint32_t size = 0;

    task_lock(&q->lock);
    if (q->read < limit_of(q, epoch)) {
        ring_get(q, &size, sizeof(size));
        ring_get(q, buf, size);
    } else if (epoch != HELD_EVERYTHING) {
        size_t done = 0;
        while (done < q->closed_count && q->closed[done].number <= epoch)
            done++;
        q->closed_count -= done;
        memmove(q->closed, q->closed + done, q->closed_count * sizeof(q->closed[0]));
        q->last_released = epoch;
    }
    task_unlock(&q->lock);
    return size;
}

void held_queue_pass(struct held_queue *q, bool forget)
{
    task_lock(&q->lock);
    q->holding = false;
    q->closed_count = 0;
    if (forget)
        q->read = q->write;
    task_unlock(&q->lock);
}

bool held_queue_may_release(struct held_queue *q, uint64_t epoch, Error **errp)
{
    bool may;

    task_lock(&q->lock);
    may = q->holding && epoch <= q->last_closed && epoch > q->last_released;
    task_unlock(&q->lock);
    if (!may)
        error_setg(errp, "cannot release epoch %" PRIu64 ": it was not closed, or is released already",
                   epoch);
    return may;
}
