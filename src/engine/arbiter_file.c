/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file:DIR: a record PAIR.GENERATION, made exclusively. It is written and synced under another name first and
 * then linked to its own: so it is there whole or not at all, also after a power cut, and whoever comes
 * second reads who was first.
 */
#include "engine/arbiter_kinds.h"
#include "base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct file_arbiter {
    Arbiter a;
    char dir[1024];
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

static enum arbiter_answer claim(Arbiter *a, const struct arbiter_claim *c, int64_t deadline, Error **errp)
{
    struct file_arbiter *fa = (struct file_arbiter *)a;
    enum arbiter_answer answer = ARBITER_UNKNOWN;
    int dir = open(fa->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char name[80], temp[120];
    uint64_t nonce;

    (void)deadline; /* a file system that hangs cannot be interrupted */
    if (dir < 0) {
        error_setg_errno(errp, errno, "arbiter directory %s", fa->dir);
        return answer;
    }
    random_bytes(&nonce, sizeof(nonce));
    snprintf(name, sizeof(name), "%s.%" PRIu64, c->pair, c->generation);
    snprintf(temp, sizeof(temp), ".%s.%016" PRIx64, name, nonce);
    if (write_record(dir, temp, c->side, errp))
        answer = settle(dir, temp, name, c->side, errp);
    unlinkat(dir, temp, 0);
    close(dir);
    if (answer == ARBITER_UNKNOWN)
        error_prepend(errp, "arbiter directory %s: ", fa->dir);
    return answer;
}

static void file_free(Arbiter *a)
{
    free(a);
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
