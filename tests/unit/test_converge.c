/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/task.h"
#include "engine/converge.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)

/* A GiB a second, and 20 ms. */
static struct converge usual(int64_t until)
{
    struct converge c;

    converge_begin(&c, 20 * NS_PER_MS, until);
    converge_sent(&c, 100 * MIB, 100 * NS_PER_S / 1024);
    return c;
}

static void test_bandwidth(void **state)
{
    struct converge c;

    (void)state;
    converge_begin(&c, 20 * NS_PER_MS, TIME_NEVER);
    assert_int_equal(converge_bandwidth(&c), 0);
    for (int i = 0; i < 100; i++)
        converge_sent(&c, 10 * MIB, 10 * NS_PER_MS);
    assert_in_range(converge_bandwidth(&c), 999 * MIB, 1001 * MIB);
    for (int i = 0; i < 300; i++) /* the link becomes slow: old figures are forgotten */
        converge_sent(&c, MIB / 10, 10 * NS_PER_MS);
    assert_in_range(converge_bandwidth(&c), 9 * MIB, 12 * MIB);
    assert_in_range(converge_expected(&c, 10 * MIB), 800 * NS_PER_MS, 1200 * NS_PER_MS);
}

/* A pass costs the guest nothing: there is another one as long as that helps, however much downtime is allowed. */
static void test_as_long_as_it_helps(void **state)
{
    struct converge c = usual(TIME_NEVER);

    (void)state;
    assert_int_equal(converge_pass(&c, 16 * MIB, 0), CONVERGE_AGAIN);
    assert_int_equal(converge_pass(&c, 8 * MIB, 0), CONVERGE_AGAIN);
    assert_int_equal(converge_pass(&c, 4 * MIB, 0), CONVERGE_AGAIN);
    assert_int_equal(converge_pass(&c, 4 * MIB, 0), CONVERGE_SWITCH);
}

static void test_little_is_left(void **state)
{
    struct converge c = usual(TIME_NEVER);

    (void)state;
    assert_int_equal(converge_pass(&c, 1, 0), CONVERGE_SWITCH);
}

static void test_too_fast_a_guest(void **state)
{
    struct converge c = usual(TIME_NEVER);

    (void)state;
    assert_int_equal(converge_pass(&c, 500 * MIB, 0), CONVERGE_AGAIN);
    assert_int_equal(converge_pass(&c, 500 * MIB, 0), CONVERGE_AGAIN); /* it may have been an exception */
    assert_int_equal(converge_pass(&c, 500 * MIB, 0), CONVERGE_SLOW);
    converge_slowed(&c);
    assert_int_equal(converge_pass(&c, 500 * MIB, 0), CONVERGE_SLOW);
    converge_slowed(&c);
    assert_int_equal(converge_pass(&c, 300 * MIB, 0), CONVERGE_AGAIN);
    assert_int_equal(converge_pass(&c, 100 * MIB, 0), CONVERGE_AGAIN);
}

static void test_deadline(void **state)
{
    struct converge c = usual(5 * NS_PER_S);

    (void)state;
    assert_int_equal(converge_pass(&c, 500 * MIB, 4 * NS_PER_S), CONVERGE_AGAIN);
    assert_int_equal(converge_pass(&c, 100 * MIB, 5 * NS_PER_S), CONVERGE_LATE);
    assert_int_equal(converge_pass(&c, 10 * MIB, 5 * NS_PER_S), CONVERGE_SWITCH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bandwidth),      cmocka_unit_test(test_as_long_as_it_helps),
        cmocka_unit_test(test_little_is_left), cmocka_unit_test(test_too_fast_a_guest),
        cmocka_unit_test(test_deadline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
