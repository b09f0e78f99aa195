/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guests that the program carries are there, and are kernels that its loader knows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "machine/guest_images.h"

static void test_all_are_elf(void **state)
{
    unsigned n = 0;

    (void)state;
    for (const struct guest_image *g = guest_images; g->name; g++, n++) {
        assert_ptr_equal(guest_image_find(g->name), g);
        assert_true(guest_image_size(g) > 4096);
        assert_memory_equal(g->start, "\177ELF\2", 5);
    }
    assert_int_equal(n, 6);
}

static void test_unknown(void **state)
{
    (void)state;
    assert_null(guest_image_find("nobody"));
    assert_null(guest_image_find(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_are_elf), cmocka_unit_test(test_unknown)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
