/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which signal is the second? Each end is a child's, whose exit status tells: 0 in order, 1 at once. */
#include "control/last_resort.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int take_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The end of a process that gets so many signals meanwhile. */
static int end(bool by_signal, int signals)
{
    static const int numbers[] = {SIGTERM, SIGINT};
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        int fd = take_signals();
        LastResort *r = last_resort_new(fd, by_signal, "web");

        for (int i = 0; i < signals; i++)
            kill(getpid(), numbers[i]);
        usleep(200000);
        last_resort_limit(r);
        last_resort_free(r);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_end_by_signal(void **state)
{
    (void)state;
    assert_int_equal(end(true, 0), 0);
    assert_int_equal(end(true, 1), 1);
}

static void test_end_by_itself(void **state)
{
    (void)state;
    assert_int_equal(end(false, 0), 0);
    assert_int_equal(end(false, 1), 0);
    assert_int_equal(end(false, 2), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_by_signal),
        cmocka_unit_test(test_end_by_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
