/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stream/channel.h"
#include "base/task.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define BIG (4 << 20)

static char dir[] = "/tmp/perdure-tls-XXXXXX";
static char key_path[2][64];
static struct channel_psk *keys[2];

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    for (int i = 0; i < 2; i++) {
        snprintf(key_path[i], sizeof(key_path[i]), "%s/key%d", dir, i);
        if (!channel_psk_generate(key_path[i], NULL))
            return -1;
        keys[i] = channel_psk_load(key_path[i], NULL);
    }
    return keys[0] && keys[1] ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        channel_psk_free(keys[i]);
        unlink(key_path[i]);
    }
    rmdir(dir);
    return 0;
}

static void expect_error(Error **err, int errnum, const char *text)
{
    assert_non_null(*err);
    if (!strstr(error_get_pretty(*err), text))
        fail_msg("'%s' is not in '%s'", text, error_get_pretty(*err));
    assert_int_equal(error_get_errno(*err), errnum);
    error_free(*err);
    *err = NULL;
}

struct server {
    Channel *ch;
    const struct channel_psk *psk;
    Error *err;
    uint8_t *data;
    bool ok;
};

static void serve(void *arg)
{
    struct server *s = arg;

    s->ch = channel_tls_server(s->ch, s->psk, &s->err);
}

/* Both ends of a TLS connection. */
static void tls_pair(Channel *ret[2])
{
    struct server s = {.psk = keys[0]};
    Channel *raw[2];
    Task *t;

    assert_true(channel_pair_new(raw, NULL));
    s.ch = raw[1];
    t = task_start("server", serve, &s, NULL);
    ret[0] = channel_tls_client(raw[0], keys[0], NULL);
    task_join(t);
    assert_non_null(ret[0]);
    assert_non_null(s.ch);
    ret[1] = s.ch;
}

static void write_big(void *arg)
{
    struct server *s = arg;
    struct iovec iov[3] = {{s->data, 10}, {s->data + 10, BIG - 10}, {NULL, 0}};

    s->ok = channel_writev(s->ch, iov, 3, &s->err);
}

/* Megabytes in both directions at once. */
static void test_both_ways(void **state)
{
    uint8_t *data = malloc(BIG), *got[2] = {malloc(BIG), malloc(BIG)};
    struct server writer[2];
    Channel *ch[2];
    Task *t[2];
    char byte;

    (void)state;
    for (size_t i = 0; i < BIG; i++)
        data[i] = (uint8_t)(i * 13 + i / 1000);
    tls_pair(ch);
    for (int i = 0; i < 2; i++) {
        writer[i] = (struct server){.ch = ch[i], .data = data};
        t[i] = task_start("writer", write_big, &writer[i], NULL);
    }
    for (size_t at = 0; at < BIG; at += 65536)
        for (int i = 0; i < 2; i++)
            assert_true(channel_read_full(ch[i], got[i] + at, 65536, NULL));
    for (int i = 0; i < 2; i++) {
        task_join(t[i]);
        assert_true(writer[i].ok);
        assert_memory_equal(got[i], data, BIG);
        free(got[i]);
    }
    channel_close(ch[0]);
    assert_int_equal(channel_read(ch[1], &byte, 1, NULL), 0); /* it said good-bye */
    channel_close(ch[1]);
    free(data);
}

static void test_wrong_key(void **state)
{
    struct server s = {.psk = keys[1]};
    Error *err = NULL;
    Channel *raw[2];
    Task *t;

    (void)state;
    assert_true(channel_pair_new(raw, NULL));
    s.ch = raw[1];
    t = task_start("server", serve, &s, NULL);
    assert_null(channel_tls_client(raw[0], keys[0], &err));
    task_join(t);
    assert_null(s.ch);
    expect_error(&err, 0, "memory:1: authentication failed (is the key file the same on both sides?)");
    expect_error(&s.err, 0, "memory:0: authentication failed");
}

static void test_plain_peer(void **state)
{
    Error *err = NULL;
    Channel *raw[2];

    (void)state;
    for (int server = 0; server < 2; server++) {
        assert_true(channel_pair_new(raw, NULL));
        assert_true(channel_write(raw[1], "perdure, but in the clear", 25, NULL));
        assert_null(server ? channel_tls_server(raw[0], keys[0], &err)
                           : channel_tls_client(raw[0], keys[0], &err));
        expect_error(&err, 0, "does not speak TLS");
        channel_close(raw[1]);
    }
}

static void test_peer_that_leaves(void **state)
{
    Error *err = NULL;
    Channel *raw[2];

    (void)state;
    assert_true(channel_pair_new(raw, NULL));
    channel_close(raw[1]);
    assert_null(channel_tls_server(raw[0], keys[0], &err));
    expect_error(&err, ECONNRESET, "closed the connection instead of beginning TLS");
}

static void test_silent_peer(void **state)
{
    Error *err = NULL;
    Channel *raw[2];

    (void)state;
    assert_true(channel_pair_new(raw, NULL));
    channel_set_deadline(raw[0], clock_now() + 20 * NS_PER_MS);
    assert_null(channel_tls_client(raw[0], keys[0], &err));
    expect_error(&err, ETIMEDOUT, "did not answer in time");
    channel_close(raw[1]);
}

static void read_byte(void *arg)
{
    struct server *s = arg;
    char byte;

    s->ok = channel_read(s->ch, &byte, 1, &s->err) == 1;
}

static void test_shutdown_and_deadline(void **state)
{
    struct server s = {0};
    Error *err = NULL;
    Channel *ch[2];
    char byte;
    Task *t;

    (void)state;
    tls_pair(ch);
    channel_set_deadline(ch[0], clock_now() + 10 * NS_PER_MS);
    assert_int_equal(channel_read(ch[0], &byte, 1, &err), -1);
    expect_error(&err, ETIMEDOUT, "did not answer in time");
    channel_set_deadline(ch[0], TIME_NEVER);
    assert_true(channel_write(ch[1], "x", 1, NULL));
    assert_int_equal(channel_read(ch[0], &byte, 1, NULL), 1); /* a deadline harms nothing */
    s.ch = ch[0];
    t = task_start("reader", read_byte, &s, NULL);
    task_sleep_until(clock_now() + 10 * NS_PER_MS);
    channel_shutdown(ch[0]);
    task_join(t);
    assert_false(s.ok);
    expect_error(&s.err, ECANCELED, "was shut down here");
    assert_false(channel_write(ch[0], "x", 1, NULL));
    assert_int_equal(channel_read(ch[1], &byte, 1, &err), -1); /* cut, not ended */
    expect_error(&err, ECONNRESET, "without saying good-bye");
    channel_close(ch[0]);
    channel_close(ch[1]);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");

    fputs(text, f);
    fclose(f);
    chmod(path, mode);
}

static void test_key_files(void **state)
{
    const char *good = "perdure-psk:00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    char path[64], text[200];
    Error *err = NULL;
    struct stat st;

    (void)state;
    snprintf(path, sizeof(path), "%s/key", dir);
    assert_int_equal(stat(key_path[0], &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, 12 + 64 + 1);
    assert_false(channel_psk_generate(key_path[0], &err));
    expect_error(&err, EEXIST, "cannot make the key file");
    assert_null(channel_psk_load(path, &err));
    expect_error(&err, ENOENT, "cannot open the key file");
    write_file(path, good, 0644);
    assert_null(channel_psk_load(path, &err));
    expect_error(&err, 0, "is open to other users");
    write_file(path, good, 0600);
    channel_psk_free(channel_psk_load(path, NULL));
    for (size_t cut = 0; cut < strlen(good); cut++) {
        snprintf(text, sizeof(text), "%.*s", (int)cut, good);
        write_file(path, text, 0600);
        assert_null(channel_psk_load(path, &err));
        expect_error(&err, 0, "is not a key file");
    }
    snprintf(text, sizeof(text), "%s0", good);
    write_file(path, text, 0600);
    assert_null(channel_psk_load(path, NULL));
    memcpy(text, good, strlen(good) + 1);
    text[40] = 'g';
    write_file(path, text, 0600);
    assert_null(channel_psk_load(path, NULL));
    assert_null(channel_psk_load(dir, &err));
    expect_error(&err, EISDIR, "cannot read the key file");
    channel_psk_free(NULL);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),   cmocka_unit_test(test_wrong_key),
        cmocka_unit_test(test_plain_peer),  cmocka_unit_test(test_peer_that_leaves),
        cmocka_unit_test(test_silent_peer), cmocka_unit_test(test_shutdown_and_deadline),
        cmocka_unit_test(test_key_files),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
