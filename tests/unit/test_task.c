/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/task.h"

#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

struct counter {
    struct task_mutex mutex;
    struct task_cond changed;
    int value;
    char name[16];
};

static void counter_init(struct counter *c)
{
    *c = (struct counter){0};
    task_mutex_init(&c->mutex);
    task_cond_init(&c->changed);
}

static void counter_destroy(struct counter *c)
{
    task_cond_destroy(&c->changed);
    task_mutex_destroy(&c->mutex);
}

static void add_many(void *arg)
{
    struct counter *c = arg;

    for (int i = 0; i < 1000; i++) {
        task_lock(&c->mutex);
        task_mutex_assert_held(&c->mutex);
        c->value++;
        task_broadcast(&c->changed);
        task_unlock(&c->mutex);
    }
}

static void test_tasks_share_a_counter(void **state)
{
    struct counter c;
    Task *t[4];

    (void)state;
    counter_init(&c);
    for (int i = 0; i < 4; i++) {
        t[i] = task_start("adder", add_many, &c, NULL);
        assert_non_null(t[i]);
    }
    task_lock(&c.mutex);
    while (c.value < 4000)
        task_wait(&c.changed, &c.mutex);
    task_unlock(&c.mutex);
    for (int i = 0; i < 4; i++)
        task_join(t[i]);
    task_join(NULL);
    counter_destroy(&c);
}

static void test_wait_until_passes(void **state)
{
    int64_t begin = clock_now(), end = begin + 20 * NS_PER_MS;
    struct counter c;

    (void)state;
    counter_init(&c);
    task_lock(&c.mutex);
    while (task_wait_until(&c.changed, &c.mutex, end))
        ;
    assert_true(clock_now() >= end);
    assert_false(task_wait_until(&c.changed, &c.mutex, begin)); /* long past */
    assert_false(task_wait_until(&c.changed, &c.mutex, INT64_MIN + begin));
    task_unlock(&c.mutex);
    counter_destroy(&c);
    task_sleep_until(clock_now() + 5 * NS_PER_MS);
    task_sleep_until(0);
}

static void test_wait_until_far_away(void **state)
{
    struct counter c;
    Task *t;

    (void)state;
    counter_init(&c);
    task_lock(&c.mutex);
    t = task_start("adder", add_many, &c, NULL);
    while (!c.value)
        assert_true(task_wait_until(&c.changed, &c.mutex, TIME_NEVER - 1));
    task_unlock(&c.mutex);
    task_join(t);
    counter_destroy(&c);
}

static void read_name(void *arg)
{
    struct counter *c = arg;

    pthread_getname_np(pthread_self(), c->name, sizeof(c->name));
}

static void test_name_is_cut(void **state)
{
    struct counter c = {0};

    (void)state;
    task_join(task_start("a name longer than the kernel keeps", read_name, &c, NULL));
    assert_string_equal(c.name, "a name longer t");
}

static int64_t frozen(void)
{
    return 42;
}

static void test_other_runtime(void **state)
{
    static const struct task_runtime stopped = {.now = frozen};

    (void)state;
    task_set_runtime(&stopped);
    assert_int_equal(clock_now(), 42);
    task_set_runtime(NULL);
    assert_true(clock_now() > 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tasks_share_a_counter), cmocka_unit_test(test_wait_until_passes),
        cmocka_unit_test(test_wait_until_far_away),   cmocka_unit_test(test_name_is_cut),
        cmocka_unit_test(test_other_runtime),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
