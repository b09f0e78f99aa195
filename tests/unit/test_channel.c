/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stream/channel.h"
#include "base/task.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define BIG (3 << 20) /* more than any socket buffer takes at once */

struct side {
    Channel *ch;
    Listener *listener;
    uint8_t *data;
    size_t size;
    bool ok;
    Error *err;
    char byte;
};

static void expect_error(Error **err, int errnum, const char *text)
{
    assert_non_null(*err);
    if (!strstr(error_get_pretty(*err), text))
        fail_msg("'%s' is not in '%s'", text, error_get_pretty(*err));
    assert_int_equal(error_get_errno(*err), errnum);
    error_free(*err);
    *err = NULL;
}

static void make_pair(struct side s[2])
{
    int fds[2];

    memset(s, 0, 2 * sizeof(s[0]));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    for (int i = 0; i < 2; i++) {
        s[i].ch = channel_fd_new(fds[i], i ? "unix:one" : "unix:zero");
        assert_non_null(s[i].ch);
    }
}

static void close_pair(struct side s[2])
{
    channel_close(s[0].ch);
    channel_close(s[1].ch);
    channel_close(NULL);
}

static void write_all(void *arg)
{
    struct side *s = arg;
    /* In uneven pieces, some of them empty. */
    struct iovec iov[100] = {0};

    for (size_t i = 0, at = 0; i < 100; i++) {
        size_t n = i == 99 ? s->size - at : i % 10 * (s->size / 1000);

        iov[i] = (struct iovec){.iov_base = s->data + at, .iov_len = n};
        at += n;
    }
    s->ok = channel_writev(s->ch, iov, 100, &s->err);
}

static void test_big_write_arrives(void **state)
{
    struct side s[2];
    uint8_t *got = malloc(BIG);
    Task *t;

    (void)state;
    make_pair(s);
    s[0].data = malloc(BIG);
    s[0].size = BIG;
    for (size_t i = 0; i < BIG; i++)
        s[0].data[i] = (uint8_t)(i * 7 + i / 4096);
    t = task_start("writer", write_all, &s[0], NULL);
    assert_true(channel_read_full(s[1].ch, got, BIG, NULL));
    task_join(t);
    assert_true(s[0].ok);
    assert_memory_equal(got, s[0].data, BIG);
    free(got);
    free(s[0].data);
    close_pair(s);
}

static void test_end_of_stream(void **state)
{
    struct side s[2];
    Error *err = NULL;
    char buf[4];

    (void)state;
    make_pair(s);
    assert_true(channel_write(s[0].ch, "ab", 2, NULL));
    channel_close(s[0].ch);
    assert_false(channel_read_full(s[1].ch, buf, 4, &err));
    expect_error(&err, ECONNRESET, "unix:one closed the connection");
    assert_int_equal(channel_read(s[1].ch, buf, 4, NULL), 0);
    /* No SIGPIPE. */
    assert_false(channel_write(s[1].ch, buf, 4, &err));
    expect_error(&err, EPIPE, "cannot write to unix:one");
    channel_close(s[1].ch);
}

static void test_deadline(void **state)
{
    struct side s[2];
    Error *err = NULL;
    uint8_t *data = calloc(1, BIG);
    int64_t end = clock_now() + 20 * NS_PER_MS;
    char byte;

    (void)state;
    make_pair(s);
    channel_set_deadline(s[0].ch, end);
    assert_int_equal(channel_read(s[0].ch, &byte, 1, &err), -1);
    expect_error(&err, ETIMEDOUT, "unix:zero did not answer in time");
    assert_true(clock_now() >= end);
    assert_false(channel_write(s[0].ch, data, BIG, &err)); /* nobody reads */
    expect_error(&err, ETIMEDOUT, "did not answer in time");
    channel_set_deadline(s[0].ch, TIME_NEVER);
    assert_true(channel_write(s[1].ch, "x", 1, NULL));
    assert_int_equal(channel_read(s[0].ch, &byte, 1, NULL), 1);
    free(data);
    close_pair(s);
}

static void read_byte(void *arg)
{
    struct side *s = arg;

    s->ok = channel_read(s->ch, &s->byte, 1, &s->err) == 1;
}

static void shutdown_wakes(Channel *ch)
{
    struct side s = {.ch = ch, .ok = true};
    Task *t = task_start("reader", read_byte, &s, NULL);

    task_sleep_until(clock_now() + 10 * NS_PER_MS);
    channel_shutdown(ch);
    task_join(t);
    assert_false(s.ok);
    expect_error(&s.err, ECANCELED, "was shut down here");
    assert_false(channel_write(ch, "x", 1, &s.err));
    expect_error(&s.err, ECANCELED, "was shut down here");
    channel_shutdown(ch);
}

static void test_shutdown(void **state)
{
    struct side s[2];
    int fds[2];
    Channel *ch;
    char byte;

    (void)state;
    make_pair(s);
    shutdown_wakes(s[0].ch);
    assert_int_equal(channel_read(s[1].ch, &byte, 1, NULL), 0); /* the peer hears of it */
    close_pair(s);
    assert_int_equal(pipe(fds), 0); /* shutdown(2) knows no pipes */
    ch = channel_fd_new(fds[0], "pipe");
    shutdown_wakes(ch);
    channel_close(ch);
    close(fds[1]);
}

static void accept_one(void *arg)
{
    struct side *s = arg;

    s->ch = listener_accept(s->listener, &s->err);
}

static void connect_over(const char *address)
{
    struct side s = {.listener = listener_new(address, NULL)};
    Channel *ch;
    Task *t;

    assert_non_null(s.listener);
    t = task_start("accept", accept_one, &s, NULL);
    ch = channel_connect(listener_address(s.listener), clock_now() + 5 * NS_PER_S, NULL);
    assert_non_null(ch);
    task_join(t);
    assert_non_null(s.ch);
    assert_true(channel_peer_is_local(ch));
    assert_true(channel_peer_is_local(s.ch));
    assert_true(channel_write(ch, "q", 1, NULL));
    assert_true(channel_read_full(s.ch, &s.byte, 1, NULL));
    assert_int_equal(s.byte, 'q');
    channel_close(s.ch);
    channel_close(ch);
    listener_close(s.listener);
}

static void test_connect(void **state)
{
    char dir[] = "/tmp/perdure-channel-XXXXXX", address[100];
    Error *err = NULL;
    Listener *l;
    struct stat st;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(address, sizeof(address), "unix:%s/sock", dir);
    connect_over("tcp:127.0.0.1:0");
    connect_over("tcp:localhost:0");
    connect_over(address);
    assert_int_not_equal(access(address + 5, F_OK), 0); /* close removed it */
    assert_null(channel_connect(address, TIME_NEVER, &err));
    expect_error(&err, ENOENT, "cannot connect to unix:");
    l = listener_new(address, NULL);
    assert_int_equal(stat(address + 5, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_null(listener_new(address, &err));
    expect_error(&err, EADDRINUSE, "cannot listen on unix:");
    listener_close(l);
    rmdir(dir);
}

static void test_connect_ipv6(void **state)
{
    int fd = socket(AF_INET6, SOCK_STREAM, 0);

    (void)state;
    if (fd < 0 || access("/proc/net/if_inet6", F_OK))
        skip();
    close(fd);
    connect_over("tcp:[::1]:0");
}

static void test_refused(void **state)
{
    Listener *l = listener_new("tcp:127.0.0.1:0", NULL);
    Error *err = NULL;
    char address[100];

    (void)state;
    snprintf(address, sizeof(address), "%s", listener_address(l));
    listener_close(l);
    listener_close(NULL);
    assert_null(channel_connect(address, TIME_NEVER, &err));
    expect_error(&err, ECONNREFUSED, "cannot connect to tcp:127.0.0.1:");
}

static void test_listener_shutdown(void **state)
{
    struct side s = {.listener = listener_new("tcp:127.0.0.1:0", NULL)};
    Task *t = task_start("accept", accept_one, &s, NULL);

    (void)state;
    task_sleep_until(clock_now() + 10 * NS_PER_MS);
    listener_shutdown(s.listener);
    task_join(t);
    assert_null(s.ch);
    expect_error(&s.err, ECANCELED, "no longer listening");
    assert_null(listener_accept(s.listener, NULL));
    listener_close(s.listener);
}

static void test_bad_addresses(void **state)
{
    static const struct {
        const char *address, *text;
    } bad[] = {
        {"", "is neither tcp:HOST:PORT nor unix:PATH"},
        {"127.0.0.1:7700", "is neither"},
        {"tcp:", "is not of the form"},
        {"tcp:host", "is not of the form"},
        {"tcp::7700", "is not of the form"},
        {"tcp:[]:7700", "is not of the form"},
        {"tcp:[::1]", "is not of the form"},
        {"tcp:[::1", "is not of the form"},
        {"tcp:::1:7700", "put an IPv6 address into brackets"},
        {"tcp:host:", "is not a port number"},
        {"tcp:host:65536", "is not a port number"},
        {"tcp:host:-1", "is not a port number"},
        {"tcp:host:99999999999999999999999", "is not a port number"},
        {"tcp:host:80x", "is not a port number"},
        {"unix:", "names no socket file"},
    };
    char long_path[300] = "unix:";
    Error *err = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_null(channel_connect(bad[i].address, TIME_NEVER, &err));
        expect_error(&err, 0, bad[i].text);
        assert_null(listener_new(bad[i].address, &err));
        expect_error(&err, 0, bad[i].text);
        assert_false(channel_address_is_local(bad[i].address) && strcmp(bad[i].address, "unix:"));
    }
    memset(long_path + 5, 'x', 200);
    assert_null(channel_connect(long_path, TIME_NEVER, &err));
    expect_error(&err, 0, "longer than 107 bytes");
}

static void test_local(void **state)
{
    (void)state;
    assert_true(channel_address_is_local("tcp:127.3.4.5:1"));
    assert_true(channel_address_is_local("tcp:[::1]:1"));
    assert_true(channel_address_is_local("tcp:[::ffff:127.0.0.1]:1"));
    assert_true(channel_address_is_local("unix:/x"));
    assert_false(channel_address_is_local("tcp:0.0.0.0:7700"));
    assert_false(channel_address_is_local("tcp:[::]:7700"));
    assert_false(channel_address_is_local("tcp:10.0.0.2:7700"));
    assert_false(channel_address_is_local("tcp:[::ffff:10.0.0.1]:1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_big_write_arrives), cmocka_unit_test(test_end_of_stream),
        cmocka_unit_test(test_deadline),          cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_connect),           cmocka_unit_test(test_connect_ipv6),
        cmocka_unit_test(test_refused),           cmocka_unit_test(test_listener_shutdown),
        cmocka_unit_test(test_bad_addresses),     cmocka_unit_test(test_local),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
