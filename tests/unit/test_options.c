/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/machine_options.h"
#include "cli/options.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

struct values {
    char name[8], positional[8], optional[8];
    int64_t number, size, duration;
    bool flag;
};

static bool parse(struct values *v, const char *line, Error **errp)
{
    const struct option_spec specs[] = {
        {"name", "NAME", OPTION_STRING, v->name, sizeof(v->name), ""},
        {"number", "N", OPTION_INT, &v->number, 0, ""},
        {"size", "SIZE", OPTION_SIZE, &v->size, 0, ""},
        {"duration", "TIME", OPTION_DURATION, &v->duration, 0, ""},
        {"flag", NULL, OPTION_FLAG, &v->flag, 0, ""},
        {"VM", NULL, OPTION_STRING, v->positional, sizeof(v->positional), "the machine"},
        {"[MORE]", NULL, OPTION_STRING, v->optional, sizeof(v->optional), "may be left out"},
        {0},
    };
    char copy[200], *argv[20], *save = NULL;
    int argc = 0;

    snprintf(copy, sizeof(copy), "test %s", line);
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    memset(v, 0, sizeof(*v));
    return options_parse(specs, argc, argv, errp);
}

static void test_good(void **state)
{
    struct values v;

    (void)state;
    assert_true(parse(&v, "--name=x web --size 2M --duration 15ms --flag --number 7", NULL));
    assert_string_equal(v.name, "x");
    assert_string_equal(v.positional, "web");
    assert_int_equal(v.size, 2 * 1024 * 1024);
    assert_int_equal(v.duration, 15 * 1000000);
    assert_int_equal(v.number, 7);
    assert_true(v.flag);
    assert_string_equal(v.optional, "");
    assert_true(parse(&v, "web --flag more", NULL));
    assert_string_equal(v.optional, "more");
}

static void expect_error(const char *line, const char *text)
{
    struct values v;
    Error *err = NULL;

    assert_false(parse(&v, line, &err));
    if (!strstr(error_get_pretty(err), text))
        fail_msg("'%s' gave: %s", line, error_get_pretty(err));
    error_free(err);
}

static void test_bad(void **state)
{
    (void)state;
    expect_error("web --size 2X", "--size: '2X' is not a size");
    expect_error("web --size -1M", "is not a size");
    expect_error("web --size 9999999999999G", "is not a size");
    expect_error("web --duration 10", "is not a duration");
    expect_error("web --number x", "whole number");
    expect_error("web --flag=1", "takes no value");
    expect_error("web --name", "--name needs a value: NAME");
    expect_error("web --name 12345678", "longer than 7 bytes");
    expect_error("web --nam x", "unknown option --nam");
    expect_error("web more other", "unexpected argument 'other'");
    expect_error("--flag", "VM is missing");
}

static void expect_net_error(const char *text, const char *expected)
{
    struct machine_config c = {.net_count = 1, .nets = {{.id = "net0"}}};
    Error *err = NULL;

    assert_false(machine_option_net(&c, text, &err));
    if (!strstr(error_get_pretty(err), expected))
        fail_msg("'%s' gave: %s", text, error_get_pretty(err));
    error_free(err);
}

static void test_devices(void **state)
{
    struct machine_config c = {.name = "web"}, again = {.name = "web"};

    (void)state;
    assert_true(machine_option_disk(&c, "path=/x/y.img,readonly=on", NULL));
    assert_string_equal(c.disks[0].id, "disk0");
    assert_true(c.disks[0].readonly);
    assert_true(machine_option_disk(&c, "path=/x/z.img,shared=on", NULL));
    assert_true(c.disks[1].shared && !c.disks[0].shared);
    assert_false(machine_option_disk(&c, "path=/x/w.img,shared=on,readonly=on", NULL));
    assert_true(machine_option_net(&c, "tap=tap0,mac=52:54:00:12:34:56", NULL));
    assert_int_equal(c.nets[0].mac[5], 0x56);
    expect_net_error("id=net1", "tap= is missing");
    expect_net_error("tap=t,id=net0", "id=net0 is there twice");
    expect_net_error("tap=t,id=n,mac=01:00:00:00:00:00", "not a unicast MAC");
    expect_net_error("tap=t,id=n,mac=52:54", "not a unicast MAC");
    expect_net_error("tap=t,tap=u", "is there twice");
    expect_net_error("tap", "is not key=value");
    expect_net_error("tap=t,colour=red", "unknown key 'colour'");

    /* A MAC that nobody chose is the same on every start. */
    machine_option_net(&again, "tap=tap0", NULL);
    machine_options_default_macs(&again);
    assert_int_equal(again.nets[0].mac[0], 0x52);
    c = again;
    memset(again.nets[0].mac, 0, 6);
    machine_options_default_macs(&again);
    assert_memory_equal(c.nets[0].mac, again.nets[0].mac, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_devices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
