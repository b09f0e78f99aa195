/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The configuration, into a stream and back, and from streams that lie. */
#include "golden.h"
#include "machine/machine_config.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char disk_path[] = "/tmp/perdure-test-config.XXXXXX";

#define set(field, text) snprintf(field, sizeof(field), "%s", text)

static struct machine_config *example(void)
{
    struct machine_config *c = calloc(1, sizeof(*c));

    *c = (struct machine_config){
        .name = "web", .cpus = 2, .memory = 256u << 20, .cpu_model = "host", .cmdline = "quiet"};
    c->kernel = strdup("a kernel");
    c->kernel_size = 9;
    c->initrd = malloc(600000);
    memset(c->initrd, 7, 600000);
    c->initrd_size = 600000;
    c->disk_count = c->net_count = 1;
    set(c->disks[0].id, "root");
    snprintf(c->disks[0].path, sizeof(c->disks[0].path), "%s", disk_path);
    set(c->nets[0].id, "net0");
    set(c->nets[0].tap, "tap7");
    c->channel_count = 2;
    set(c->channels[0].id, "agent");
    set(c->channels[0].name, "org.perdure.agent");
    set(c->channels[0].socket, "/run/agent");
    set(c->channels[1].id, "hvc");
    c->channels[1].console = true;
    set(c->channels[1].socket, "/run/hvc");
    set(c->console, "null");
    return c;
}

static void drop(struct machine_config *c)
{
    machine_config_free(c);
    free(c);
}

static struct machine_setup *example_setup(void)
{
    struct machine_config *c = example();
    struct machine_setup *s = calloc(1, sizeof(*s));

    assert_true(machine_setup_new(s, c, NULL));
    s->cpuid.count = 1;
    s->cpuid.entries[0] = (struct kvm_cpuid_entry2){.function = 7, .index = 1, .eax = 5};
    s->tsc_khz = 2700000;
    drop(c);
    return s;
}

static void drop_setup(struct machine_setup *s)
{
    machine_setup_free(s);
    free(s);
}

static bool load_bytes(const void *data, size_t size, struct machine_setup *ret)
{
    VMStream *f = perdure_stream_open_buffer(data, size);
    Error *err = NULL;
    bool ok = machine_setup_load(ret, f, &err);

    assert_true(ok == !err);
    error_free(err);
    perdure_stream_close(f);
    return ok;
}

static void test_round_trip(void **state)
{
    struct machine_setup *s = example_setup(), *t = calloc(1, sizeof(*t));
    VMStream *f = perdure_stream_open_memory(4096);
    const void *data;
    size_t size;

    (void)state;
    machine_setup_save(s, f);
    data = perdure_stream_memory(f, &size);
    assert_true(load_bytes(data, size, t));
    assert_string_equal(t->config.name, "web");
    assert_int_equal(t->config.cpus, 2);
    assert_int_equal(t->config.memory, 256u << 20);
    assert_int_equal(t->config.kernel_size, 9);
    assert_string_equal(t->config.kernel, "a kernel");
    assert_int_equal(t->config.initrd_size, 600000);
    assert_memory_equal(t->config.initrd, s->config.initrd, 600000);
    assert_int_equal(t->cpuid.entries[0].eax, 5);
    assert_string_equal(t->config.disks[0].id, "root");
    assert_string_equal(t->config.disks[0].path, ""); /* this host's own business */
    assert_string_equal(t->config.nets[0].tap, "");
    assert_int_equal(t->disk_size[0], 12345);
    assert_memory_equal(t->config.nets[0].mac, s->config.nets[0].mac, 6);
    assert_int_equal(t->config.nets[0].mac[0], 0x52);
    assert_int_equal(t->rng_slot, s->rng_slot);
    assert_int_equal(t->console_slot, s->console_slot);
    assert_int_equal(t->config.channel_count, 2);
    assert_string_equal(t->config.channels[0].id, "agent");
    assert_string_equal(t->config.channels[0].name, "org.perdure.agent");
    assert_string_equal(t->config.channels[0].socket, "");
    assert_true(t->config.channels[1].console && !t->config.channels[0].console);
    drop_setup(t);
    drop_setup(s);
    perdure_stream_close(f);
}

/* As docs/wire-format.md has it. */
static void test_golden(void **state)
{
    struct machine_setup *s = example_setup();
    VMStream *f = perdure_stream_open_memory(4096);
    const void *data;
    size_t size;

    (void)state;
    s->config.initrd_size = 16;
    s->config.disks[0].shared = true;
    machine_setup_save(s, f);
    data = perdure_stream_memory(f, &size);
    assert_true(golden_matches("config.hex", data, size));
    perdure_stream_close(f);
    drop_setup(s);
}

/* What an older build wrote: a machine without the devices that came later. */
static void test_format_1(void **state)
{
    struct machine_setup *t = calloc(1, sizeof(*t));
    size_t size;
    uint8_t *bytes = golden_load("config-format1.hex", &size);

    (void)state;
    assert_non_null(bytes);
    t->rng_slot = 5;
    assert_true(load_bytes(bytes, size, t));
    assert_string_equal(t->config.nets[0].id, "net0");
    assert_int_equal(t->rng_slot + t->console_slot, 0);
    assert_int_equal(t->config.channel_count, 0);
    free(bytes);
    drop_setup(t);
}

/* It knew no shared disks, and one octet less of them. */
static void test_format_2(void **state)
{
    struct machine_setup *t = calloc(1, sizeof(*t));
    size_t size;
    uint8_t *bytes = golden_load("config-format2.hex", &size);

    (void)state;
    assert_non_null(bytes);
    t->config.disks[0].shared = true;
    assert_true(load_bytes(bytes, size, t));
    assert_string_equal(t->config.disks[0].id, "root");
    assert_false(t->config.disks[0].shared || t->config.disks[0].readonly);
    assert_int_equal(t->config.channel_count, 2);
    free(bytes);
    drop_setup(t);
}

/* How a disk is used: each way comes out as it went in. To read needs no sharing. */
static void test_uses(void **state)
{
    struct machine_setup *s = example_setup(), *t = calloc(1, sizeof(*t));

    (void)state;
    for (int use = 0; use < 3; use++) {
        VMStream *f = perdure_stream_open_memory(4096);
        const void *data;
        size_t size;

        s->config.disks[0].readonly = use == 1;
        s->config.disks[0].shared = use == 2;
        machine_setup_save(s, f);
        data = perdure_stream_memory(f, &size);
        assert_true(load_bytes(data, size, t));
        assert_int_equal(t->config.disks[0].readonly, use == 1);
        assert_int_equal(t->config.disks[0].shared, use == 2);
        machine_setup_free(t);
        perdure_stream_close(f);
    }
    s->config.disks[0].readonly = s->config.disks[0].shared = true;
    assert_false(machine_setup_new(t, &s->config, NULL));
    free(t);
    drop_setup(s);
}

/* Cut off anywhere: refused. */
static void test_hostile(void **state)
{
    struct machine_setup *s = example_setup(), *t = calloc(1, sizeof(*t));
    VMStream *f = perdure_stream_open_memory(4096);
    const uint8_t *data;
    size_t size;

    (void)state;
    s->config.initrd_size = 100;
    machine_setup_save(s, f);
    data = perdure_stream_memory(f, &size);
    for (size_t n = 0; n < size; n++)
        assert_false(load_bytes(data, n, t));
    drop_setup(s);
    free(t);
    perdure_stream_close(f);
}

static void expect_refused(VMStream *f)
{
    struct machine_setup *t = calloc(1, sizeof(*t));
    size_t size;
    const void *data = perdure_stream_memory(f, &size);

    assert_false(load_bytes(data, size, t));
    free(t);
    perdure_stream_close(f);
}

/* Frames are whole and their checksums right: only the contents lie. */
static void test_lies(void **state)
{
    VMStream *f;

    (void)state;
    f = perdure_stream_open_memory(64); /* a kernel before the configuration */
    perdure_stream_begin(f, MACHINE_RECORD_KERNEL, 0);
    perdure_stream_put_u64(f, 1);
    perdure_stream_put_u8(f, 1);
    perdure_stream_end(f);
    expect_refused(f);

    f = perdure_stream_open_memory(64); /* another format */
    perdure_stream_begin(f, MACHINE_RECORD_CONFIG, 0);
    perdure_stream_put_u16(f, 99);
    perdure_stream_end(f);
    expect_refused(f);

    f = perdure_stream_open_memory(64); /* nothing at all */
    perdure_stream_begin(f, MACHINE_RECORD_END, 0);
    perdure_stream_end(f);
    expect_refused(f);
}

/* What the writer would never write, through the writer. */
static void test_wrong_contents(void **state)
{
    (void)state;
    for (int lie = 0; lie < 5; lie++) {
        struct machine_setup *s = example_setup();
        VMStream *f = perdure_stream_open_memory(4096);

        switch (lie) {
        case 0:
            s->net_slot[0] = s->disk_slot[0];
            break;
        case 1:
            s->net_slot[0] = 32;
            break;
        case 2:
            s->disk_slot[0] = 0;
            break;
        case 3:
            memset(s->config.cpu_model, 'x', sizeof(s->config.cpu_model) - 1);
            perdure_stream_begin(f, MACHINE_RECORD_INITRD, 0);
            perdure_stream_put_u64(f, 5);
            perdure_stream_end(f);
            break;
        default:
            s->config.kernel_size = 0;
            break;
        }
        machine_setup_save(s, f);
        expect_refused(f);
        drop_setup(s);
    }
}

static void test_bad_configs(void **state)
{
    struct machine_setup *s = calloc(1, sizeof(*s));
    struct machine_config *c;

    (void)state;
    for (int fault = 0; fault < 17; fault++) {
        Error *err = NULL;

        c = example();
        switch (fault) {
        case 0:
            c->cpus = 0;
            break;
        case 1:
            c->cpus = MACHINE_CPUS_MAX + 1;
            break;
        case 2:
            c->memory = 4096;
            break;
        case 3:
            c->memory += 1;
            break;
        case 4:
            set(c->name, "a/b");
            break;
        case 5:
            set(c->nets[0].id, "root");
            break;
        case 6:
            c->disks[0].id[0] = 0;
            break;
        case 7:
            set(c->disks[0].path, "/nonexistent/x");
            break;
        case 8:
            c->disk_count = MACHINE_DISKS_MAX + 1;
            break;
        case 10:
            set(c->channels[0].id, "net0");
            break;
        case 11:
            set(c->channels[0].id, "console"); /* the serial line's */
            break;
        case 12:
            set(c->channels[0].name, "a/b");
            break;
        case 13:
            c->channels[0].name[0] = 0;
            break;
        case 14:
            c->channels[0].console = true; /* a second one */
            break;
        case 15:
            set(c->channels[1].name, c->channels[0].name);
            break;
        case 16:
            c->channel_count = MACHINE_CHANNELS_MAX + 1;
            break;
        case 9:
            free(c->kernel);
            c->kernel = NULL;
            c->kernel_size = 0;
            break;
        }
        assert_false(machine_setup_new(s, c, &err));
        assert_non_null(err);
        error_free(err);
        drop(c);
    }
    free(s);
}

static void map_fails(struct machine_setup *s, const struct machine_config *host, const char *word)
{
    Error *err = NULL;

    assert_false(machine_setup_map(s, host, &err));
    assert_non_null(strstr(error_get_pretty(err), word));
    error_free(err);
}

static void test_mapping(void **state)
{
    struct machine_setup *s = example_setup();
    struct machine_config *host = example();

    (void)state;
    assert_true(machine_setup_map(s, host, NULL));
    assert_string_equal(s->config.disks[0].path, disk_path);
    assert_string_equal(s->config.nets[0].tap, "tap7");
    assert_string_equal(s->config.channels[1].socket, "/run/hvc");

    set(host->channels[0].id, "other");
    map_fails(s, host, "--channel id=agent,unix=");
    map_fails(s, host, "--channel id=other");
    set(host->channels[0].id, "agent");
    set(host->disks[0].id, "data");
    map_fails(s, host, "root");
    set(host->disks[0].id, "root");
    set(host->nets[0].id, "net1");
    map_fails(s, host, "net0");
    set(host->nets[0].id, "net0");
    host->net_count = 2;
    set(host->nets[1].id, "extra");
    map_fails(s, host, "extra");
    host->net_count = 1;
    s->config.disks[0].shared = true;
    map_fails(s, host, "disk root: the machine's image is shared");
    host->disks[0].shared = true;
    assert_true(machine_setup_map(s, host, NULL));
    s->config.disks[0].shared = false;
    map_fails(s, host, "disk root: the machine's image is not shared");
    host->disks[0].shared = false;
    s->disk_size[0] = 999;
    map_fails(s, host, "999");
    drop(host);
    drop_setup(s);
}

static int setup(void **state)
{
    int fd = mkstemp(disk_path);

    (void)state;
    if (fd < 0 || ftruncate(fd, 12345))
        return 1;
    close(fd);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(disk_path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_golden),
        cmocka_unit_test(test_format_1),    cmocka_unit_test(test_format_2),
        cmocka_unit_test(test_uses),        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_lies),        cmocka_unit_test(test_wrong_contents),
        cmocka_unit_test(test_bad_configs), cmocka_unit_test(test_mapping),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
