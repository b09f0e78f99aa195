/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "played_channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct played_channel {
    Channel ch; /* first */
    struct task_mutex lock;
    struct task_cond changed;
    struct played_part parts[2]; /* what is left */
    bool silent, down, answers;
    struct rig_bytes *heard;
};

static size_t take(struct played_part *p, void *buf, size_t n)
{
    n = n < p->size ? n : p->size;
    if (!n)
        return 0;
    memcpy(buf, p->data, n);
    p->data = (const uint8_t *)p->data + n;
    p->size -= n;
    return n;
}

/* Lock held. 0, ETIMEDOUT or ECANCELED. */
static int be_silent(struct played_channel *c, int64_t deadline)
{
    while (!c->down)
        if (!task_wait_until(&c->changed, &c->lock, deadline))
            return ETIMEDOUT;
    return ECANCELED;
}

static ssize_t played_read(Channel *ch, void *buf, size_t n, int64_t deadline, Error **errp)
{
    struct played_channel *c = (struct played_channel *)ch;
    size_t taken = 0;
    int errnum = 0;

    task_lock(&c->lock);
    if (c->down)
        errnum = ECANCELED;
    else if (c->answers && c->parts[0].size && deadline <= clock_now())
        errnum = ETIMEDOUT;
    else if (!(taken = take(&c->parts[0], buf, n)) && !(taken = take(&c->parts[1], buf, n)) && c->silent)
        errnum = be_silent(c, deadline);
    task_unlock(&c->lock);
    if (!errnum)
        return (ssize_t)taken;
    error_setg_errno(errp, errnum,
                     errnum == ETIMEDOUT ? "%s did not answer in time"
                                         : "the connection to %s was shut down here",
                     ch->peer);
    return -1;
}

static bool played_write(Channel *ch, const struct iovec *iov, int n, int64_t deadline, Error **errp)
{
    struct played_channel *c = (struct played_channel *)ch;
    bool down;

    (void)deadline;
    task_lock(&c->lock);
    down = c->down;
    for (int i = 0; i < n && !down && c->heard; i++)
        rig_bytes_add(c->heard, iov[i].iov_base, iov[i].iov_len);
    task_unlock(&c->lock);
    if (down)
        error_setg_errno(errp, ECANCELED, "the connection to %s was shut down here", ch->peer);
    return !down;
}

static void played_shutdown(Channel *ch)
{
    struct played_channel *c = (struct played_channel *)ch;

    task_lock(&c->lock);
    c->down = true;
    task_broadcast(&c->changed);
    task_unlock(&c->lock);
}

static void played_close(Channel *ch)
{
    struct played_channel *c = (struct played_channel *)ch;

    task_cond_destroy(&c->changed);
    task_mutex_destroy(&c->lock);
    free(c);
}

static const struct channel_ops played_ops = {
    .read = played_read, .write = played_write, .shutdown = played_shutdown, .close = played_close};

Channel *played_channel_new(const struct played_part parts[2], bool silent, struct rig_bytes *heard)
{
    struct played_channel *c = calloc(1, sizeof(*c));

    if (!c)
        abort();
    c->ch.ops = &played_ops;
    c->ch.deadline = TIME_NEVER;
    snprintf(c->ch.peer, sizeof(c->ch.peer), "played");
    task_mutex_init(&c->lock);
    task_cond_init(&c->changed);
    c->parts[0] = parts[0];
    c->parts[1] = parts[1];
    c->silent = silent;
    c->heard = heard;
    return &c->ch;
}

Channel *played_answers_new(const struct played_part *answers, bool silent, struct rig_bytes *heard)
{
    Channel *ch = played_channel_new((struct played_part[]){*answers, {NULL, 0}}, silent, heard);

    ((struct played_channel *)ch)->answers = true;
    return ch;
}
