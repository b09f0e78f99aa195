/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file:DIR: a record PAIR.GENERATION, made exclusively. It is written and synced under another name first and
 * then linked to its own: so it is there whole or not at all, also after a power cut, and whoever comes
 * second reads who was first.
 *
 * A file system may hang, and what waits for it cannot be interrupted. So each try is made by a task of its
 * own; a try that hangs keeps nobody, and no other one is begun before it has come back.
 */
#include "engine/arbiter_kinds.h"
#include "base/random.h"
#include "base/task.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK  (10 * NS_PER_MS)
#define GRACE (100 * NS_PER_MS)

struct
try {
    char dir[1024], name[80];
    enum arbiter_side side;
    Task *task;
    struct task_mutex lock; /* all that follows */
    struct task_cond changed;
    bool done;
    enum arbiter_answer answer;
    Error *err;
};

struct file_arbiter {
    Arbiter a;
    char dir[1024];
    struct try *pending; /* it hung when its claim was over */
};

static const char *const side_names[] = {[ARBITER_PRIMARY] = "primary", [ARBITER_BACKUP] = "backup"};

/* Makes temp, which holds the side's name, and is on the disk. */
static bool write_record(int dir, const char *temp, enum arbiter_side side, Error **errp)
{
    const char *text = side_names[side];
    int fd = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    size_t n = strlen(text);
    bool ok;

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot create a claim");
        return false;
    }
    ok = write(fd, text, n) == (ssize_t)n && !fsync(fd);
    if (!ok)
        error_setg_errno(errp, errno, "cannot write a claim");
    close(fd);
    return ok;
}

/* Who was first? */
static enum arbiter_answer read_record(int dir, const char *name, enum arbiter_side side, Error **errp)
{
    char text[16] = "";
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    int errnum = errno;

    if (fd >= 0)
        close(fd);
    if (n < 0) {
        error_setg_errno(errp, errnum, "cannot read claim %s", name);
        return ARBITER_UNKNOWN;
    }
    if (!strcmp(text, side_names[side]))
        return ARBITER_GRANTED;
    if (!strcmp(text, side_names[!side]))
        return ARBITER_DENIED;
    error_setg(errp, "claim %s is damaged", name);
    return ARBITER_UNKNOWN;
}

/* link() that succeeded may still report a failure over NFS: the record itself tells. */
static enum arbiter_answer settle(int dir, const char *temp, const char *name, enum arbiter_side side,
                                  Error **errp)
{
    if (linkat(dir, temp, dir, name, 0) && errno != EEXIST) {
        error_setg_errno(errp, errno, "cannot record claim %s", name);
        return ARBITER_UNKNOWN;
    }
    if (fsync(dir)) {
        error_setg_errno(errp, errno, "cannot sync claim %s", name);
        return ARBITER_UNKNOWN;
    }
    return read_record(dir, name, side, errp);
}

static enum arbiter_answer record_claim(const struct try *t, Error **errp)
{
    enum arbiter_answer answer = ARBITER_UNKNOWN;
    int dir = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char temp[120];
    uint64_t nonce;

    if (dir < 0) {
        error_setg_errno(errp, errno, "arbiter directory %s", t->dir);
        return answer;
    }
    random_bytes(&nonce, sizeof(nonce));
    snprintf(temp, sizeof(temp), ".%s.%016" PRIx64, t->name, nonce);
    if (write_record(dir, temp, t->side, errp))
        answer = settle(dir, temp, t->name, t->side, errp);
    unlinkat(dir, temp, 0);
    close(dir);
    if (answer == ARBITER_UNKNOWN)
        error_prepend(errp, "arbiter directory %s: ", t->dir);
    return answer;
}

static void try_run(void *arg)
{
    struct try *t = arg;
    Error *err = NULL;
    enum arbiter_answer answer = record_claim(t, &err);

    task_lock(&t->lock);
    t->answer = answer;
    t->err = err;
    t->done = true;
    task_broadcast(&t->changed);
    task_unlock(&t->lock);
}

static struct try *try_begin(const char *dir, const struct arbiter_claim *c, Error **errp)
{
    struct try *t = calloc(1, sizeof(*t));

    if (!t) {
        error_setg(errp, "out of memory");
        return NULL;
    }
    snprintf(t->dir, sizeof(t->dir), "%s", dir);
    snprintf(t->name, sizeof(t->name), "%s.%" PRIu64, c->pair, c->generation);
    t->side = c->side;
    task_mutex_init(&t->lock);
    task_cond_init(&t->changed);
    t->task = task_start("claim", try_run, t, errp);
    if (t->task)
        return t;
    task_cond_destroy(&t->changed);
    task_mutex_destroy(&t->lock);
    free(t);
    return NULL;
}

static bool try_wait(struct try *t, const struct arbiter_claim *c, int64_t deadline)
{
    bool done;

    task_lock(&t->lock);
    while (!t->done && !arbiter_gave_up(c, deadline))
        task_wait_until(&t->changed, &t->lock, clock_now() + LOOK);
    done = t->done;
    task_unlock(&t->lock);
    return done;
}

/* Of one that is done. */
static enum arbiter_answer try_end(struct try *t, Error **errp)
{
    enum arbiter_answer answer = t->answer;

    task_join(t->task);
    error_propagate(errp, t->err);
    task_cond_destroy(&t->changed);
    task_mutex_destroy(&t->lock);
    free(t);
    return answer;
}

static enum arbiter_answer hangs(const struct file_arbiter *fa, Error **errp)
{
    error_setg(errp, "arbiter directory %s: its file system does not answer", fa->dir);
    return ARBITER_UNKNOWN;
}

static enum arbiter_answer claim(Arbiter *a, const struct arbiter_claim *c, int64_t deadline, Error **errp)
{
    struct file_arbiter *fa = (struct file_arbiter *)a;
    struct try *t = fa->pending;

    if (t && !try_wait(t, c, deadline))
        return hangs(fa, errp);
    if (t)
        try_end(t, NULL); /* perhaps of another claim: asked again */
    fa->pending = NULL;
    t = try_begin(fa->dir, c, errp);
    if (!t)
        return ARBITER_UNKNOWN;
    if (try_wait(t, c, deadline))
        return try_end(t, errp);
    fa->pending = t;
    return hangs(fa, errp);
}

/* A try that hangs is left behind; one that was only cut short gets a moment to end in order. */
static void file_free(Arbiter *a)
{
    struct file_arbiter *fa = (struct file_arbiter *)a;
    struct arbiter_claim none = {0};

    if (fa->pending && try_wait(fa->pending, &none, clock_now() + GRACE))
        try_end(fa->pending, NULL);
    free(fa);
}

static const struct arbiter_ops file_ops = {.claim = claim, .free = file_free};

Arbiter *arbiter_file_new(const char *dir, Error **errp)
{
    struct file_arbiter *fa;

    if (strlen(dir) >= sizeof(fa->dir) || access(dir, R_OK | W_OK | X_OK)) {
        error_setg(errp, "arbiter file:%s: no directory that can be written to", dir);
        return NULL;
    }
    fa = calloc(1, sizeof(*fa));
    if (!fa) {
        error_setg(errp, "out of memory");
        return NULL;
    }
    fa->a.ops = &file_ops;
    snprintf(fa->dir, sizeof(fa->dir), "%s", dir);
    return &fa->a;
}
