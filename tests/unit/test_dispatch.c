/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One port for many machines: for whom a connection is, from bytes that may be anything, and the handing
 * over.
 */
#include "base/random.h"
#include "base/task.h"
#include "control/addressee.h"
#include "engine/wire.h"
#include "stream/channel.h"
#include "stream/handover.h"
#include "stream/tls_hello.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/perdure-test-dispatch.XXXXXX";
static char psk_path[100], handover_path[100], handover_address[120];

/* --- first bytes --- */

static size_t plain_hello(uint8_t *buf, size_t size)
{
    struct wire_hello h = {.kind = 0, .timeout_ns = NS_PER_S, .interval_ns = NS_PER_MS, .ram_size = 1 << 20};
    VMStream *s = perdure_stream_open_memory(4096);
    const void *data;
    size_t n;

    snprintf(h.vm, sizeof(h.vm), "web");
    snprintf(h.pair, sizeof(h.pair), "00000000-0000-4000-8000-000000000000");
    snprintf(h.arbiter, sizeof(h.arbiter), "manual");
    assert_true(wire_send_hello(s, &h, NULL));
    data = perdure_stream_memory(s, &n);
    assert_true(n <= size);
    memcpy(buf, data, n);
    perdure_stream_close(s);
    return n;
}

struct connect {
    int fd;
    const char *name;
};

static void begin_tls(void *arg)
{
    struct connect *c = arg;
    struct channel_psk *psk = channel_psk_load(psk_path, NULL);
    Channel *ch = channel_fd_new(c->fd, "unix:");

    channel_psk_set_machine(psk, c->name);
    channel_set_deadline(ch, clock_now() + 10 * NS_PER_S);
    ch = channel_tls_client(ch, psk, NULL);
    channel_close(ch);
    channel_psk_free(psk);
}

/* What a client really sends first. */
static size_t tls_hello(uint8_t *buf, size_t size, const char *name)
{
    struct connect c = {.name = name};
    int pair[2];
    size_t n = 0;
    Task *t;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    c.fd = pair[0];
    t = task_start("client", begin_tls, &c, NULL);
    while (n < 5 || n < 5 + (size_t)(buf[3] << 8 | buf[4])) {
        ssize_t r = read(pair[1], buf + n, size - n);

        assert_true(r > 0);
        n += (size_t)r;
    }
    close(pair[1]);
    task_join(t);
    return n;
}

/* Every beginning of it wants more, all of it has the name; anything else ends. */
static void check_bytes(uint8_t *bytes, size_t n, const char *want)
{
    char name[ADDRESSEE_NAME_MAX];
    uint8_t *exact, was;

    for (size_t i = 0; i <= n; i++) {
        exact = malloc(i ? i : 1); /* so that a sanitizer sees a step too far */
        memcpy(exact, bytes, i);
        switch (addressee_of(exact, i, name)) {
        case ADDRESSEE_KNOWN:
            assert_string_equal(name, want);
            break;
        case ADDRESSEE_MORE:
            assert_true(i < n);
            break;
        case ADDRESSEE_NONE:
            fail_msg("%zu bytes are none", i);
        }
        free(exact);
    }
    assert_int_equal(addressee_of(bytes, n, name), ADDRESSEE_KNOWN);
    for (size_t i = 0; i < n; i++)
        for (int bit = 0; bit < 8; bit++) {
            was = bytes[i];
            bytes[i] ^= 1 << bit;
            exact = malloc(n);
            memcpy(exact, bytes, n);
            if (addressee_of(exact, n, name) == ADDRESSEE_KNOWN)
                assert_true(strlen(name) < sizeof(name));
            free(exact);
            bytes[i] = was;
        }
}

static void test_first_bytes(void **state)
{
    uint8_t bytes[4096];
    char name[ADDRESSEE_NAME_MAX];

    (void)state;
    check_bytes(bytes, plain_hello(bytes, sizeof(bytes)), "web");
    check_bytes(bytes, tls_hello(bytes, sizeof(bytes), "db-1.example"), "db-1.example");
    /* One that says nothing of a machine. */
    assert_int_equal(addressee_of(bytes, tls_hello(bytes, sizeof(bytes), ""), name), ADDRESSEE_NONE);
    assert_int_equal(addressee_of((const uint8_t *)"GET / HTTP/1.1\r\nHost: example\r\n", 31, name),
                     ADDRESSEE_NONE);
    assert_int_equal(addressee_of((const uint8_t *)"\x16\x03\x01\xff\xff", 5, name), ADDRESSEE_NONE);
    assert_int_equal(addressee_of((const uint8_t *)"\x16\x03\x01\x00\x00", 5, name), ADDRESSEE_NONE);
    for (int i = 0; i < 20000; i++) {
        random_bytes(bytes, 300);
        bytes[0] = i % 2 ? 0x16 : bytes[0];
        if (i % 4 == 3)
            memcpy(bytes, "\x16\x03\x01\x01\x00\x01\x00\x00\xfc", 9);
        addressee_of(bytes, 300, name);
    }
}

/* Nothing is taken from the connection, and silence ends. */
static void test_peek(void **state)
{
    uint8_t bytes[4096], again[4096];
    size_t n = plain_hello(bytes, sizeof(bytes));
    char name[ADDRESSEE_NAME_MAX];
    Error *err = NULL;
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(write(pair[0], bytes, 10), 10);
    assert_false(addressee_find(pair[1], "peer", clock_now() + 50 * NS_PER_MS, name, &err));
    assert_int_equal(error_get_errno(err), ETIMEDOUT);
    error_free(err);
    err = NULL;
    assert_int_equal(write(pair[0], bytes + 10, n - 10), n - 10);
    assert_true(addressee_find(pair[1], "peer", clock_now() + 10 * NS_PER_S, name, NULL));
    assert_string_equal(name, "web");
    assert_int_equal(read(pair[1], again, sizeof(again)), n);
    assert_memory_equal(bytes, again, n);
    close(pair[0]);
    assert_false(addressee_find(pair[1], "peer", clock_now() + 10 * NS_PER_S, name, &err));
    error_free(err);
    close(pair[1]);
}

/* --- handing over --- */

static void test_handover(void **state)
{
    Error *err = NULL;
    Listener *l;
    Channel *ch;
    struct stat st;
    char text[6], address[120];
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_false(handover_send(handover_path, pair[1], clock_now() + NS_PER_S, &err));
    assert_int_equal(error_get_errno(err), ENOENT);
    error_free(err);
    err = NULL;
    l = listener_new(handover_address, NULL);
    assert_non_null(l);
    assert_int_equal(stat(handover_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_null(listener_new(handover_address, &err)); /* somebody answers there */
    error_free(err);
    err = NULL;
    assert_int_equal(write(pair[0], "hello", 5), 5);
    /* Whoever connects and hands nothing over keeps nobody out. */
    snprintf(address, sizeof(address), "unix:%s", handover_path);
    ch = channel_connect(address, clock_now() + NS_PER_S, NULL);
    assert_non_null(ch);
    channel_close(ch);
    assert_true(handover_send(handover_path, pair[1], clock_now() + NS_PER_S, NULL));
    close(pair[1]);
    ch = listener_accept(l, NULL);
    assert_non_null(ch);
    assert_true(channel_read_full(ch, text, 5, NULL));
    assert_memory_equal(text, "hello", 5);
    assert_true(channel_write(ch, "back", 4, NULL));
    assert_int_equal(read(pair[0], text, 4), 4);
    channel_close(ch);
    close(pair[0]);
    listener_close(l);
    assert_int_equal(access(handover_path, F_OK), -1);
}

/* A peer beyond this host stays one when its connection was handed over. */
static void test_handover_peer(void **state)
{
    Listener *tcp = listener_new("tcp:127.0.0.1:0", NULL), *l = listener_new(handover_address, NULL);
    Channel *client = channel_connect(listener_address(tcp), clock_now() + 10 * NS_PER_S, NULL), *accepted,
            *ch;

    (void)state;
    accepted = listener_accept(tcp, NULL);
    assert_true(handover_send(handover_path, channel_fd_get(accepted), clock_now() + NS_PER_S, NULL));
    ch = listener_accept(l, NULL);
    assert_string_equal(ch->peer, accepted->peer);
    assert_memory_equal(ch->peer, "tcp:127.0.0.1:", 14);
    channel_close(ch);
    channel_close(accepted);
    channel_close(client);
    listener_close(l);
    listener_close(tcp);
}

/* Left from a process that was killed. */
static void test_stale(void **state)
{
    Listener *l = listener_new(handover_address, NULL);
    char moved[120];

    (void)state;
    snprintf(moved, sizeof(moved), "%s.old", handover_path);
    assert_int_equal(rename(handover_path, moved), 0);
    listener_close(l); /* not its own any more: stays */
    assert_int_equal(rename(moved, handover_path), 0);
    l = listener_new(handover_address, NULL);
    assert_non_null(l);
    listener_close(l);
}

static void test_descriptor(void **state)
{
    Listener *tcp = listener_new("tcp:127.0.0.1:0", NULL), *l;
    Error *err = NULL;
    char address[32];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    (void)state;
    for (int i = 0; i < 5; i++) {
        static const char *const bad[] = {"fd:", "fd:-1", "fd:9999", "fd:3x", "fd:99999999999999"};

        assert_null(listener_new(bad[i], &err));
        error_free(err);
        err = NULL;
    }
    snprintf(address, sizeof(address), "fd:%d", fd);
    assert_null(listener_new(address, &err)); /* does not listen */
    error_free(err);
    assert_int_equal(listen(fd, 1), 0);
    l = listener_new(address, NULL);
    assert_non_null(l);
    listener_close(l);
    listener_close(tcp);
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(psk_path, sizeof(psk_path), "%s/key", dir);
    snprintf(handover_path, sizeof(handover_path), "%s/web.handover", dir);
    snprintf(handover_address, sizeof(handover_address), "handover:%s", handover_path);
    return !channel_psk_generate(psk_path, NULL);
}

static int teardown(void **state)
{
    (void)state;
    unlink(psk_path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_bytes),   cmocka_unit_test(test_peek),  cmocka_unit_test(test_handover),
        cmocka_unit_test(test_handover_peer), cmocka_unit_test(test_stale), cmocka_unit_test(test_descriptor),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
