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

/* Whoever has an image forbids this to others. */
#define FORBIDS (WRITES | RESIZES)

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

static void give_back(int fd, unsigned base, unsigned bits)
{
    for (unsigned i = 0; i < BITS; i++) {
        struct flock fl = byte_at(F_UNLCK, base, i);

        if (bits >> i & 1)
            fcntl(fd, F_OFD_SETLK, &fl);
    }
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

static int take_both(int fd, unsigned does, unsigned forbids)
{
    int error = take(fd, DOES_BASE, does);

    return error ? error : take(fd, FORBIDS_BASE, forbids);
}

static void give_back_both(int fd, unsigned does, unsigned forbids)
{
    give_back(fd, DOES_BASE, does);
    give_back(fd, FORBIDS_BASE, forbids);
}

static int lock(int fd, unsigned does, unsigned forbids)
{
    int error = take_both(fd, does, forbids);

    if (!error)
        error = look(fd, FORBIDS_BASE, does);
    return error ? error : look(fd, DOES_BASE, forbids);
}

static void complain(int error, bool write, const char *id, const char *path, Error **errp)
{
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
}

bool image_lock(int fd, bool write, const char *id, const char *path, Error **errp)
{
    int error = lock(fd, READS | (write ? WRITES : 0), FORBIDS);

    if (error)
        complain(error, write, id, path, errp);
    return !error;
}

/* --- a writer's lock from one host to another --- */

bool image_lock_offer(int fd, const char *id, const char *path, Error **errp)
{
    int error = take(fd, DOES_BASE, RESIZES);

    if (error) {
        complain(error, true, id, path, errp);
        return false;
    }
    give_back_both(fd, READS | WRITES, FORBIDS);
    return true;
}

/* What is overlooked is the other's offer. Who offered it himself had it before anybody whom it disturbs now: only one who
 * writes, and that is the one it was offered to, keeps it from him. */
bool image_lock_accept(int fd, bool mine, const char *id, const char *path, Error **errp)
{
    int error = take_both(fd, READS | WRITES, FORBIDS);

    if (!error && !mine)
        error = look(fd, FORBIDS_BASE, READS | WRITES);
    if (!error)
        error = look(fd, DOES_BASE, WRITES);
    if (!error) {
        give_back(fd, DOES_BASE, RESIZES);
        return true;
    }
    give_back_both(fd, READS | WRITES, FORBIDS);
    complain(error, true, id, path, errp);
    return false;
}

void image_lock_leave(int fd)
{
    give_back_both(fd, READS | WRITES | RESIZES, FORBIDS);
}

bool image_lock_is_written(int fd)
{
    return look(fd, DOES_BASE, WRITES) == EAGAIN;
}
