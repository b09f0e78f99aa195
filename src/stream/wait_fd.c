/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream/wait_fd.h"
#include "base/task.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

void canceller_init(struct canceller *c)
{
    *c = (struct canceller){.eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
}

void canceller_raise(struct canceller *c)
{
    __atomic_store_n(&c->raised, true, __ATOMIC_RELEASE);
    if (c->eventfd >= 0)
        (void)!eventfd_write(c->eventfd, 1); /* can fail only when it is raised already */
}

bool canceller_raised(const struct canceller *c)
{
    return __atomic_load_n(&c->raised, __ATOMIC_ACQUIRE);
}

void canceller_close(struct canceller *c)
{
    if (c->eventfd >= 0)
        close(c->eventfd);
    c->eventfd = -1;
}

static struct timespec until(int64_t deadline)
{
    int64_t wait = deadline - clock_now();

    if (wait < 0)
        wait = 0;
    return (struct timespec){.tv_sec = wait / NS_PER_S, .tv_nsec = wait % NS_PER_S};
}

int wait_fd(int fd, short events, int64_t deadline, const struct canceller *c)
{
    struct pollfd fds[2] = {
        {.fd = fd, .events = events}, {.fd = c ? c->eventfd : -1, .events = POLLIN}, /* ppoll ignores -1 */
    };

    for (;;) {
        struct timespec ts = {0};
        int r;

        if (c && canceller_raised(c))
            return ECANCELED;
        if (deadline != TIME_NEVER)
            ts = until(deadline);
        r = ppoll(fds, 2, deadline == TIME_NEVER ? NULL : &ts, NULL);
        if (r < 0 && errno != EINTR)
            return errno;
        if (r == 0)
            return ETIMEDOUT;
        /* A shutdown makes the descriptor ready as well: look at the canceller again. */
        if (r > 0 && fds[0].revents)
            return c && canceller_raised(c) ? ECANCELED : 0;
    }
}
