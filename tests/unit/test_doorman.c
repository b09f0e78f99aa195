/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Doorman: those who say the word come in, also past any number of silent ones; the end waits for nobody
 * long.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/task.h"
#include "engine/doorman.h"

#define SILENT   70 /* more than there are places */
#define PATIENCE (300 * NS_PER_MS)

/* One byte within the time, and it is the right one. */
static Channel *check(void *opaque, Channel *ch, Error **errp)
{
    char word = 0;
    Error *err = NULL;

    (void)opaque;
    channel_set_deadline(ch, clock_now() + PATIENCE);
    if (channel_read_full(ch, &word, 1, &err) && word != 'y')
        error_setg(&err, "wrong word '%c'", word);
    if (!err)
        return ch;
    error_propagate(errp, err);
    channel_close(ch);
    return NULL;
}

struct house {
    char address[64];
    Listener *listener;
    Doorman *doorman;
    Channel *silent[SILENT];
};

static Channel *come(struct house *h, const char *word)
{
    Channel *ch = channel_connect(h->address, clock_now() + 5 * NS_PER_S, NULL);

    assert_non_null(ch);
    if (word)
        assert_true(channel_write(ch, word, strlen(word), NULL));
    return ch;
}

static void open_house(struct house *h, int silent)
{
    memset(h, 0, sizeof(*h));
    snprintf(h->address, sizeof(h->address), "unix:/tmp/perdure-doorman-%d", (int)getpid());
    h->listener = listener_new(h->address, NULL);
    assert_non_null(h->listener);
    h->doorman = doorman_new(h->listener, check, NULL, NULL);
    assert_non_null(h->doorman);
    for (int i = 0; i < silent; i++)
        h->silent[i] = come(h, NULL);
}

static void close_house(struct house *h)
{
    listener_shutdown(h->listener);
    doorman_free(h->doorman);
    listener_close(h->listener);
    for (int i = 0; i < SILENT; i++)
        channel_close(h->silent[i]);
}

static void test_past_silent_ones(void **state)
{
    int64_t begin = clock_now();
    struct house h;
    Channel *guest, *in;

    (void)state;
    open_house(&h, 20);
    guest = come(&h, "y");
    in = doorman_accept(h.doorman, NULL);
    assert_non_null(in);
    assert_true(clock_now() - begin < PATIENCE);
    channel_close(in);
    channel_close(guest);
    close_house(&h);
}

static void test_more_than_places(void **state)
{
    struct house h;
    Channel *guest, *in;

    (void)state;
    open_house(&h, SILENT);
    guest = come(&h, "y");
    in = doorman_accept(h.doorman, NULL);
    assert_non_null(in);
    channel_close(in);
    channel_close(guest);
    close_house(&h);
}

static void test_wrong_word_and_end(void **state)
{
    Error *err = NULL;
    struct house h;
    Channel *wrong;

    (void)state;
    open_house(&h, 0);
    wrong = come(&h, "n");
    task_sleep_until(clock_now() + 20 * NS_PER_MS);
    listener_shutdown(h.listener);
    assert_null(doorman_accept(h.doorman, &err));
    assert_non_null(strstr(error_get_pretty(err), h.address));
    error_free(err);
    channel_close(wrong);
    close_house(&h);
}

/* Those who were let in and not taken any more, and those who wait outside. */
static void test_end_with_a_full_house(void **state)
{
    struct house h;

    (void)state;
    open_house(&h, 0);
    for (int i = 0; i < SILENT; i++)
        h.silent[i] = come(&h, "y");
    task_sleep_until(clock_now() + 50 * NS_PER_MS);
    close_house(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_past_silent_ones),
        cmocka_unit_test(test_more_than_places),
        cmocka_unit_test(test_wrong_word_and_end),
        cmocka_unit_test(test_end_with_a_full_house),
    };

    return cmocka_run_group_tests_name("doorman", tests, NULL, NULL);
}
