/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "engine/pace.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)

/* Sends parts as they may go, over a link of so many bytes a second, until `until`. The bytes. */
static uint64_t send_until(struct pace *p, uint64_t link, int64_t *now, int64_t until)
{
    uint64_t sent = 0;

    while (*now < until) {
        uint64_t part = pace_part(p, link);

        if (p->due > *now) {
            *now = p->due;
            continue;
        }
        *now += (int64_t)(part * NS_PER_S / link);
        pace_sent(p, part, *now);
        sent += part;
    }
    return sent;
}

static void test_rate(void **state)
{
    struct pace p = {0};
    int64_t now = NS_PER_S;

    (void)state;
    pace_set(&p, 10 * MIB, now);
    assert_in_range(send_until(&p, 1000 * MIB, &now, 11 * NS_PER_S), 99 * MIB, 102 * MIB);
    /* Nor is there ever a burst: each tenth of a second has its tenth. */
    for (int i = 0; i < 20; i++)
        assert_in_range(send_until(&p, 1000 * MIB, &now, now + NS_PER_S / 10), MIB / 2, 2 * MIB);
}

static void test_no_cap(void **state)
{
    struct pace p = {0};
    int64_t now = NS_PER_S;

    (void)state;
    pace_set(&p, 0, now);
    assert_true(send_until(&p, 1000 * MIB, &now, 3 * NS_PER_S) >= 1990 * MIB);
    assert_true(p.due <= now);
}

/* A link that carries less than the cap is not slowed down. */
static void test_slower_link(void **state)
{
    struct pace p = {0};
    int64_t now = NS_PER_S;

    (void)state;
    pace_set(&p, 100 * MIB, now);
    assert_true(send_until(&p, 10 * MIB, &now, 11 * NS_PER_S) >= 95 * MIB);
}

/* Silence is not saved up. */
static void test_after_silence(void **state)
{
    struct pace p = {0};
    int64_t now = 1000 * NS_PER_S;

    (void)state;
    pace_set(&p, 10 * MIB, NS_PER_S);
    assert_in_range(send_until(&p, 1000 * MIB, &now, now + NS_PER_S), 9 * MIB, 12 * MIB);
}

/* Much went at once, which has to be waited for; a higher cap makes that shorter, none ends it. */
static void test_change(void **state)
{
    struct pace p = {0};
    int64_t now = NS_PER_S;

    (void)state;
    pace_set(&p, MIB, now);
    pace_sent(&p, 8 * MIB, now);
    assert_in_range(p.due - now, 79 * NS_PER_S / 10, 8 * NS_PER_S);
    pace_set(&p, MIB, now);
    assert_in_range(p.due - now, 79 * NS_PER_S / 10, 8 * NS_PER_S);
    pace_set(&p, 8 * MIB, now);
    assert_in_range(p.due - now, 9 * NS_PER_S / 10, NS_PER_S);
    pace_set(&p, 0, now);
    assert_true(p.due <= now);
}

static void test_parts(void **state)
{
    struct pace p = {0};

    (void)state;
    assert_int_equal(pace_part(&p, 0), MIB);
    assert_in_range(pace_part(&p, 100 * MIB), 9 * MIB, 11 * MIB);
    pace_set(&p, 10 * MIB, 0);
    assert_in_range(pace_part(&p, 100 * MIB), MIB / 3, MIB);
    assert_in_range(pace_part(&p, MIB), MIB / 20, MIB / 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate),        cmocka_unit_test(test_no_cap),
        cmocka_unit_test(test_slower_link), cmocka_unit_test(test_after_silence),
        cmocka_unit_test(test_change),      cmocka_unit_test(test_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
