/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Missing pages by userfaultfd: a page that is a hole of the memory file stops whoever touches it, in the kernel too. One
 * that is there stays as fast as ever.
 */
#include "guest/missing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct missing_uffd {
    MissingPages mp;
    int fd, woken; /* woken: an eventfd, read by who waits */
};

static struct missing_uffd *of(MissingPages *mp)
{
    return (struct missing_uffd *)mp;
}

/* The system call needs a privilege or a sysctl; the device, its permissions only. */
static int open_uffd(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), device;

    if (fd >= 0 || errno != EPERM)
        return fd;
    device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -1;
    fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    close(device);
    return fd;
}

static int open_api(Error **errp)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};
    int fd = open_uffd();

    if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0)
        return fd;
    error_setg_errno(
        errp, errno,
        "userfaultfd, which postcopy needs on this host (run as root, or allow /dev/userfaultfd)");
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool register_blocks(struct missing_uffd *u, Error **errp)
{
    const GuestMemory *m = u->mp.memory;

    for (int i = 0; i < m->block_count; i++) {
        struct uffdio_register r = {
            .range = {.start = (uintptr_t)m->blocks[i].host, .len = m->blocks[i].size},
            .mode = UFFDIO_REGISTER_MODE_MISSING,
        };

        /* Part of a huge page can be discarded only by zeroing it, and would not be missing. */
        madvise(m->blocks[i].host, m->blocks[i].size, MADV_NOHUGEPAGE);
        if (ioctl(u->fd, UFFDIO_REGISTER, &r) < 0) {
            error_setg_errno(errp, errno, "userfaultfd: cannot register guest RAM");
            return false;
        }
    }
    return true;
}

/* A part of a huge page that cannot be split is zeroed, and stays: it would be read as that, and nobody be asked. */
static bool is_hole(int fd, off_t begin, off_t end)
{
    off_t data = lseek(fd, begin, SEEK_DATA);

    return data < 0 ? errno == ENXIO : data >= end;
}

/* Holes, block by block: their offsets in the file follow each other as their pages do. */
static bool uffd_discard(MissingPages *mp, uint64_t first, uint64_t count, Error **errp)
{
    off_t begin = (off_t)(first << GUEST_PAGE_SHIFT), size = (off_t)(count << GUEST_PAGE_SHIFT);

    if (fallocate(mp->memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin, size) < 0)
        error_setg_errno(errp, errno, "guest RAM: cannot discard pages");
    else if (!is_hole(mp->memory->fd, begin, begin + size))
        error_setg(errp, "guest RAM: the host did not let go of a page (huge pages in "
                         "/sys/kernel/mm/transparent_hugepage/shmem_enabled: let them be 'advise' or 'never' "
                         "for postcopy)");
    else
        return true;
    return false;
}

static bool page_of(const GuestMemory *m, uintptr_t address, uint64_t *ret_page)
{
    for (int i = 0; i < m->block_count; i++) {
        const struct ram_block *b = &m->blocks[i];
        uintptr_t host = (uintptr_t)b->host;

        if (address < host || address - host >= b->size)
            continue;
        *ret_page = b->first_page + ((address - host) >> GUEST_PAGE_SHIFT);
        return true;
    }
    return false;
}

static int uffd_wait(MissingPages *mp, uint64_t *ret_page)
{
    struct missing_uffd *u = of(mp);
    struct pollfd fds[] = {{.fd = u->fd, .events = POLLIN}, {.fd = u->woken, .events = POLLIN}};
    struct uffd_msg msg;
    uint64_t n;

    for (;;) {
        ssize_t got = read(u->fd, &msg, sizeof(msg));

        if (got == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT &&
            page_of(mp->memory, msg.arg.pagefault.address, ret_page))
            return 1;
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return -errno;
        if (read(u->woken, &n, sizeof(n)) == sizeof(n))
            return 0;
        if (fds[0].revents & (POLLERR | POLLHUP | POLLNVAL))
            return -EIO;
    }
}

static int put_zeroes(struct missing_uffd *u, uintptr_t at)
{
    struct uffdio_zeropage z = {.range = {.start = at, .len = GUEST_PAGE_SIZE}};

    return ioctl(u->fd, UFFDIO_ZEROPAGE, &z);
}

static int put_data(struct missing_uffd *u, uintptr_t at, const void *data)
{
    struct uffdio_copy c = {.dst = at, .src = (uintptr_t)data, .len = GUEST_PAGE_SIZE};

    return ioctl(u->fd, UFFDIO_COPY, &c);
}

static bool uffd_put(MissingPages *mp, uint64_t page, const void *data, Error **errp)
{
    struct missing_uffd *u = of(mp);
    uintptr_t at = (uintptr_t)guest_memory_page_host(mp->memory, page);
    struct uffdio_range range = {.start = at, .len = GUEST_PAGE_SIZE};
    int status;

    do
        status = data ? put_data(u, at, data) : put_zeroes(u, at);
    while (status < 0 && errno == EAGAIN); /* the mapping changes this moment */
    if (status == 0)
        return true;
    if (errno == EEXIST) /* who waits may have missed that it came */
        status = ioctl(u->fd, UFFDIO_WAKE, &range);
    if (status < 0)
        error_setg_errno(errp, errno, "userfaultfd: cannot place a page");
    return status == 0;
}

static void uffd_wake(MissingPages *mp)
{
    uint64_t one = 1;
    ssize_t r = write(of(mp)->woken, &one, sizeof(one));

    (void)r; /* it cannot fail below 2^64 - 1 */
}

static void uffd_abandon(MissingPages *mp)
{
    for (int i = 0; i < mp->memory->block_count; i++) {
        struct uffdio_range r = {.start = (uintptr_t)mp->memory->blocks[i].host,
                                 .len = mp->memory->blocks[i].size};

        ioctl(of(mp)->fd, UFFDIO_UNREGISTER, &r);
    }
}

static void uffd_free(MissingPages *mp)
{
    struct missing_uffd *u = of(mp);

    if (u->fd >= 0)
        close(u->fd);
    if (u->woken >= 0)
        close(u->woken);
    missing_destroy(mp);
    free(u);
}

static const struct missing_ops uffd_ops = {
    .discard = uffd_discard,
    .wait = uffd_wait,
    .put = uffd_put,
    .wake = uffd_wake,
    .abandon = uffd_abandon,
    .free = uffd_free,
};

MissingPages *missing_uffd_new(GuestMemory *m, Error **errp)
{
    struct missing_uffd *u = calloc(1, sizeof(*u));

    if (!u || !missing_init(&u->mp, &uffd_ops, m, errp)) {
        if (!u)
            error_setg_errno(errp, ENOMEM, "missing pages");
        free(u);
        return NULL;
    }
    u->woken = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    u->fd = open_api(errp);
    if (u->woken < 0 && u->fd >= 0)
        error_setg_errno(errp, errno, "eventfd");
    if (u->woken >= 0 && u->fd >= 0 && register_blocks(u, errp))
        return &u->mp;
    uffd_free(&u->mp);
    return NULL;
}
