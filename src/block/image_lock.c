/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/image_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define DOES_BASE    100
#define FORBIDS_BASE 200

#define READS   (1u << 0)
#define WRITES  (1u << 1)
#define RESIZES (1u << 3)
#define BITS    4

static struct flock byte_at(short type, unsigned base, unsigned bit)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = base + bit, .l_len = 1};
}

/* 0 or an errno. Shared locks stand in nobody's way; EAGAIN comes from a program that locks in another
 * manner. */
static int take(int fd, unsigned base, unsigned bits)
{
    for (unsigned i = 0; i < BITS; i++) {
        struct flock fl = byte_at(F_RDLCK, base, i);

        if (bits >> i & 1 && fcntl(fd, F_OFD_SETLK, &fl) < 0)
            return errno;
    }
    return 0;
}

/* Would somebody else's lock refuse an exclusive one? Our own do not count. 0, EAGAIN or another errno. */
static int look(int fd, unsigned base, unsigned bits)
{
    for (unsigned i = 0; i < BITS; i++) {
        struct flock fl = byte_at(F_WRLCK, base, i);

        if (!(bits >> i & 1))
            continue;
        if (fcntl(fd, F_OFD_GETLK, &fl) < 0)
            return errno;
        if (fl.l_type != F_UNLCK)
            return EAGAIN;
    }
    return 0;
}

static int lock(int fd, unsigned does, unsigned forbids)
{
    int error = take(fd, DOES_BASE, does);

    if (!error)
        error = take(fd, FORBIDS_BASE, forbids);
    if (!error)
        error = look(fd, FORBIDS_BASE, does);
    return error ? error : look(fd, DOES_BASE, forbids);
}

bool image_lock(int fd, bool write, const char *id, const char *path, Error **errp)
{
    int error = lock(fd, READS | (write ? WRITES : 0), WRITES | RESIZES);

    if (!error)
        return true;
    if (error == EAGAIN || error == EACCES)
        error_setg_errno(
            errp, error,
            write ? "disk %s: image %s is in use by another machine or program; stop that one first, "
                    "or give this machine a copy (readonly=on is enough to share it with readers)"
                  : "disk %s: image %s is being written by another machine or program; stop that one "
                    "first, or read a copy",
            id, path);
    else
        error_setg_errno(errp, error, "disk %s: cannot lock image %s; it must lie where file locks work", id,
                         path);
    return false;
}
