/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "engine/packing.h"
#include "base/task.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)

/* A tenth of a second's worth of parts over a link of so many bytes a second, which is waited for so many percent. */
static void send(struct packing *k, uint64_t rate, int percent)
{
    for (int i = 0; i < 20; i++)
        packing_sent(k, rate / 200, 5 * NS_PER_MS, percent * 5 * NS_PER_MS / 100);
}

static void test_auto(void **state)
{
    struct packing k = {.how = ENGINE_PACK_AUTO};

    (void)state;
    assert_false(packing_is_on(&k));
    packing_sent(&k, MIB / 100, NS_PER_MS, NS_PER_MS); /* too little to judge by */
    assert_false(packing_is_on(&k));
    send(&k, 30 * MIB, 90);
    assert_true(packing_is_on(&k));
    send(&k, 30 * MIB, 40); /* there is less to wait for, since it packs */
    assert_true(packing_is_on(&k));
    for (int i = 0; i < 20; i++)
        send(&k, 60 * MIB, 2); /* now it is packing that is waited for */
    assert_false(packing_is_on(&k));
    for (int i = 0; i < 20; i++)
        send(&k, 600 * MIB, 90);
    assert_false(packing_is_on(&k));
    for (int i = 0; i < 20; i++)
        send(&k, 20 * MIB, 10); /* little comes, and not for the link: zeroes, say */
    assert_false(packing_is_on(&k));
}

static void test_by_word(void **state)
{
    struct packing on = {.how = ENGINE_PACK_ON}, off = {.how = ENGINE_PACK_OFF};

    (void)state;
    assert_true(packing_is_on(&on));
    send(&on, 1000 * MIB, 0);
    assert_true(packing_is_on(&on));
    send(&off, MIB, 100);
    assert_false(packing_is_on(&off));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_by_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
