/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <perdure/error.h>

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

/* These two take the place of libc's in this program. */
static bool no_memory;

int vasprintf(char **restrict ret, const char *restrict fmt, va_list ap)
{
    char *text = no_memory ? NULL : malloc(4096);

    *ret = text ? text : (char *)0x1; /* after a failure libc promises nothing about it */
    return text ? vsnprintf(text, 4096, fmt, ap) : -1;
}

int asprintf(char **restrict ret, const char *restrict fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(ret, fmt, ap);
    va_end(ap);
    return n;
}

static void expect(Error *err, int errnum, const char *text)
{
    assert_non_null(err);
    assert_string_equal(error_get_pretty(err), text);
    assert_int_equal(error_get_errno(err), errnum);
    error_free(err);
}

static void test_set(void **state)
{
    Error *err = NULL;

    (void)state;
    error_setg(&err, "disk %s: %d", "root", 5);
    expect(err, 0, "disk root: 5");
    err = NULL;
    error_setg_errno(&err, ENOENT, "disk %s", "root");
    expect(err, ENOENT, "disk root: No such file or directory");
    err = NULL;
    error_setg_errno(&err, 99999, "odd");
    expect(err, 99999, "odd: unknown error");
}

static void test_nobody_cares(void **state)
{
    Error *err = NULL;

    (void)state;
    error_setg(NULL, "x");
    error_setg_errno(NULL, ENOENT, "x");
    error_prepend(NULL, "x");
    error_prepend(&err, "x");
    assert_null(err);
    error_free(NULL);
}

static void test_propagate(void **state)
{
    Error *first = NULL, *second = NULL, *kept = NULL;

    (void)state;
    error_propagate(&kept, NULL);
    assert_null(kept);
    error_setg(&first, "first");
    error_propagate(&kept, first);
    assert_ptr_equal(kept, first);
    error_setg(&second, "second");
    error_propagate(&kept, second); /* freed: the sanitizer would miss it */
    error_prepend(&kept, "vm %s: ", "web");
    expect(kept, 0, "vm web: first");
    first = NULL;
    error_setg(&first, "first");
    error_propagate(NULL, first);
}

static void test_copy(void **state)
{
    Error *err = NULL, *copy;

    (void)state;
    error_setg_errno(&err, EIO, "100%% of %s", "it");
    copy = error_copy(err);
    expect(err, EIO, "100% of it: Input/output error");
    expect(copy, EIO, "100% of it: Input/output error");
}

static void test_out_of_memory(void **state)
{
    Error *err = NULL, *copy;

    (void)state;
    no_memory = true;
    error_setg(&err, "text");
    expect(err, ENOMEM, "out of memory");
    err = NULL;
    error_setg_errno(&err, EIO, "text %d", 1);
    error_prepend(&err, "more: ");
    copy = error_copy(err);
    expect(copy, ENOMEM, "out of memory");
    expect(err, ENOMEM, "out of memory");
    no_memory = false;
    err = NULL;
    error_setg_errno(&err, EIO, "disk");
    no_memory = true;
    error_prepend(&err, "more: "); /* the message stays as it was */
    no_memory = false;
    expect(err, EIO, "disk: Input/output error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),  cmocka_unit_test(test_nobody_cares),  cmocka_unit_test(test_propagate),
        cmocka_unit_test(test_copy), cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
