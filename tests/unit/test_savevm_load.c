/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "savevm_fixture.h"

/* --- loading --- */

static VMStream *reread(void)
{
    size_t size;
    const void *data = perdure_stream_memory(out, &size);

    return perdure_stream_open_buffer(data, size);
}

/* Loads what is in out; the error or NULL. */
static Error *load_with(bool (*load)(VMStream *f, Error **errp))
{
    VMStream *in = reread();
    Error *err = NULL;
    bool ok = load(in, &err);

    assert_int_equal(ok, !err);
    perdure_stream_close(in);
    in = reread();
    assert_int_equal(load(in, NULL), ok); /* errp NULL */
    perdure_stream_close(in);
    return err;
}

static void assert_refused(const char *expected)
{
    assert_error(load_with(perdure_loadvm_all), expected);
    calls[0] = 0;
}

static void save(void)
{
    assert_true(perdure_savevm_all(out, NULL));
    calls[0] = 0;
}

static void test_whole_load(void **state)
{
    VMStream *in;
    Error *err = NULL;

    (void)state;
    a.passes = 1;
    save();
    in = reread();
    assert_true(perdure_loadvm_all(in, &err));
    assert_calls(
        "a.lsetup b.lsetup a.load b.load a.load a.load b.load a.load b.load d.load e.load a.lclean b.lclean");
    assert_int_equal(a.loaded, 10);
    assert_int_equal(e.loaded, 13);
    assert_int_equal(a.versions[3], 5); /* that of START, in PART and END too */
    perdure_stream_close(in);
}

/* The number of a section belongs to the stream: the reader's own are others. */
static void test_section_ids_are_the_streams(void **state)
{
    (void)state;
    save();
    unregister_savevm(NULL, "a", &a);
    unregister_savevm(NULL, "d", &d);
    assert_int_equal(register_savevm_live("d", 0, 2, &device_ops, &d), 0);
    assert_int_equal(register_savevm_live("a", 0, 5, &live_ops, &a), 0);
    assert_null(load_with(perdure_loadvm_all));
    assert_int_equal(a.loaded, 10);
    assert_int_equal(b.loaded, 11);
    assert_int_equal(d.loaded, 12);
}

static void test_unknown_section(void **state)
{
    (void)state;
    save();
    unregister_savevm(NULL, "d", &d);
    assert_refused("unknown savevm section or instance 'd.0': this machine has no such device");
    unregister_savevm(NULL, "a", &a);
    assert_refused("unknown savevm section or instance 'a.0': this machine has no such live component");
    assert_int_equal(register_savevm_live("a", 1, 5, &live_ops, &a), 0);
    assert_refused("unknown savevm section or instance 'a.0': this machine has no such live component");
}

static void test_versions(void **state)
{
    (void)state;
    save();
    unregister_savevm(NULL, "d", &d);
    assert_int_equal(register_savevm_live("d", 0, 3, &device_ops, &d), 0);
    assert_null(load_with(perdure_loadvm_all)); /* an older one is the handler's to understand */
    assert_int_equal(d.versions[0], 2);
    unregister_savevm(NULL, "d", &d);
    assert_int_equal(register_savevm_live("d", 0, 1, &device_ops, &d), 0);
    assert_refused("device d.0: stream has version 2, this build knows 1");
}

static void test_missing_section(void **state)
{
    static struct part n = {.name = "n"};

    (void)state;
    save();
    assert_int_equal(register_savevm_live("n", 0, 1, &device_ops, &n), 0);
    assert_refused("the state has no section n.0, which this machine needs");
    unregister_savevm(NULL, "n", &n);
    assert_int_equal(register_savevm_live("n", 0, 1, &live_ops, &n), 0);
    assert_refused("the state has no section n.0, which this machine needs");
    n.inactive = true; /* would not have saved anything either */
    assert_null(load_with(perdure_loadvm_all));
    unregister_savevm(NULL, "n", &n);
}

static void test_setup_and_cleanup_of_loads(void **state)
{
    (void)state;
    save();
    a.load_setup_status = -EBUSY;
    assert_error(load_with(perdure_loadvm_all), "a.0 is not ready to load: Device or resource busy");
    assert_calls("a.lsetup a.lclean b.lclean a.lsetup a.lclean b.lclean");
    a.load_setup_status = 0;
    a.load_cleanup_status = -EIO;
    assert_error(load_with(perdure_loadvm_all), "a.0 could not finish its load: Input/output error");
    b.load_status = -EILSEQ;
    /* The first error is the one reported. */
    assert_refused(
        "loading b.0: its handler failed with error 84: Invalid or incomplete multibyte or wide character");
}

/* Sections by hand. */
static void section(uint16_t type, uint32_t id, const char *idstr, uint32_t instance, uint32_t version,
                    size_t bytes)
{
    perdure_stream_begin(out, type, id);
    if (idstr) {
        perdure_stream_put_string(out, idstr);
        perdure_stream_put_u32(out, instance);
        perdure_stream_put_u32(out, version);
    }
    while (bytes--)
        perdure_stream_put_u8(out, 1);
    perdure_stream_end(out);
}

#define START PERDURE_RECORD_SECTION_START
#define PART  PERDURE_RECORD_SECTION_PART
#define END   PERDURE_RECORD_SECTION_END
#define FULL  PERDURE_RECORD_SECTION_FULL

static void test_part_before_start(void **state)
{
    (void)state;
    section(PART, 0, NULL, 0, 0, 1);
    assert_refused("section 0 goes on without having started");
    perdure_stream_rewind(out);
    section(START, 4, "a", 0, 1, 1);
    section(PART, 5, NULL, 0, 0, 1);
    assert_refused("section 5 goes on without having started");
    perdure_stream_rewind(out);
    section(START, 4, "a", 0, 1, 1);
    section(END, 4, NULL, 0, 0, 1);
    section(END, 4, NULL, 0, 0, 1);
    assert_refused("section 4 goes on without having started");
    perdure_stream_rewind(out);
    section(FULL, 4, "d", 0, 1, 1);
    section(PART, 4, NULL, 0, 0, 1);
    assert_refused("section 4 goes on without having started");
}

static void test_twice_and_without_end(void **state)
{
    (void)state;
    section(START, 4, "a", 0, 1, 1);
    section(START, 5, "a", 0, 1, 1);
    assert_refused("section a.0 is there twice");
    perdure_stream_rewind(out);
    section(FULL, 4, "d", 0, 1, 1);
    section(FULL, 5, "d", 0, 1, 1);
    assert_refused("section d.0 is there twice");
    perdure_stream_rewind(out);
    section(START, 1, "a", 0, 1, 1);
    section(START, 2, "b", 0, 1, 1);
    section(END, 2, NULL, 0, 0, 1);
    section(FULL, 3, "d", 0, 1, 1);
    section(FULL, 4, "e", 7, 1, 1);
    section(PERDURE_RECORD_STATE_END, 0, NULL, 0, 0, 0);
    assert_refused("the state has no end of section a.0, which this machine needs");
}

static void test_start_behind_a_device(void **state)
{
    (void)state;
    section(START, 1, "a", 0, 1, 1);
    section(FULL, 2, "d", 0, 1, 1);
    section(START, 3, "b", 0, 1, 1);
    assert_refused("section b.0 begins after device d.0 was loaded");
}

static void test_wrong_kind_of_section(void **state)
{
    (void)state;
    section(FULL, 1, "a", 0, 1, 1);
    assert_refused("unknown savevm section or instance 'a.0': this machine has no such device");
    perdure_stream_rewind(out);
    section(START, 1, "d", 0, 1, 1);
    assert_refused("unknown savevm section or instance 'd.0': this machine has no such live component");
}

/* A footer's job: a section that holds more or less than its component reads. */
static void test_section_of_the_wrong_size(void **state)
{
    Error *err;

    (void)state;
    section(START, 1, "a", 0, 1, 0);
    err = load_with(perdure_loadvm_all);
    assert_non_null(strstr(error_get_pretty(err), "loading a.0: "));
    error_free(err);
    perdure_stream_rewind(out);
    section(START, 1, "a", 0, 1, 2);
    err = load_with(perdure_loadvm_all);
    assert_non_null(strstr(error_get_pretty(err), "loading a.0: "));
    error_free(err);
}

static void test_unknown_records(void **state)
{
    (void)state;
    perdure_stream_begin(out, PERDURE_RECORD_OPTIONAL | 0x42, 0);
    perdure_stream_put_u64(out, 1);
    perdure_stream_end(out);
    save();
    assert_null(load_with(perdure_loadvm_all)); /* optional: skipped */
    perdure_stream_rewind(out);
    section(0x42, 0, NULL, 0, 0, 3);
    assert_refused("unknown record of type 0x42 in the machine state; a newer perdure wrote it");
    perdure_stream_rewind(out);
    assert_refused("the machine state ends before its end record");
}

/* --- devices alone: an epoch --- */

static void test_devices(void **state)
{
    (void)state;
    assert_true(perdure_savevm_devices(out, NULL));
    assert_calls("d.state e.state");
    assert_null(load_with(perdure_loadvm_devices_check));
    assert_calls("");
    assert_null(load_with(perdure_loadvm_devices));
    assert_calls("d.load e.load d.load e.load");
    assert_int_equal(d.loaded, 12);
    perdure_stream_rewind(out);
    assert_error(load_with(perdure_loadvm_devices), "the state has no section d.0, which this machine needs");
    assert_error(load_with(perdure_loadvm_devices_check),
                 "the state has no section d.0, which this machine needs");
    section(FULL, 4, "d", 0, 1, 1);
    section(FULL, 5, "d", 0, 1, 1);
    assert_error(load_with(perdure_loadvm_devices_check), "section d.0 is there twice");
    perdure_stream_rewind(out);
    section(FULL, 4, "d", 0, 9, 1);
    assert_error(load_with(perdure_loadvm_devices_check),
                 "device d.0: stream has version 9, this build knows 2");
    perdure_stream_rewind(out);
    section(START, 1, "a", 0, 1, 1);
    assert_error(load_with(perdure_loadvm_devices),
                 "unknown record of type 0x10 in the machine state; a newer perdure wrote it");
}

/* --- hostile: every truncation, every bit --- */

static void try_bytes(const void *data, size_t size, bool (*load)(VMStream *f, Error **errp))
{
    uint8_t *copy = malloc(size ? size : 1); /* exact, so that a sanitizer sees a read past it */
    VMStream *in;
    Error *err = NULL;

    memcpy(copy, data, size);
    in = perdure_stream_open_buffer(copy, size);
    assert_false(load(in, &err));
    assert_non_null(err);
    error_free(err);
    perdure_stream_close(in);
    free(copy);
    calls[0] = 0;
}

static void test_truncated_and_flipped(void **state)
{
    bool (*const loads[])(VMStream * f, Error * *errp) = {perdure_loadvm_all, perdure_loadvm_devices,
                                                          perdure_loadvm_devices_check};
    (void)state;
    for (int i = 0; i < 3; i++) {
        uint8_t *data;
        size_t size;

        perdure_stream_rewind(out);
        assert_true(i == 0 ? perdure_savevm_all(out, NULL) : perdure_savevm_devices(out, NULL));
        perdure_stream_memory(out, &size);
        data = malloc(size);
        memcpy(data, perdure_stream_memory(out, &size), size);
        for (size_t n = 0; n < size; n++)
            try_bytes(data, n, loads[i]);
        for (size_t bit = 0; bit < size * 8; bit++) {
            data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            try_bytes(data, size, loads[i]);
            data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        }
        free(data);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_whole_load),
        TEST(test_section_ids_are_the_streams),
        TEST(test_unknown_section),
        TEST(test_versions),
        TEST(test_missing_section),
        TEST(test_setup_and_cleanup_of_loads),
        TEST(test_part_before_start),
        TEST(test_twice_and_without_end),
        TEST(test_start_behind_a_device),
        TEST(test_wrong_kind_of_section),
        TEST(test_section_of_the_wrong_size),
        TEST(test_unknown_records),
        TEST(test_devices),
        TEST(test_truncated_and_flipped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
