/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool sync_directory(const char *path, Error **errp)
{
    char dir[1100];
    int fd;
    bool ok;

    snprintf(dir, sizeof(dir), "%s", path);
    fd = open(dirname(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ok = fd >= 0 && fsync(fd) == 0;
    if (!ok)
        error_setg_errno(errp, errno, "%s: cannot sync its directory", path);
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool save_to_fd(Machine *m, int fd, const char *path, Error **errp)
{
    VMStream *f = perdure_stream_open_fd(fd, "w", errp);
    bool ok;

    if (!f)
        return false;
    ok = machine_save(m, f, errp) && perdure_stream_flush(f, errp);
    perdure_stream_close(f);
    if (ok && fsync(fd) < 0) {
        error_setg_errno(errp, errno, "%s: cannot sync", path);
        ok = false;
    }
    return ok;
}

bool state_file_save(Machine *m, const char *path, Error **errp)
{
    char temporary[1100];
    bool ok;
    int fd;

    snprintf(temporary, sizeof(temporary), "%s.partial", path);
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        error_setg_errno(errp, errno, "%s: cannot write the state file", temporary);
        return false;
    }
    ok = save_to_fd(m, fd, temporary, errp);
    close(fd);
    if (ok && rename(temporary, path) < 0) {
        error_setg_errno(errp, errno, "%s: cannot rename it to %s", temporary, path);
        ok = false;
    }
    if (!ok) {
        unlink(temporary);
        return false;
    }
    return sync_directory(path, errp);
}

Machine *state_file_restore(const char *path, const struct machine_config *host, Error **errp)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    Machine *m = NULL;
    VMStream *f;

    if (fd < 0) {
        error_setg_errno(errp, errno, "--restore %s: cannot open it", path);
        return NULL;
    }
    f = perdure_stream_open_fd(fd, "r", errp);
    if (f)
        m = machine_restore(f, host, errp);
    if (!m)
        error_prepend(errp, "--restore %s: ", path);
    perdure_stream_close(f);
    close(fd);
    return m;
}
