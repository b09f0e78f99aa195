/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/loop.h"
#include "base/task.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

/* What handlers do is seen under the loop lock. */
struct seen {
    Loop *loop;
    int fd[2];
    int calls[2];
    uint32_t events;
    LoopTimer *timer[3];
    int order[8], count;
};

static int read_locked(Loop *l, const int *p)
{
    int v;

    loop_lock(l);
    v = *p;
    loop_unlock(l);
    return v;
}

/* Waits for what another thread is about to do; the test program's time limit ends it when it does not. */
static void wait_for(Loop *l, const int *p, int at_least)
{
    while (read_locked(l, p) < at_least)
        task_sleep_until(clock_now() + NS_PER_MS);
}

static Loop *make_loop(struct seen *s)
{
    *s = (struct seen){.loop = loop_new(NULL)};
    assert_non_null(s->loop);
    for (int i = 0; i < 2; i++)
        s->fd[i] = eventfd(0, EFD_NONBLOCK);
    return s->loop;
}

static void end_loop(struct seen *s)
{
    loop_lock(s->loop);
    for (int i = 0; i < 3; i++)
        loop_timer_free(s->timer[i]);
    loop_unlock(s->loop);
    loop_free(s->loop);
    for (int i = 0; i < 2; i++)
        close(s->fd[i]);
}

static void drain(int fd)
{
    eventfd_t v;

    (void)!eventfd_read(fd, &v);
}

static void on_first(void *opaque, uint32_t events)
{
    struct seen *s = opaque;

    loop_assert_locked(s->loop);
    s->events = events;
    s->calls[0]++;
    drain(s->fd[0]);
}

static void test_events(void **state)
{
    struct seen s;
    Error *err = NULL;
    Loop *l = make_loop(&s);

    (void)state;
    assert_true(loop_add_fd(l, s.fd[0], EPOLLIN, on_first, &s, NULL));
    assert_false(loop_add_fd(l, s.fd[0], EPOLLIN, on_first, &s, &err));
    assert_int_equal(error_get_errno(err), EEXIST);
    error_free(err);
    err = NULL;
    assert_false(loop_add_fd(l, 9999, EPOLLIN, on_first, &s, &err));
    assert_int_equal(error_get_errno(err), EBADF);
    error_free(err);
    assert_true(loop_start(l, NULL));
    eventfd_write(s.fd[0], 1);
    wait_for(l, &s.calls[0], 1);
    assert_int_equal(s.events, EPOLLIN);
    loop_set_fd_events(l, s.fd[0], 0);
    eventfd_write(s.fd[0], 1);
    task_sleep_until(clock_now() + 10 * NS_PER_MS);
    assert_int_equal(read_locked(l, &s.calls[0]), 1);
    loop_set_fd_events(l, s.fd[0], EPOLLIN);
    wait_for(l, &s.calls[0], 2);
    loop_lock(l);
    loop_remove_fd(l, s.fd[0]);
    loop_remove_fd(l, s.fd[0]);
    eventfd_write(s.fd[0], 1);
    loop_unlock(l);
    task_sleep_until(clock_now() + 10 * NS_PER_MS);
    assert_int_equal(read_locked(l, &s.calls[0]), 2);
    end_loop(&s);
    loop_free(NULL);
}

/* Whichever of two comes first removes the other, which has an event in the same batch. */
static void remove_other(struct seen *s, int mine)
{
    s->calls[mine]++;
    drain(s->fd[mine]);
    loop_remove_fd(s->loop, s->fd[1 - mine]);
    loop_remove_fd(s->loop, s->fd[mine]);
}

static void first_removes(void *opaque, uint32_t events)
{
    (void)events;
    remove_other(opaque, 0);
}

static void second_removes(void *opaque, uint32_t events)
{
    (void)events;
    remove_other(opaque, 1);
}

static void test_removed_in_the_batch(void **state)
{
    struct seen s;
    Loop *l = make_loop(&s);

    (void)state;
    assert_true(loop_add_fd(l, s.fd[0], EPOLLIN, first_removes, &s, NULL));
    assert_true(loop_add_fd(l, s.fd[1], EPOLLIN, second_removes, &s, NULL));
    eventfd_write(s.fd[0], 1);
    eventfd_write(s.fd[1], 1);
    assert_true(loop_start(l, NULL));
    while (!read_locked(l, &s.calls[0]) && !read_locked(l, &s.calls[1]))
        task_sleep_until(clock_now() + NS_PER_MS);
    task_sleep_until(clock_now() + 10 * NS_PER_MS); /* for the one that must not come */
    loop_lock(l);
    assert_int_equal(s.calls[0] + s.calls[1], 1);
    loop_unlock(l);
    end_loop(&s);
}

static void note(struct seen *s, int what)
{
    if (s->count < 8)
        s->order[s->count++] = what;
}

static void timer_0(void *opaque)
{
    note(opaque, 0);
}

static void timer_1(void *opaque)
{
    struct seen *s = opaque;

    note(s, 1);
    if (s->count < 8) /* already past: again at once, but after the others */
        loop_timer_set(s->timer[1], clock_now() - 1);
}

static void timer_2(void *opaque)
{
    note(opaque, 2);
}

static void test_timers(void **state)
{
    static const int expected[8] = {1, 2, 0, 1, 1, 1, 1, 1};
    struct seen s;
    Loop *l = make_loop(&s);
    int64_t now = clock_now();

    (void)state;
    s.timer[0] = loop_timer_new(l, timer_0, &s);
    s.timer[1] = loop_timer_new(l, timer_1, &s);
    s.timer[2] = loop_timer_new(l, timer_2, &s);
    loop_lock(l);
    loop_timer_set(s.timer[0], now - 1);
    loop_timer_set(s.timer[1], now - 3);
    loop_timer_set(s.timer[2], now - 2);
    loop_unlock(l);
    assert_true(loop_start(l, NULL));
    wait_for(l, &s.count, 8);
    assert_memory_equal(s.order, expected, sizeof(expected));
    loop_lock(l);
    s.count = 0;
    now = clock_now();
    loop_timer_set(s.timer[0], now + 10 * NS_PER_MS);
    loop_timer_set(s.timer[2], now + 5 * NS_PER_MS);
    loop_timer_set(s.timer[2], TIME_NEVER);
    loop_unlock(l);
    wait_for(l, &s.count, 1);
    assert_true(clock_now() >= now + 10 * NS_PER_MS);
    assert_int_equal(s.order[0], 0);
    end_loop(&s);
}

static void posted(void *opaque)
{
    struct seen *s = opaque;

    loop_assert_locked(s->loop);
    s->calls[1]++;
    if (s->calls[1] == 1000) /* from a handler, too */
        loop_post(s->loop, posted, s);
}

static void test_post(void **state)
{
    struct seen s;
    Loop *l = make_loop(&s);

    (void)state;
    for (int i = 0; i < 600; i++) /* more than the ring begins with */
        loop_post(l, posted, &s);
    assert_true(loop_start(l, NULL));
    loop_lock(l);
    for (int i = 0; i < 400; i++)
        loop_post(l, posted, &s);
    loop_unlock(l);
    wait_for(l, &s.calls[1], 1001);
    end_loop(&s);
}

static void test_park(void **state)
{
    struct seen s;
    Loop *l = make_loop(&s);

    (void)state;
    assert_true(loop_add_fd(l, s.fd[0], EPOLLIN, on_first, &s, NULL));
    s.timer[0] = loop_timer_new(l, timer_0, &s);
    assert_true(loop_start(l, NULL));
    loop_park(l);
    eventfd_write(s.fd[0], 1);
    loop_post(l, posted, &s);
    loop_lock(l);
    loop_timer_set(s.timer[0], clock_now());
    loop_unlock(l);
    task_sleep_until(clock_now() + 10 * NS_PER_MS);
    assert_int_equal(s.calls[0] + s.calls[1] + s.count, 0);
    loop_unpark(l);
    wait_for(l, &s.calls[0], 1);
    wait_for(l, &s.calls[1], 1);
    wait_for(l, &s.count, 1);
    loop_park(l); /* ends parked */
    eventfd_write(s.fd[0], 1);
    task_sleep_until(clock_now() + 5 * NS_PER_MS);
    end_loop(&s);
}

/* Threads add, pause, post and remove while others park. */
static void busy(void *arg)
{
    struct seen *s = arg;
    Loop *l = s->loop;
    int fd;

    for (int i = 0; i < 200; i++) {
        fd = eventfd(1, EFD_NONBLOCK);
        assert_true(loop_add_fd(l, fd, EPOLLIN, on_first, s, NULL));
        loop_set_fd_events(l, fd, i % 2 ? EPOLLIN : 0);
        loop_post(l, posted, s);
        loop_lock(l);
        loop_timer_set(s->timer[0], clock_now() + i * NS_PER_US);
        loop_remove_fd(l, fd);
        loop_unlock(l);
        close(fd);
    }
}

static void test_many_threads(void **state)
{
    struct seen s;
    Loop *l = make_loop(&s);
    Task *t[3];

    (void)state;
    s.timer[0] = loop_timer_new(l, timer_0, &s);
    assert_true(loop_start(l, NULL));
    for (int i = 0; i < 3; i++)
        t[i] = task_start("busy", busy, &s, NULL);
    for (int i = 0; i < 100; i++) {
        int before;

        loop_park(l);
        before = s.calls[0] + s.calls[1]; /* parked: nothing of the loop can change it */
        task_sleep_until(clock_now() + 100 * NS_PER_US);
        assert_int_equal(before, s.calls[0] + s.calls[1]);
        loop_unpark(l);
    }
    for (int i = 0; i < 3; i++)
        task_join(t[i]);
    wait_for(l, &s.calls[1], 600);
    end_loop(&s);
}

/* --- deferred --- */

struct deferring {
    Loop *loop;
    struct loop_deferred one, again, never;
    int one_ran, again_ran, never_ran;
    bool parked;
};

static void ran_one(void *opaque)
{
    struct deferring *d = opaque;

    loop_assert_locked(d->loop);
    assert_true(loop_is_current(d->loop));
    assert_false(d->parked);
    d->one_ran++;
}

/* Defers itself, more often than one turn of the loop does. */
static void ran_again(void *opaque)
{
    struct deferring *d = opaque;

    if (++d->again_ran < 100)
        loop_defer(d->loop, &d->again);
}

static void ran_never(void *opaque)
{
    ((struct deferring *)opaque)->never_ran++;
}

static void defer_all(void *opaque)
{
    struct deferring *d = opaque;

    for (int i = 0; i < 3; i++)
        loop_defer(d->loop, &d->one);
    loop_defer(d->loop, &d->never);
    loop_defer(d->loop, &d->again);
    loop_undefer(d->loop, &d->never);
    loop_undefer(d->loop, &d->never);
    assert_int_equal(d->one_ran, 0);
}

static void test_deferred(void **state)
{
    struct deferring d = {.loop = loop_new(NULL)};

    (void)state;
    d.one = (struct loop_deferred){.fn = ran_one, .opaque = &d};
    d.again = (struct loop_deferred){.fn = ran_again, .opaque = &d};
    d.never = (struct loop_deferred){.fn = ran_never, .opaque = &d};
    assert_true(loop_start(d.loop, NULL));
    assert_false(loop_is_current(d.loop));
    loop_post(d.loop, defer_all, &d);
    wait_for(d.loop, &d.again_ran, 100);
    assert_int_equal(read_locked(d.loop, &d.one_ran), 1);
    assert_int_equal(read_locked(d.loop, &d.never_ran), 0);
    loop_free(d.loop);
}

static void defer_and_park(void *opaque)
{
    struct deferring *d = opaque;

    loop_defer(d->loop, &d->one);
    d->again_ran = 1;
    task_sleep_until(clock_now() + 5 * NS_PER_MS); /* who parks waits for the lock meanwhile */
}

/* A park between a handler and what it deferred holds that back. */
static void test_deferred_while_parked(void **state)
{
    struct deferring d = {.loop = loop_new(NULL)};

    (void)state;
    d.one = (struct loop_deferred){.fn = ran_one, .opaque = &d};
    assert_true(loop_start(d.loop, NULL));
    for (int i = 1; i <= 20; i++) {
        int before;

        d.again_ran = 0;
        loop_post(d.loop, defer_and_park, &d);
        wait_for(d.loop, &d.again_ran, 1);
        loop_park(d.loop);
        loop_lock(d.loop);
        d.parked = true;
        before = d.one_ran;
        loop_unlock(d.loop);
        task_sleep_until(clock_now() + NS_PER_MS);
        assert_int_equal(read_locked(d.loop, &d.one_ran), before);
        loop_lock(d.loop);
        d.parked = false;
        loop_unlock(d.loop);
        loop_unpark(d.loop);
        wait_for(d.loop, &d.one_ran, i);
    }
    loop_free(d.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),   cmocka_unit_test(test_removed_in_the_batch),
        cmocka_unit_test(test_timers),   cmocka_unit_test(test_post),
        cmocka_unit_test(test_park),     cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_deferred), cmocka_unit_test(test_deferred_while_parked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
