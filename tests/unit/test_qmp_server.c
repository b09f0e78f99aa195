/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/qmp_server.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

struct server {
    QmpServer *s;
    char dir[40], path[60];
};

static bool run_echo(void *opaque, json_t *args, json_t **ret, Error **errp)
{
    (void)opaque;
    if (json_object_get(args, "fail")) {
        error_setg(errp, "it failed because it was told to");
        return false;
    }
    *ret = json_incref(args);
    return true;
}

static const struct qmp_command commands[] = {{"echo", run_echo}, {NULL, NULL}};

static int setup(void **state)
{
    struct server *t = calloc(1, sizeof(*t));

    snprintf(t->dir, sizeof(t->dir), "/tmp/perdure-qmp-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
    snprintf(t->path, sizeof(t->path), "%s/x.sock", t->dir);
    t->s = qmp_server_new(t->path, commands, NULL, NULL);
    assert_non_null(t->s);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct server *t = *state;

    qmp_server_free(t->s);
    assert_int_not_equal(access(t->path, F_OK), 0);
    rmdir(t->dir);
    free(t);
    return 0;
}

static FILE *dial(struct server *t)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    FILE *f;

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", t->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    f = fdopen(fd, "r+");
    setvbuf(f, NULL, _IONBF, 0);
    return f;
}

/* The next message, as compact JSON with sorted keys in a static buffer; "" at the end of the connection. */
static const char *receive(FILE *f)
{
    static char text[4096];
    json_t *message = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL);
    char *dump = message ? json_dumps(message, JSON_COMPACT | JSON_SORT_KEYS) : strdup("");

    snprintf(text, sizeof(text), "%s", dump);
    free(dump);
    json_decref(message);
    return text;
}

static void ask(FILE *f, const char *request, const char *expected)
{
    const char *answer;

    fputs(request, f);
    answer = receive(f);
    if (!strstr(answer, expected))
        fail_msg("%s was answered %s", request, answer);
}

static FILE *dial_and_negotiate(struct server *t)
{
    FILE *f = dial(t);

    assert_non_null(strstr(receive(f), "\"QMP\":{\"capabilities\":[]"));
    ask(f, "{\"execute\":\"qmp_capabilities\"}", "{\"return\":{}}");
    return f;
}

static void test_conventions(void **state)
{
    FILE *f = dial(*state);

    receive(f);
    ask(f, "{\"execute\":\"echo\"}", "CommandNotFound");
    ask(f, "{\"execute\":\"qmp_capabilities\",\"id\":1}", "{\"id\":1,\"return\":{}}");
    ask(f, "{\"execute\":\"echo\",\"arguments\":{\"a\":[1,2]},\"id\":{\"x\":2}}",
        "{\"id\":{\"x\":2},\"return\":{\"a\":[1,2]}}");
    ask(f, "{\"execute\":\"echo\",\"arguments\":{\"fail\":1}}",
        "{\"error\":{\"class\":\"GenericError\",\"desc\":\"it failed because it was told to\"}}");
    ask(f, "{\"execute\":\"nonsense\"}", "The command nonsense has not been found");
    ask(f, "{\"execute\":\"query-commands\"}", "\"echo\"");
    ask(f, "{\"execute\":\"query-version\"}", "\"major\":0");
    /* Two requests in one write are two requests. */
    fputs("{\"execute\":\"echo\",\"id\":1}{\"execute\":\"echo\",\"id\":2}", f);
    assert_non_null(strstr(receive(f), "\"id\":1"));
    assert_non_null(strstr(receive(f), "\"id\":2"));
    fclose(f);
}

static void test_bad_requests(void **state)
{
    FILE *f = dial_and_negotiate(*state);

    ask(f, "[]", "must be a JSON object");
    ask(f, "{\"exec\":1}", "lacks member 'execute'");
    ask(f, "{\"execute\":\"echo\",\"arguments\":[]}", "must be an object");
    ask(f, "{\"execute\":\"echo\",\"more\":1}", "'more' is unexpected");
    ask(f, "{\"execute\":}", "Invalid JSON syntax");
    assert_string_equal(receive(f), ""); /* and it hung up */
    fclose(f);
}

static void test_endless_request(void **state)
{
    FILE *f = dial_and_negotiate(*state);
    char *megabytes = calloc(1, 3 << 20);

    memset(megabytes, '[', (3 << 20) - 1);
    fputs(megabytes, f);
    free(megabytes);
    fclose(f);
    f = dial_and_negotiate(*state); /* it lives */
    fclose(f);
}

static void test_events(void **state)
{
    struct server *t = *state;
    FILE *a = dial_and_negotiate(t), *b = dial_and_negotiate(t), *silent = dial(t);
    const char *message;

    qmp_server_event(t->s, "STOP", json_pack("{s:i}", "x", 1));
    message = receive(a);
    assert_non_null(
        strstr(message, "{\"data\":{\"x\":1},\"event\":\"STOP\",\"timestamp\":{\"microseconds\":"));
    assert_non_null(strstr(receive(b), "STOP"));
    receive(silent); /* the greeting; no event before it has negotiated */
    ask(silent, "{\"execute\":\"qmp_capabilities\"}", "{\"return\":{}}");
    fclose(a);
    fclose(b);
    fclose(silent);
}

static void test_live_and_stale_socket(void **state)
{
    struct server *t = *state;
    Error *err = NULL;
    struct stat st;

    assert_int_equal(stat(t->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_null(qmp_server_new(t->path, commands, NULL, &err));
    assert_non_null(strstr(error_get_pretty(err), "another perdure of this name is running"));
    error_free(err);

    /* What a killed process leaves behind is no obstacle. */
    char stale[80];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(stale, sizeof(stale), "%s/stale.sock", t->dir);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", stale);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    QmpServer *s = qmp_server_new(stale, commands, NULL, NULL);
    assert_non_null(s);
    qmp_server_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_conventions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endless_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_live_and_stale_socket, setup, teardown),
    };

    signal(SIGPIPE, SIG_IGN); /* a server that hangs up in the middle of a request is one of the tests */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
