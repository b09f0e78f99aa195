/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options from files, and what a service manager is told. */
#include "cli/config_file.h"
#include "cli/options.h"
#include "control/notify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

static char path[] = "/tmp/perdure-test-conf.XXXXXX";

static void write_file(const char *text)
{
    FILE *f = fopen(path, "w");

    fputs(text, f);
    fclose(f);
}

static bool collect(void *opaque, const char *key, const char *value, Error **errp)
{
    char *all = opaque;
    size_t n = strlen(all);

    if (!strcmp(key, "bad")) {
        error_setg(errp, "this is bad");
        return false;
    }
    snprintf(all + n, 1000 - n, "%s=%s;", key, value ? value : "-");
    return true;
}

static void expect(const char *name, const char *want, bool want_section)
{
    char all[1000] = "";
    bool section;

    assert_true(config_file_read(path, name, collect, all, &section, NULL));
    assert_string_equal(all, want);
    assert_int_equal(section, want_section);
}

static void test_sections(void **state)
{
    (void)state;
    write_file(
        "# comment\n\n  psk  /etc/key of all \n insecure\n[web]\ndisk\tid=root,path=/srv/%n.img\n[db-*]\n"
        "cmdline a=%d %n%n\n[*]\nnet x\n");
    expect("web", "psk=/etc/key of all;insecure=-;disk=id=root,path=/srv/web.img;", true);
    expect("db-1", "psk=/etc/key of all;insecure=-;cmdline=a=%d db-1db-1;", true);
    expect("other", "psk=/etc/key of all;insecure=-;net=x;", true);
    write_file("[web]\nx\n[web]\ny");
    expect("web", "x=-;", true); /* the first one */
    expect("wet", "", false);
    expect(NULL, "", false);
}

static void expect_error(const char *text, const char *want)
{
    char all[1000] = "", where[64];
    Error *err = NULL;

    write_file(text);
    assert_false(config_file_read(path, "web", collect, all, NULL, &err));
    snprintf(where, sizeof(where), "%s:", path);
    assert_non_null(strstr(error_get_pretty(err), where));
    if (!strstr(error_get_pretty(err), want))
        fail_msg("%s: %s", text, error_get_pretty(err));
    error_free(err);
}

static void test_bad_files(void **state)
{
    char *text = malloc(10000);
    Error *err = NULL;

    (void)state;
    expect_error("ok\nbad", ":2: this is bad");
    expect_error("[web", ":1: '[web' is not [NAME]");
    expect_error("[]", "is not [NAME]");
    memset(text, 'x', 9999);
    memcpy(text, "key ", 4);
    text[9999] = 0;
    expect_error(text, "more than");
    free(text);
    assert_false(config_file_read("/nonexistent/conf", "web", collect, NULL, NULL, &err));
    error_free(err);
}

static int begin(const char *file, char *size_of, bool *flag, int argc, char **argv)
{
    char name[16] = "", config[64] = "";
    const struct option_spec specs[] = {
        {"name", "NAME", OPTION_STRING, name, sizeof(name), ""},
        {"config", "FILE", OPTION_STRING, config, sizeof(config), ""},
        {"size", "S", OPTION_STRING, size_of, 16, ""},
        {"flag", NULL, OPTION_FLAG, flag, 0, ""},
        {0},
    };

    write_file(file);
    return options_begin_with_config("", specs, argc, argv);
}

/* The command line has the last word. */
static void test_options(void **state)
{
    char size[16] = "";
    bool flag = false;
    char *plain[] = {"run", "--config", path, "--name=web"};
    char *more[] = {"run", "--name", "web", "--config", path, "--size", "mine"};

    (void)state;
    assert_int_equal(begin("size file\nflag\n", size, &flag, 4, plain), -1);
    assert_string_equal(size, "file");
    assert_true(flag);
    assert_int_equal(begin("size file\n", size, &flag, 7, more), -1);
    assert_string_equal(size, "mine");
    assert_int_equal(begin("[web]\nsize %n\n[x]\nsize y", size, &flag, 4, plain), -1);
    assert_string_equal(size, "web");
    assert_int_equal(begin("nonsense 7\n", size, &flag, 4, plain), 2);
    assert_int_equal(begin("flag yes\n", size, &flag, 4, plain), 2);
    assert_int_equal(begin("size\n", size, &flag, 4, plain), 2);
    assert_int_equal(begin("config other\n", size, &flag, 4, plain), 2);
}

static void test_notify(void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char text[64], name[32];
    int n;

    (void)state;
    unsetenv("NOTIFY_SOCKET");
    notify_service("READY=1"); /* nobody */
    n = snprintf(name, sizeof(name), "@perdure-test-%d", getpid());
    memcpy(addr.sun_path, name, (size_t)n);
    addr.sun_path[0] = 0;
    assert_int_equal(
        bind(fd, (struct sockaddr *)&addr, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    notify_service("READY=1");
    assert_int_equal(recv(fd, text, sizeof(text), 0), 7);
    assert_memory_equal(text, "READY=1", 7);
    setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1);
    notify_service("READY=1");
    setenv("NOTIFY_SOCKET", "relative", 1);
    notify_service("READY=1");
    unsetenv("NOTIFY_SOCKET");
    close(fd);
}

static int setup(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    close(fd);
    return fd < 0;
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sections),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_notify),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
