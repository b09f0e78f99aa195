/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/raw_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct RawImage {
    int fd;
    uint64_t size;
    bool readonly;
    char *id, *path;
};

static bool lock(RawImage *image, Error **errp)
{
    struct flock fl = {.l_type = image->readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(image->fd, F_OFD_SETLK, &fl) == 0)
        return true;
    if (errno == EAGAIN || errno == EACCES)
        error_setg_errno(errp, errno, "disk %s: image %s is in use by another process%s", image->id,
                         image->path,
                         image->readonly ? " that writes it" : "; a disk can be written by one machine only");
    else
        error_setg_errno(errp, errno, "disk %s: cannot lock image %s", image->id, image->path);
    return false;
}

static bool open_image(RawImage *image, Error **errp)
{
    struct stat st;
    off_t end;

    image->fd = open(image->path, (image->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (image->fd < 0 || fstat(image->fd, &st) < 0) {
        error_setg_errno(errp, errno, "disk %s: cannot open image %s%s", image->id, image->path,
                         errno == EACCES || errno == EROFS
                             ? " for writing (readonly=on needs no permission to write)"
                             : "");
        return false;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        error_setg(errp, "disk %s: %s is neither a file nor a block device", image->id, image->path);
        return false;
    }
    if (!lock(image, errp))
        return false;
    end = lseek(image->fd, 0, SEEK_END);
    if (end < 0) {
        error_setg_errno(errp, errno, "disk %s: cannot find the size of image %s", image->id, image->path);
        return false;
    }
    image->size = end;
    return true;
}

RawImage *raw_image_open(const char *id, const char *path, bool readonly, Error **errp)
{
    RawImage *image = calloc(1, sizeof(*image));

    if (!image) {
        error_setg(errp, "disk %s: out of memory", id);
        return NULL;
    }
    *image = (RawImage){.fd = -1, .readonly = readonly, .id = strdup(id), .path = strdup(path)};
    if (!image->id || !image->path)
        error_setg(errp, "disk %s: out of memory", id);
    else if (open_image(image, errp))
        return image;
    raw_image_close(image);
    return NULL;
}

void raw_image_close(RawImage *image)
{
    if (!image)
        return;
    if (image->fd >= 0)
        close(image->fd);
    free(image->id);
    free(image->path);
    free(image);
}

uint64_t raw_image_size(const RawImage *image)
{
    return image->size;
}

static bool is_inside(const RawImage *image, uint64_t offset, size_t n, Error **errp)
{
    if (offset <= image->size && n <= image->size - offset)
        return true;
    error_setg(errp, "disk %s: %zu bytes at %llu lie beyond the end of image %s", image->id, n,
               (unsigned long long)offset, image->path);
    return false;
}

bool raw_image_read(RawImage *image, uint64_t offset, void *buf, size_t n, Error **errp)
{
    if (!is_inside(image, offset, n, errp))
        return false;
    while (n) {
        ssize_t got = pread(image->fd, buf, n, offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            error_setg_errno(errp, got ? errno : EIO, "disk %s: cannot read image %s%s", image->id,
                             image->path, got ? "" : " (it became shorter)");
            return false;
        }
        buf = (char *)buf + got;
        offset += got;
        n -= got;
    }
    return true;
}

bool raw_image_write(RawImage *image, uint64_t offset, const void *buf, size_t n, Error **errp)
{
    if (!is_inside(image, offset, n, errp))
        return false;
    while (n) {
        ssize_t put = pwrite(image->fd, buf, n, offset);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            error_setg_errno(errp, put ? errno : EIO, "disk %s: cannot write image %s", image->id,
                             image->path);
            return false;
        }
        buf = (const char *)buf + put;
        offset += put;
        n -= put;
    }
    return true;
}

bool raw_image_flush(RawImage *image, Error **errp)
{
    if (image->readonly || fdatasync(image->fd) == 0)
        return true;
    error_setg_errno(errp, errno, "disk %s: cannot flush image %s", image->id, image->path);
    return false;
}
