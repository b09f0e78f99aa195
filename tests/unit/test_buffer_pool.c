/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/buffer_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define HEADER 8192u

static void test_again(void **state)
{
    struct buffer_pool p = {.limit = 1 << 20, .header = HEADER};
    void *a = buffer_pool_get(&p, 4096), *b = buffer_pool_get(&p, 5000), *c;

    (void)state;
    assert_int_equal((uintptr_t)a % 4096, 0);
    memset(a, 'a', HEADER + 4096);
    memset(b, 'b', HEADER + 5000);
    buffer_pool_put(&p, a, 4096);
    buffer_pool_put(&p, b, 5000);
    assert_int_equal(p.kept, 2 * HEADER + 4096 + 8192);
    c = buffer_pool_get(&p, 8192); /* of b's class */
    assert_ptr_equal(c, b);
    assert_ptr_equal(buffer_pool_get(&p, 0), a);
    assert_int_equal(p.kept, 0);
    buffer_pool_put(&p, a, 0);
    buffer_pool_put(&p, c, 8192);
    buffer_pool_destroy(&p);
    assert_int_equal(p.kept, 0);
}

static void test_limit(void **state)
{
    struct buffer_pool p = {.limit = 2 * (HEADER + 4096), .header = HEADER};
    void *b[3], *large = buffer_pool_get(&p, 16 << 20);

    (void)state;
    assert_non_null(large);
    for (unsigned i = 0; i < 3; i++)
        b[i] = buffer_pool_get(&p, 1);
    for (unsigned i = 0; i < 3; i++)
        buffer_pool_put(&p, b[i], 1);
    buffer_pool_put(&p, large, 16 << 20);
    assert_int_equal(p.kept, p.limit);
    assert_ptr_equal(buffer_pool_get(&p, 4096), b[1]); /* the last one that was kept */
    buffer_pool_put(&p, b[1], 4096);
    buffer_pool_destroy(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_again), cmocka_unit_test(test_limit)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
