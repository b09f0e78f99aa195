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
#include <sys/syscall.h>
#include <unistd.h>

struct missing_uffd {
    MissingPages mp;
    int fd, closed; /* closed: an eventfd that reads while there is nothing to wait for any more */
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

bool missing_uffd_possible(Error **errp)
{
    int fd = open_api(errp);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool register_blocks(struct missing_uffd *u, Error **errp)
{
    const GuestMemory *m = u->mp.memory;

    for (int i = 0; i < m->block_count; i++) {
        struct uffdio_register r = {
            .range = {.start = (uintptr_t)m->blocks[i].host, .len = m->blocks[i].size},
            .mode = UFFDIO_REGISTER_MODE_MISSING,
        };

        if (ioctl(u->fd, UFFDIO_REGISTER, &r) < 0) {
            error_setg_errno(errp, errno, "userfaultfd: cannot register guest RAM");
            return false;
        }
    }
    return true;
}

/* Holes, block by block: their offsets in the file follow each other as their pages do. */
static bool uffd_discard(MissingPages *mp, uint64_t first, uint64_t count, Error **errp)
{
    if (fallocate(mp->memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(first << GUEST_PAGE_SHIFT), (off_t)(count << GUEST_PAGE_SHIFT)) == 0)
        return true;
    error_setg_errno(errp, errno, "guest RAM: cannot discard pages");
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

static bool uffd_wait(MissingPages *mp, uint64_t *ret_page)
{
    struct missing_uffd *u = of(mp);
    struct pollfd fds[] = {{.fd = u->fd, .events = POLLIN}, {.fd = u->closed, .events = POLLIN}};
    struct uffd_msg msg;

    for (;;) {
        ssize_t n = read(u->fd, &msg, sizeof(msg));

        if (n == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT &&
            page_of(mp->memory, msg.arg.pagefault.address, ret_page))
            return true;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return false;
        if (fds[1].revents || fds[0].revents & (POLLERR | POLLHUP | POLLNVAL))
            return false;
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

static void uffd_set_open(MissingPages *mp, bool open)
{
    uint64_t n = 1;
    ssize_t r = open ? read(of(mp)->closed, &n, sizeof(n)) : write(of(mp)->closed, &n, sizeof(n));

    (void)r; /* it was open, or closed, already */
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
    if (u->closed >= 0)
        close(u->closed);
    missing_destroy(mp);
    free(u);
}

static const struct missing_ops uffd_ops = {
    .discard = uffd_discard,
    .wait = uffd_wait,
    .put = uffd_put,
    .set_open = uffd_set_open,
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
    u->closed = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    u->fd = open_api(errp);
    if (u->closed < 0 && u->fd >= 0)
        error_setg_errno(errp, errno, "eventfd");
    if (u->closed >= 0 && u->fd >= 0 && register_blocks(u, errp))
        return &u->mp;
    uffd_free(&u->mp);
    return NULL;
}
