/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* temporary */
#include "block/disk_record.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static const char *const names[] = {"none", "clean", "primary", "standby", "sync-target", "superseded"};
const char *disk_role_name(enum disk_role r)
{
    return names[r];
}
bool disk_record_path(const char *image, char *buf, size_t size, Error **errp)
{
    (void)errp;
    snprintf(buf, size, "%s.perdure", image);
    return true;
}
bool disk_record_load(const char *path, struct disk_record *r, Error **errp)
{
    int fd = open(path, O_RDONLY);
    memset(r, 0, sizeof(*r));
    if (fd < 0)
        return true;
    if (read(fd, r, sizeof(*r)) != sizeof(*r)) {
        error_setg(errp, "bad");
        close(fd);
        return false;
    }
    close(fd);
    return true;
}
bool disk_record_store(const char *path, const struct disk_record *r, Error **errp)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, r, sizeof(*r)) != sizeof(*r)) {
        error_setg_errno(errp, errno, "store");
        return false;
    }
    fsync(fd);
    close(fd);
    return true;
}
