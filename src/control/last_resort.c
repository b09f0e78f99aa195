/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/last_resort.h"
#include "base/log.h"
#include "base/task.h"
#include "engine/arbiter.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct LastResort {
    int signal_fd, step_fd; /* the second counts: 1 there is a limit, 2 all is over */
    bool signalled;         /* the next signal is the second */
    const char *name;
    Task *task;
};

static void end_now(const LastResort *r, const char *why)
{
    log_warn("%s: %s: ending at once", r->name, why);
    arbiter_kill_all();
    _exit(1);
}

static void take_signals(LastResort *r)
{
    struct signalfd_siginfo info;

    while (read(r->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (r->signalled)
            end_now(r, "another signal");
        r->signalled = true;
        log_info("%s: signal %s: it is ending already", r->name, sigabbrev_np(info.ssi_signo));
    }
}

static void watch(void *arg)
{
    LastResort *r = arg;
    struct pollfd fds[2] = {{.fd = r->signal_fd, .events = POLLIN}, {.fd = r->step_fd, .events = POLLIN}};
    int limit = -1, steps = 0, n;
    uint64_t one;

    while (steps < 2) {
        n = poll(fds, 2, limit);
        if (n == 0)
            end_now(r, "something does not end");
        if (n > 0 && fds[0].revents)
            take_signals(r);
        if (n > 0 && fds[1].revents && read(r->step_fd, &one, sizeof(one)) == sizeof(one)) {
            steps++;
            limit = LAST_RESORT_LIMIT_MS;
        }
    }
}

static void step(LastResort *r)
{
    uint64_t one = 1;

    (void)!write(r->step_fd, &one, sizeof(one));
}

LastResort *last_resort_new(int signal_fd, bool by_signal, const char *name)
{
    LastResort *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    *r = (LastResort){.signal_fd = signal_fd,
                      .signalled = by_signal,
                      .name = name,
                      .step_fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE)};
    if (r->step_fd >= 0)
        r->task = task_start("last-resort", watch, r, NULL);
    if (r->task)
        return r;
    if (r->step_fd >= 0)
        close(r->step_fd);
    free(r);
    return NULL;
}

void last_resort_limit(LastResort *r)
{
    if (r)
        step(r);
}

/* After last_resort_limit(). */
void last_resort_free(LastResort *r)
{
    if (!r)
        return;
    step(r);
    task_join(r->task);
    close(r->step_fd);
    free(r);
}
