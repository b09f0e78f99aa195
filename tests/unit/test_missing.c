/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Missing pages by userfaultfd: who touches one waits until it was placed, a thread as well as the kernel for it. */
#include "base/bitmap.h"
#include "guest/missing.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define PAGES 64

struct bed {
    GuestMemory *memory;
    MissingPages *mp;
};

static uint8_t *at(struct bed *b, uint64_t page)
{
    return guest_memory_page_host(b->memory, page);
}

/* All pages are written, of page n every byte is n; those of [10, 20) are then missing. */
static void setup(struct bed *b)
{
    b->memory = guest_memory_new(PAGES * GUEST_PAGE_SIZE, NULL);
    assert_non_null(b->memory);
    for (uint64_t page = 0; page < PAGES / 2; page++)
        memset(at(b, page), (int)page, GUEST_PAGE_SIZE);
    b->mp = missing_uffd_new(b->memory, NULL);
    assert_non_null(b->mp);
    assert_int_equal(missing_left(b->mp), 0);
    assert_true(missing_discard(b->mp, 10, 10, NULL));
    assert_int_equal(missing_left(b->mp), 10);
}

static void teardown(struct bed *b)
{
    missing_free(b->mp);
    guest_memory_free(b->memory);
}

static void place(struct bed *b, uint64_t page, int value)
{
    uint8_t data[GUEST_PAGE_SIZE];

    memset(data, value, sizeof(data));
    assert_true(missing_place(b->mp, page, data, NULL));
}

/* --- a thread that touches --- */

struct toucher {
    pthread_t thread;
    const uint8_t *byte;
    int fd; /* negative: it reads the byte itself; else the kernel does, for a write to fd */
    uint8_t found;
};

static void *touch_run(void *opaque)
{
    struct toucher *t = opaque;

    if (t->fd < 0)
        t->found = *(volatile const uint8_t *)t->byte;
    else
        t->found = write(t->fd, t->byte, 1) == 1;
    return NULL;
}

static void touch(struct toucher *t, const uint8_t *byte, int fd)
{
    *t = (struct toucher){.byte = byte, .fd = fd};
    assert_int_equal(pthread_create(&t->thread, NULL, touch_run, t), 0);
}

static uint8_t found(struct toucher *t)
{
    assert_int_equal(pthread_join(t->thread, NULL), 0);
    return t->found;
}

static void test_wait_and_place(void **state)
{
    struct toucher t;
    struct bed b;
    uint64_t page;

    (void)state;
    setup(&b);
    assert_int_equal(*at(&b, 9), 9); /* these are there, and nobody waits */
    assert_int_equal(*at(&b, 20), 20);
    touch(&t, at(&b, 15) + 100, -1);
    assert_true(missing_next(b.mp, &page));
    assert_int_equal(page, 15);
    place(&b, 15, 77);
    assert_int_equal(found(&t), 77);
    assert_int_equal(missing_left(b.mp), 9);
    teardown(&b);
}

static void test_kernel_waits(void **state)
{
    struct toucher t;
    struct bed b;
    uint64_t page;
    uint8_t byte;
    int fds[2];

    (void)state;
    setup(&b);
    assert_int_equal(pipe(fds), 0);
    touch(&t, at(&b, 12), fds[1]);
    assert_true(missing_next(b.mp, &page));
    assert_int_equal(page, 12);
    place(&b, 12, 55);
    assert_int_equal(found(&t), 1);
    assert_int_equal(read(fds[0], &byte, 1), 1);
    assert_int_equal(byte, 55);
    close(fds[0]);
    close(fds[1]);
    teardown(&b);
}

/* What was placed may have been written to since. */
static void test_placed_once(void **state)
{
    struct bed b;

    (void)state;
    setup(&b);
    place(&b, 13, 1);
    *at(&b, 13) = 99;
    place(&b, 13, 2);
    assert_int_equal(*at(&b, 13), 99);
    place(&b, 30, 3); /* was never missing */
    assert_int_equal(*at(&b, 30), 30);
    assert_true(missing_place(b.mp, 14, NULL, NULL));
    assert_int_equal(*at(&b, 14), 0);
    assert_int_equal(missing_left(b.mp), 8);
    teardown(&b);
}

/* A page that nobody ever wrote to is not asked for. */
static void test_never_written(void **state)
{
    struct toucher never, missing;
    struct bed b;
    uint64_t page;

    (void)state;
    setup(&b);
    touch(&never, at(&b, PAGES - 1), -1);
    touch(&missing, at(&b, 19), -1);
    assert_true(missing_next(b.mp, &page));
    assert_int_equal(page, 19);
    place(&b, 19, 5);
    assert_int_equal(found(&missing), 5);
    missing_shutdown(b.mp);
    assert_false(missing_next(b.mp, &page));
    missing_abandon(b.mp); /* if it was heard too late */
    assert_int_equal(found(&never), 0);
    teardown(&b);
}

static void test_asked_again(void **state)
{
    struct toucher first, second;
    struct bed b;
    uint64_t page;

    (void)state;
    setup(&b);
    touch(&first, at(&b, 16), -1);
    assert_true(missing_next(b.mp, &page));
    touch(&second, at(&b, 11), -1);
    assert_true(missing_next(b.mp, &page));
    assert_int_equal(page, 11);
    place(&b, 11, 1);
    assert_int_equal(found(&second), 1);
    missing_ask_again(b.mp);
    assert_true(missing_next(b.mp, &page));
    assert_int_equal(page, 16); /* the one that has come is not */
    place(&b, 16, 2);
    assert_int_equal(found(&first), 2);
    missing_shutdown(b.mp);
    assert_false(missing_next(b.mp, &page));
    teardown(&b);
}

static void test_abandon(void **state)
{
    struct toucher t;
    struct bed b;
    uint64_t page;

    (void)state;
    setup(&b);
    touch(&t, at(&b, 17), -1);
    assert_true(missing_next(b.mp, &page));
    missing_abandon(b.mp);
    assert_int_equal(found(&t), 0);
    teardown(&b);
}

static void test_find(void **state)
{
    uint64_t first, count;
    struct bed b;

    (void)state;
    setup(&b);
    place(&b, 14, 0);
    assert_true(missing_find(b.mp, 0, &first, &count));
    assert_true(first == 10 && count == 4);
    assert_true(missing_find(b.mp, 14, &first, &count));
    assert_true(first == 15 && count == 5);
    assert_false(missing_find(b.mp, 20, &first, &count));
    assert_true(missing_discard(b.mp, 14, 2, NULL)); /* one of them is missing already */
    assert_int_equal(missing_left(b.mp), 10);
    missing_seal(b.mp);
    assert_false(missing_discard(b.mp, 30, 1, NULL)); /* somebody may have written to it */
    assert_int_equal(*at(&b, 30), 30);
    assert_int_equal(missing_left(b.mp), 10);
    teardown(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wait_and_place), cmocka_unit_test(test_kernel_waits),
        cmocka_unit_test(test_placed_once),    cmocka_unit_test(test_never_written),
        cmocka_unit_test(test_asked_again),    cmocka_unit_test(test_abandon),
        cmocka_unit_test(test_find),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
