/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A pair of channels in memory, made of tasks and conditions only: it works on the simulator's fibers too.
 */
#include "stream/channel.h"
#include "base/task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIPE_SIZE (256 * 1024)

/* One direction. */
struct pipe {
    uint8_t data[PIPE_SIZE];
    uint64_t written, read; /* ever; the bytes between them are in data */
    bool writer_gone, reader_gone;
};

/* Shared by both ends; the last one to close frees it. */
struct pair {
    struct task_mutex mutex;
    struct task_cond changed;
    struct pipe pipes[2]; /* pipes[i] is written by end i */
    int open_ends;
};

struct memory_channel {
    Channel ch;
    struct pair *pair;
    struct pipe *in, *out;
    bool down;
};

static void fail(struct memory_channel *m, int errnum, Error **errp)
{
    if (errnum == ETIMEDOUT)
        error_setg_errno(errp, errnum, "%s did not answer in time", m->ch.peer);
    else if (errnum == ECANCELED)
        error_setg_errno(errp, errnum, "the connection to %s was shut down here", m->ch.peer);
    else
        error_setg_errno(errp, errnum, "cannot write to %s", m->ch.peer);
}

/* Copies between buf and the ring, at most up to its edge; how much. */
static size_t ring_put(struct pipe *p, const void *buf, size_t n)
{
    size_t at = p->written % PIPE_SIZE, room = PIPE_SIZE - (size_t)(p->written - p->read);

    n = n < room ? n : room;
    n = n < PIPE_SIZE - at ? n : PIPE_SIZE - at;
    memcpy(p->data + at, buf, n);
    p->written += n;
    return n;
}

static size_t ring_get(struct pipe *p, void *buf, size_t n)
{
    size_t at = p->read % PIPE_SIZE, there = (size_t)(p->written - p->read);

    n = n < there ? n : there;
    n = n < PIPE_SIZE - at ? n : PIPE_SIZE - at;
    memcpy(buf, p->data + at, n);
    p->read += n;
    return n;
}

static ssize_t memory_read(Channel *ch, void *buf, size_t n, int64_t deadline, Error **errp)
{
    struct memory_channel *m = (struct memory_channel *)ch;
    ssize_t r = 0;
    int errnum = 0;

    task_lock(&m->pair->mutex);
    while (!m->down && m->in->read == m->in->written && !m->in->writer_gone && !errnum)
        if (!task_wait_until(&m->pair->changed, &m->pair->mutex, deadline))
            errnum = ETIMEDOUT;
    if (m->down)
        errnum = ECANCELED;
    else
        r = (ssize_t)ring_get(m->in, buf, n);
    if (r || m->in->writer_gone)
        errnum = m->down ? ECANCELED : 0;
    task_broadcast(&m->pair->changed);
    task_unlock(&m->pair->mutex);
    if (!errnum)
        return r;
    fail(m, errnum, errp);
    return -1;
}

/* Writes what one buffer holds. Lock held. 0 or an errno. */
static int write_one(struct memory_channel *m, const struct iovec *iov, int64_t deadline)
{
    const uint8_t *p = iov->iov_base;
    size_t left = iov->iov_len;

    while (left) {
        size_t n;

        if (m->down)
            return ECANCELED;
        if (m->out->reader_gone)
            return EPIPE;
        n = ring_put(m->out, p, left);
        p += n;
        left -= n;
        task_broadcast(&m->pair->changed);
        if (!n && !task_wait_until(&m->pair->changed, &m->pair->mutex, deadline))
            return ETIMEDOUT;
    }
    return 0;
}

static bool memory_write(Channel *ch, const struct iovec *iov, int n, int64_t deadline, Error **errp)
{
    struct memory_channel *m = (struct memory_channel *)ch;
    int errnum = 0;

    task_lock(&m->pair->mutex);
    for (int i = 0; i < n && !errnum; i++)
        errnum = write_one(m, &iov[i], deadline);
    task_unlock(&m->pair->mutex);
    if (errnum)
        fail(m, errnum, errp);
    return !errnum;
}

static void memory_shutdown(Channel *ch)
{
    struct memory_channel *m = (struct memory_channel *)ch;

    task_lock(&m->pair->mutex);
    m->down = true;
    m->out->writer_gone = true;
    m->in->reader_gone = true;
    task_broadcast(&m->pair->changed);
    task_unlock(&m->pair->mutex);
}

static void pair_free(struct pair *pair)
{
    task_cond_destroy(&pair->changed);
    task_mutex_destroy(&pair->mutex);
    free(pair);
}

static void memory_close(Channel *ch)
{
    struct memory_channel *m = (struct memory_channel *)ch;
    bool last;

    memory_shutdown(ch);
    task_lock(&m->pair->mutex);
    last = --m->pair->open_ends == 0;
    task_unlock(&m->pair->mutex);
    if (last)
        pair_free(m->pair);
    free(m);
}

static const struct channel_ops memory_ops = {
    .read = memory_read,
    .write = memory_write,
    .shutdown = memory_shutdown,
    .close = memory_close,
};

bool channel_pair_new(Channel *ret[2], Error **errp)
{
    struct memory_channel *m[2] = {calloc(1, sizeof(*m[0])), calloc(1, sizeof(*m[0]))};
    struct pair *pair = calloc(1, sizeof(*pair));

    if (!pair || !m[0] || !m[1]) {
        free(pair);
        free(m[0]);
        free(m[1]);
        error_setg_errno(errp, ENOMEM, "cannot make a pair of channels");
        return false;
    }
    task_mutex_init(&pair->mutex);
    task_cond_init(&pair->changed);
    pair->open_ends = 2;
    for (int i = 0; i < 2; i++) {
        m[i]->ch.ops = &memory_ops;
        m[i]->ch.deadline = TIME_NEVER;
        snprintf(m[i]->ch.peer, sizeof(m[i]->ch.peer), "memory:%d", 1 - i);
        m[i]->pair = pair;
        m[i]->out = &pair->pipes[i];
        m[i]->in = &pair->pipes[1 - i];
        ret[i] = &m[i]->ch;
    }
    return true;
}
