/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/disk_record.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- where --- */

/* "/dev/vg/web-1" becomes "dev-vg-web\x2d1". */
static bool escape(const char *path, char *buf, size_t size)
{
    size_t n = 0;

    for (path += *path == '/'; *path; path++) {
        unsigned char c = *path;

        if (size - n < 5)
            return false;
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
            (c == '.' && n))
            buf[n++] = c;
        else if (c == '/')
            buf[n++] = '-';
        else
            n += snprintf(buf + n, size - n, "\\x%02x", c);
    }
    buf[n] = 0;
    return true;
}

static bool device_path(const char *device, char *buf, size_t size, Error **errp)
{
    char copy[PATH_MAX], directory[PATH_MAX], whole[2 * PATH_MAX],
        name[NAME_MAX - sizeof(".perdure.new") + 2];
    const char *base = strrchr(device, '/') ? strrchr(device, '/') + 1 : device;

    snprintf(copy, sizeof(copy), "%s", device);
    if (!realpath(dirname(copy), directory)) {
        error_setg_errno(errp, errno, "%s: cannot find its directory", device);
        return false;
    }
    snprintf(whole, sizeof(whole), "%s/%s", strcmp(directory, "/") ? directory : "", base);
    if (escape(whole, name, sizeof(name)) &&
        snprintf(buf, size, "%s/%s.perdure", DISK_RECORD_DEVICES, name) < (int)size)
        return true;
    error_setg(errp, "%s: the name is too long for a disk record", device);
    return false;
}

bool disk_record_path(const char *image, char *buf, size_t size, Error **errp)
{
    char real[PATH_MAX];
    struct stat st;

    if (stat(image, &st) < 0 || !realpath(image, real)) {
        error_setg_errno(errp, errno, "disk image %s: cannot find it", image);
        return false;
    }
    if (S_ISBLK(st.st_mode))
        return device_path(image, buf, size, errp);
    if (snprintf(buf, size, "%s.perdure", real) < (int)size)
        return true;
    error_setg(errp, "disk image %s: the name is too long for a disk record", image);
    return false;
}

/* --- reading --- */

/* The file's bytes; one more than a record may have is enough. */
static bool read_all(int fd, char *buf, size_t size, size_t *ret_n)
{
    ssize_t got;

    *ret_n = 0;
    while (*ret_n < size && (got = read(fd, buf + *ret_n, size - *ret_n)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        *ret_n += got;
    }
    return true;
}

static bool load_fd(int fd, const char *path, struct disk_record *ret_record, Error **errp)
{
    char text[DISK_RECORD_TEXT_SIZE];
    struct stat st;
    size_t n;

    if (fstat(fd, &st) < 0 || (S_ISREG(st.st_mode) && !read_all(fd, text, sizeof(text), &n))) {
        error_setg_errno(errp, errno, "disk record %s: cannot read it", path);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        error_setg(errp, "disk record %s: this is no file", path);
        return false;
    }
    return disk_record_parse(text, n, path, ret_record, errp);
}

bool disk_record_load(const char *path, struct disk_record *ret_record, Error **errp)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool ok;

    if (fd < 0 && errno == ENOENT) {
        *ret_record = (struct disk_record){.role = DISK_NO_RECORD};
        return true;
    }
    if (fd < 0) {
        error_setg_errno(errp, errno, "disk record %s: cannot open it", path);
        return false;
    }
    ok = load_fd(fd, path, ret_record, errp);
    close(fd);
    return ok;
}

/* --- writing --- */

/* The directory that path lies in: what was created or renamed there is durable. */
static bool sync_directory(const char *path, Error **errp)
{
    char copy[DISK_RECORD_PATH_SIZE];
    int fd;
    bool ok;

    snprintf(copy, sizeof(copy), "%s", path);
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ok = fd >= 0 && fsync(fd) == 0;
    if (!ok)
        error_setg_errno(errp, errno, "disk record %s: cannot sync its directory", path);
    if (fd >= 0)
        close(fd);
    return ok;
}

/* DISK_RECORD_DEVICES, if path lies there. */
static bool make_directory(const char *path, Error **errp)
{
    static const char *const directories[] = {"/var/lib/perdure", DISK_RECORD_DEVICES};

    if (strncmp(path, DISK_RECORD_DEVICES "/", sizeof(DISK_RECORD_DEVICES)))
        return true;
    for (int i = 0; i < 2; i++) {
        if (mkdir(directories[i], 0755) == 0) {
            if (!sync_directory(directories[i], errp))
                return false;
        } else if (errno != EEXIST) {
            error_setg_errno(errp, errno, "disk record %s: cannot create directory %s", path, directories[i]);
            return false;
        }
    }
    return true;
}

static bool write_all(int fd, const char *text, size_t n)
{
    while (n) {
        ssize_t put = write(fd, text, n);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        text += put;
        n -= put;
    }
    return true;
}

/* A whole file, on the medium. */
static bool write_file(const char *path, const char *text, size_t n, Error **errp)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    bool ok = fd >= 0 && write_all(fd, text, n) && fsync(fd) == 0;

    if (!ok)
        error_setg_errno(errp, errno, "disk record %s: cannot write it", path);
    if (fd >= 0)
        close(fd);
    return ok;
}

bool disk_record_store(const char *path, const struct disk_record *r, Error **errp)
{
    char text[DISK_RECORD_TEXT_SIZE], temporary[DISK_RECORD_PATH_SIZE + 4];
    size_t n = disk_record_format(r, text);

    if (!make_directory(path, errp))
        return false;
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    if (!write_file(temporary, text, n, errp)) {
        unlink(temporary);
        return false;
    }
    if (rename(temporary, path) < 0) {
        error_setg_errno(errp, errno, "disk record %s: cannot replace it by %s", path, temporary);
        unlink(temporary);
        return false;
    }
    return sync_directory(path, errp);
}
