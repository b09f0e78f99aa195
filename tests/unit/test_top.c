/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `perdure top` without a terminal: what it makes of answers, the lines it shows at any size, and asking
 * processes that answer, hang, and end.
 */
#include "base/task.h"
#include "cli/client.h"
#include "cli/top_page.h"
#include "cli/top_poll.h"
#include "control/qmp_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

static const char answer[] =
    "{'name': 'web', 'run_state': 'running', 'role': 'primary', 'state': 'PROTECTED', 'pair': 'p-u-i-d', "
    "'generation': 3, 'epoch': 1234, 'vcpus': 2, 'memory': 536870912, 'peer': 'tcp:hostB:7700', "
    "'arbiter': 'manual', 'sync_pages_left': 0, 'checkpoint': {'interval_us': 10000, 'rate_hz': %d, 'count': "
    "77, 'pause_us': {'p50': 400, 'p99': 1200, 'max': 3000000}, 'dirty_pages': {'p50': 210, 'p99': 4500, "
    "'max': 9000}, 'bytes_per_epoch': 123456, 'ack_us': {'p50': 1, 'p99': 22, 'max': 3}, 'output_held_us': "
    "{'p50': 4, 'p99': 5500, 'max': 6}, 'staging_full': 9}, 'last_error': 'bad cable', 'report': "
    "'one\\ntwo'%s}";

static json_t *status(int rate, const char *more)
{
    char text[4096];
    json_t *s;

    snprintf(text, sizeof(text), answer, rate, more);
    for (char *p = text; *p; p++)
        if (*p == '\'')
            *p = '"';
    s = json_loads(text, 0, NULL);
    assert_non_null(s);
    return s;
}

static void give(struct top_row *row, int rate, const char *more)
{
    json_t *s = status(rate, more);

    top_row_answer(row, s);
    json_decref(s);
}

static void test_answer(void **state)
{
    struct top_row row;

    (void)state;
    top_row_init(&row, "web");
    top_row_silent(&row, "no answer");
    give(&row, 55, "");
    assert_true(row.answers);
    assert_string_equal(row.error, "");
    assert_string_equal(row.state, "PROTECTED");
    assert_string_equal(row.peer, "tcp:hostB:7700");
    assert_int_equal(row.epoch, 1234);
    assert_int_equal(row.pause_us.max, 3000000);
    assert_int_equal(row.dirty_pages.p99, 4500);
    assert_int_equal(row.held_us.p99, 5500);
    assert_int_equal(row.disk_count, 0);
    give(&row, 55,
         ", 'disks': {'root': {'sync_left': 1024, 'sync_total': 4096, 'rate': 512, 'eta': 2}, 'x': 7}");
    assert_int_equal(row.disk_count, 1);
    assert_string_equal(row.disks[0].id, "root");
    assert_int_equal(row.disks[0].eta, 2);
    give(&row, 55, ", 'disks': {'sync_left': 10, 'sync_total': 4096, 'rate': 512, 'eta': 3}");
    assert_int_equal(row.disk_count, 1);
    assert_string_equal(row.disks[0].id, "");
    assert_int_equal(row.disks[0].sync_left, 10);
    top_row_silent(&row, "gone");
    assert_false(row.answers);
    assert_string_equal(row.state, "PROTECTED"); /* what was */
}

/* Members that are missing or of another type are empty; too many or too long ones are cut. */
static void test_strange_answers(void **state)
{
    static const char *const strange[] = {"{}", "[]", "7",
                                          "{\"role\": 7, \"epoch\": \"x\", \"checkpoint\": []}",
                                          "{\"disks\": [1, 2], \"report\": {}}"};
    struct top_row row;
    json_t *big = json_object(), *disks = json_object();
    char text[8192];

    (void)state;
    top_row_init(&row, "web");
    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
        json_t *s = json_loads(strange[i], JSON_DECODE_ANY, NULL);

        top_row_answer(&row, s);
        json_decref(s);
        assert_int_equal(row.epoch + row.disk_count + row.role[0], 0);
    }
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    for (int i = 0; i < 40; i++) {
        char id[16];

        snprintf(id, sizeof(id), "disk%d", i);
        json_object_set_new(disks, id, json_object());
    }
    json_object_set_new(big, "peer", json_string(text));
    json_object_set_new(big, "report", json_string(text));
    json_object_set_new(big, "disks", disks);
    top_row_answer(&row, big);
    assert_int_equal(strlen(row.peer), sizeof(row.peer) - 1);
    assert_int_equal(row.disk_count, TOP_DISKS);
    json_decref(big);
}

static void test_history(void **state)
{
    struct top_row row;
    char text[TOP_HISTORY + 1];

    (void)state;
    top_row_init(&row, "web");
    for (int i = 1; i <= TOP_HISTORY + 10; i++)
        give(&row, i, "");
    assert_int_equal(row.history, TOP_HISTORY);
    assert_int_equal(row.rates[0], 11);
    assert_int_equal(row.rates[TOP_HISTORY - 1], TOP_HISTORY + 10);
    top_format_history(text, sizeof(text), (int64_t[]){0, 1, 50, 100}, 4, 80);
    assert_string_equal(text, " .=#");
    top_format_history(text, sizeof(text), (int64_t[]){0, 1, 50, 100}, 4, 2);
    assert_int_equal(strlen(text), 2);
    top_format_history(text, sizeof(text), NULL, 0, 80);
    assert_string_equal(text, "");
    top_format_history(text, sizeof(text), (int64_t[]){1}, 1, -5);
    assert_string_equal(text, "");
}

static void test_events(void **state)
{
    struct top_row row;

    (void)state;
    top_row_init(&row, "web");
    for (int i = 0; i < 20; i++) {
        json_t *e =
            json_pack("{s:s, s:{s:i, s:i}, s:{s:s}}", "event", "PERDURE_STATE", "timestamp", "seconds", i,
                      "microseconds", 0, "data", "text", i == 19 ? "the newest" : "older");

        top_row_event(&row, e);
        json_decref(e);
    }
    assert_int_equal(row.event_count, TOP_EVENTS);
    assert_string_equal(row.events[0].text, "the newest");
    assert_int_equal(row.events[TOP_EVENTS - 1].time, 20 - TOP_EVENTS);
}

static void test_numbers(void **state)
{
    char text[16];

    (void)state;
    top_format_bytes(text, sizeof(text), 0);
    assert_string_equal(text, "0");
    top_format_bytes(text, sizeof(text), 1536);
    assert_string_equal(text, "1.5K");
    top_format_bytes(text, sizeof(text), 123 << 20);
    assert_string_equal(text, "123M");
    top_format_bytes(text, sizeof(text), INT64_MAX);
    assert_string_equal(text, "8192P");
    top_format_us(text, sizeof(text), 850);
    assert_string_equal(text, "850us");
    top_format_us(text, sizeof(text), 1234);
    assert_string_equal(text, "1.2ms");
}

static bool shows(const struct top_page *page, const char *text)
{
    for (int i = 0; i < page->count; i++)
        if (strstr(page->lines[i], text))
            return true;
    return false;
}

static void test_pages(void **state)
{
    static struct top_page page;
    static struct top_row rows[50];
    json_t *e = json_pack("{s:s, s:{s:s}}", "event", "RESUME", "data", "text", "it runs");

    (void)state;
    for (int i = 0; i < 50; i++) {
        char name[16];

        snprintf(name, sizeof(name), "vm%02d", i);
        top_row_init(&rows[i], name);
        give(&rows[i], 50,
             ", 'disks': {'root': {'sync_left': 1048576, 'sync_total': 4194304, 'rate': 512, 'eta': 2}}");
        top_row_event(&rows[i], e);
    }
    json_decref(e);
    page.height = 24;
    page.width = 160;
    top_page_list(&page, rows, 50, 49);
    assert_int_equal(page.count, 24 - TOP_EVENTS + 1);
    assert_true(page.marked > 0 && strstr(page.lines[page.marked], "vm49"));
    assert_true(shows(&page, "400us/1.2ms/3s") && shows(&page, "tcp:hostB:7700") && shows(&page, "5.5ms"));
    assert_true(shows(&page, " 1M ") && shows(&page, "RESUME it runs"));
    top_row_silent(&rows[3], "vm03: its process does not answer");
    top_page_list(&page, rows, 50, 3);
    assert_true(shows(&page, "does not answer"));
    top_page_detail(&page, &rows[49]);
    assert_true(shows(&page, "generation 3, epoch 1234") && shows(&page, "bad cable") && shows(&page, "two"));
    assert_true(shows(&page, "disk root: 1M of 4M left to sync, 512/s, 2 s") &&
                shows(&page, "210/4500/9000"));
    snprintf(rows[49].state, sizeof(rows[49].state), "MIGRATING");
    rows[49].sync_pages_left = 77;
    top_page_detail(&page, &rows[49]);
    assert_true(shows(&page, "migration: 77 pages left") && !shows(&page, "first sync"));
    snprintf(rows[49].role, sizeof(rows[49].role), "backup"); /* it does not know */
    top_page_detail(&page, &rows[49]);
    assert_true(!shows(&page, "pages left"));
    top_page_list(&page, rows, 0, 0);
    assert_true(shows(&page, "no machine runs on this host"));
    /* Of any size, nothing is written beyond it. */
    for (page.height = 1; page.height < 70; page.height++)
        for (page.width = 1; page.width < 300; page.width += 7) {
            for (int detail = 0; detail < 2; detail++) {
                if (detail)
                    top_page_detail(&page, &rows[page.height % 50]);
                else
                    top_page_list(&page, rows, 50, page.height % 50);
                assert_in_range(page.count, 1, page.height);
                for (int i = 0; i < page.count; i++)
                    assert_true((int)strlen(page.lines[i]) <= page.width);
            }
        }
}

/* --- processes --- */

static char dir[] = "/tmp/perdure-test-top.XXXXXX";

static bool fake_status(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    (void)opaque, (void)args, (void)errp;
    *ret = status(50, "");
    return true;
}

static const struct qmp_command commands[] = {{"perdure-status", fake_status}, {NULL, NULL}};

static void socket_path(char *path, size_t size, const char *name)
{
    snprintf(path, size, "%s/perdure/%s.sock", dir, name);
}

static QmpServer *serve(const char *name)
{
    char path[108];
    QmpServer *s;

    socket_path(path, sizeof(path), name);
    s = qmp_server_new(path, commands, NULL, NULL);
    assert_non_null(s);
    return s;
}

/* A process that is stopped: the kernel still takes connections, and nobody answers. */
static int hang(const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    socket_path(addr.sun_path, sizeof(addr.sun_path), name);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static int setup(void **state)
{
    char path[64];

    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/perdure", dir);
    setenv("XDG_RUNTIME_DIR", dir, 1);
    return mkdir(path, 0700);
}

static int teardown(void **state)
{
    char path[64];

    (void)state;
    snprintf(path, sizeof(path), "%s/perdure", dir);
    rmdir(path);
    return rmdir(dir);
}

#define until(condition)                                                                                     \
    do {                                                                                                     \
        int64_t end_ = clock_now() + 20 * NS_PER_S;                                                          \
        while (clock_now() < end_ && !(condition))                                                           \
            task_sleep_until(clock_now() + 10 * NS_PER_MS);                                                  \
        assert_true(condition);                                                                              \
    } while (0)

static struct top_row rows[TOP_ROWS_MAX];

static int look(struct top_poll *p)
{
    top_poll_scan(p);
    return top_poll_rows(p, rows, TOP_ROWS_MAX);
}

/* The one that hangs has a line that says so, and the others live on. */
static void test_poll(void **state)
{
    QmpServer *a = serve("aaa"), *b = serve("bbb");
    int hung = hang("hung");
    struct top_poll *p = top_poll_new(NULL, 20 * NS_PER_MS, NULL);
    char path[108];

    (void)state;
    until(look(p) == 3 && rows[0].history > 5 && rows[1].history > 5);
    assert_string_equal(rows[2].name, "hung");
    until(look(p) == 3 && strstr(rows[2].error, "does not answer"));
    qmp_server_event(a, "STOP", json_pack("{s:s}", "text", "held still"));
    until(look(p) == 3 && rows[0].event_count);
    assert_string_equal(rows[0].events[0].name, "STOP");
    /* One ends: said first, then gone. */
    qmp_server_free(b);
    until(look(p) == 3 && !rows[1].answers);
    assert_string_equal(rows[1].state, "PROTECTED");
    until(look(p) == 2);
    assert_string_equal(rows[1].name, "hung");
    /* And comes back. */
    b = serve("bbb");
    until(look(p) == 3 && rows[1].answers);
    top_poll_free(p);
    qmp_server_free(a);
    qmp_server_free(b);
    close(hung);
    socket_path(path, sizeof(path), "hung");
    unlink(path);
}

/* One that was named is shown whether it is there or not. */
static void test_poll_one(void **state)
{
    struct top_poll *p = top_poll_new("late", 20 * NS_PER_MS, NULL);
    QmpServer *s;

    (void)state;
    assert_null(top_poll_new("a/b", NS_PER_S, NULL));
    until(look(p) == 1 && strstr(rows[0].error, "no VM named late"));
    s = serve("late");
    until(look(p) == 1 && rows[0].answers);
    qmp_server_free(s);
    until(look(p) == 1 && !rows[0].answers);
    top_poll_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer), cmocka_unit_test(test_strange_answers), cmocka_unit_test(test_history),
        cmocka_unit_test(test_events), cmocka_unit_test(test_numbers),         cmocka_unit_test(test_pages),
        cmocka_unit_test(test_poll),   cmocka_unit_test(test_poll_one),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
