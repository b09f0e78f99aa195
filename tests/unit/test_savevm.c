/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "savevm_fixture.h"

/* --- the list --- */

static void test_instances(void **state)
{
    (void)state;
    assert_int_equal(register_savevm_live("d", -1, 1, &device_ops, &d), 0);
    assert_non_null(savevm_find("d", 1));
    assert_int_equal(register_savevm_live("d", 9, 1, &device_ops, &d), 0);
    assert_int_equal(register_savevm_live("d", -1, 1, &device_ops, &d), 0);
    assert_non_null(savevm_find("d", 10));
    assert_int_equal(register_savevm_live("d", 9, 1, &device_ops, &e), -EEXIST);
    assert_int_equal(register_savevm_live("d", 0, 1, &device_ops, &e), -EEXIST);
    assert_int_equal(register_savevm_live("d", INT32_MAX, 1, &device_ops, &d), 0);
    assert_int_equal(register_savevm_live("d", -1, 1, &device_ops, &d),
                     -EINVAL); /* the numbers are used up */
    assert_int_equal(register_savevm_live("d", -2, 1, &device_ops, &d), -EINVAL);
}

static void test_bad_registrations(void **state)
{
    char name[300];

    (void)state;
    memset(name, 'n', sizeof(name));
    name[256] = 0;
    assert_int_equal(register_savevm_live(name, 0, 1, &device_ops, &d), -EINVAL);
    name[255] = 0;
    assert_int_equal(register_savevm_live(name, 0, 1, &device_ops, &d), 0);
    unregister_savevm(NULL, name, &d);
    assert_int_equal(register_savevm_live("", 0, 1, &device_ops, &d), -EINVAL);
    assert_int_equal(register_savevm_live("x", 0, -1, &device_ops, &d), -EINVAL);
    assert_int_equal(register_savevm_live("x", 0, 1, NULL, &d), -EINVAL);
}

static void test_unregister_by_full_id_and_opaque(void **state)
{
    (void)state;
    assert_int_equal(register_savevm_live("0000:01/net", 0, 1, &device_ops, &d), 0);
    assert_int_equal(register_savevm_live("0000:01/net", 1, 1, &device_ops, &d), 0);
    assert_int_equal(register_savevm_live("0000:01/net", 2, 1, &device_ops, &e), 0);
    unregister_savevm("0000:02", "net", &d);
    unregister_savevm(NULL, "net", &d);
    unregister_savevm("0000:01", "ne", &d);
    assert_non_null(savevm_find("0000:01/net", 0));
    unregister_savevm("0000:01", "net", &d);
    assert_null(savevm_find("0000:01/net", 0));
    assert_null(savevm_find("0000:01/net", 1));
    assert_non_null(savevm_find("0000:01/net", 2));
    unregister_savevm(NULL, "0000:01/net", &e);
    assert_null(savevm_find("0000:01/net", 2));
}

static void test_section_ids_are_never_used_again(void **state)
{
    uint32_t id = savevm_find("d", 0)->section_id;

    (void)state;
    unregister_savevm(NULL, "d", &d);
    assert_int_equal(register_savevm_live("d", 0, 2, &device_ops, &d), 0);
    assert_true(savevm_find("d", 0)->section_id > savevm_find("b", 0)->section_id);
    assert_int_not_equal(savevm_find("d", 0)->section_id, id);
}

/* --- saving --- */

static void test_order_of_a_whole_save(void **state)
{
    Error *err = NULL;

    (void)state;
    a.passes = 2;
    b.passes = 1;
    assert_true(perdure_savevm_all(out, &err));
    assert_null(err);
    assert_calls("a.setup b.setup a.iter a.iter a.iter b.iter a.iter b.iter a.pre b.pre d.state e.state "
                 "a.clean b.clean");
}

static void test_absent_members_are_defaults(void **state)
{
    static const SaveVMHandlers nothing,
        only_end = {.save_live_complete_precopy = p_complete_precopy, .load_state = p_load_state};
    struct part n = {.name = "n"}, o = {.name = "o"};
    VMStream *in;
    Error *err = NULL;

    (void)state;
    assert_int_equal(register_savevm_live("n", 0, 0, &nothing, &n), 0);
    assert_int_equal(register_savevm_live("o", 0, 0, &only_end, &o), 0);
    assert_true(perdure_savevm_all(out, &err));
    assert_true(perdure_savevm_resume_prepare((struct MigrationState *)calls, &err));
    assert_calls("a.setup b.setup a.iter b.iter a.pre b.pre o.pre d.state e.state a.clean b.clean "
                 "a.resume b.resume");
    in = perdure_stream_open_buffer(perdure_stream_memory(out, &(size_t){0}), perdure_stream_bytes(out));
    assert_true(perdure_loadvm_all(in, &err));
    assert_calls("a.lsetup b.lsetup a.load b.load a.load b.load a.load b.load o.load d.load e.load "
                 "a.lclean b.lclean");
    perdure_stream_close(in);
    unregister_savevm(NULL, "n", &n);
    unregister_savevm(NULL, "o", &o);
}

static void test_iterate_stops_at_the_first_that_is_not_done(void **state)
{
    (void)state;
    a.passes = 1;
    assert_int_equal(perdure_savevm_iterate(out, false, NULL), 0);
    assert_calls("a.iter");
    assert_int_equal(perdure_savevm_iterate(out, false, NULL), 1);
    assert_calls("a.iter b.iter");
}

static void test_iterate_skips(void **state)
{
    (void)state;
    a.inactive = true;
    assert_int_equal(perdure_savevm_iterate(out, false, NULL), 1);
    assert_calls("b.iter");
    a.inactive = false;
    a.not_iterated = true;
    assert_int_equal(perdure_savevm_iterate(out, false, NULL), 1);
    assert_calls("b.iter");
    a.not_iterated = false;
    b.postcopy = true;
    assert_int_equal(perdure_savevm_iterate(out, true, NULL), 1);
    assert_calls("b.iter");
}

static void test_iterate_error(void **state)
{
    Error *err = NULL;

    (void)state;
    a.iterate_status = -ENOSPC;
    assert_int_equal(perdure_savevm_iterate(out, false, &err), -ENOSPC);
    assert_error(err, "saving a.0: its handler failed with error 28: No space left on device");
    assert_calls("a.iter");
    perdure_stream_rewind(out);
    assert_int_equal(perdure_savevm_iterate(out, false, NULL), -ENOSPC);
}

static void test_pending_adds_up(void **state)
{
    uint64_t pre = 99, any = 99, post = 99;

    (void)state;
    memcpy(a.pending, (uint64_t[]){1, 2, 3}, sizeof(a.pending));
    memcpy(b.pending, (uint64_t[]){10, 20, 30}, sizeof(b.pending));
    perdure_savevm_pending(out, 42, &pre, &any, &post);
    assert_int_equal(pre, 11);
    assert_int_equal(any, 22);
    assert_int_equal(post, 33);
    b.inactive = true;
    perdure_savevm_pending(out, 42, &pre, &any, &post);
    assert_int_equal(pre + any + post, 6);
}

static void test_inactive_is_left_out_but_cleaned_up(void **state)
{
    (void)state;
    a.inactive = true;
    assert_true(perdure_savevm_all(out, NULL));
    assert_calls("b.setup b.iter b.pre d.state e.state a.clean b.clean");
    a.postcopy = b.postcopy = true;
    assert_true(perdure_savevm_complete_postcopy(out, NULL));
    assert_calls("b.post");
}

static void test_setup_error_stops_and_cleans_up_everyone(void **state)
{
    Error *err = NULL;

    (void)state;
    a.setup_status = -EPERM;
    assert_false(perdure_savevm_all(out, &err));
    assert_error(err, "saving a.0: its handler failed with error 1: Operation not permitted");
    assert_calls("a.setup a.clean b.clean");
    assert_int_equal(perdure_stream_error(out, NULL), -EPERM);
}

static void test_errors_of_each_kind_of_section(void **state)
{
    Error *err = NULL;

    (void)state;
    a.complete_status = -EIO;
    assert_false(perdure_savevm_all(out, &err));
    assert_error(err, "saving a.0: its handler failed with error 5: Input/output error");
    assert_calls("a.setup b.setup a.iter b.iter a.pre a.clean b.clean");
    perdure_stream_rewind(out);
    a.complete_status = 0;
    d.breaks_stream = true;
    err = NULL;
    assert_false(perdure_savevm_all(out, &err));
    assert_error(err, "saving d.0: d broke: Input/output error");
    assert_calls("a.setup b.setup a.iter b.iter a.pre b.pre d.state a.clean b.clean");
    assert_false(perdure_savevm_devices(out, NULL));
}

static void test_postcopy(void **state)
{
    (void)state;
    b.postcopy = true;
    assert_true(perdure_savevm_setup(out, NULL));
    assert_int_equal(perdure_savevm_iterate(out, false, NULL), 1);
    calls[0] = 0;
    /* Source stopped: what cannot go later; then the rest of those that can. */
    assert_true(perdure_savevm_complete_precopy(out, true, NULL));
    assert_calls("a.pre");
    assert_int_equal(perdure_savevm_iterate(out, true, NULL), 1);
    assert_calls("b.iter");
    assert_true(perdure_savevm_complete_postcopy(out, NULL)); /* a has had its END */
    assert_calls("b.post");
    b.complete_status = -EIO;
    assert_false(perdure_savevm_complete_postcopy(out, NULL));
}

static void test_resume(void **state)
{
    struct MigrationState *s = (struct MigrationState *)calls;
    Error *err = NULL;

    (void)state;
    assert_true(perdure_savevm_resume_prepare(s, &err));
    assert_calls("a.resume b.resume");
    a.inactive = true;
    assert_true(perdure_savevm_resume_prepare(s, &err));
    assert_calls("b.resume");
    a.inactive = false;
    a.resume_status = -ENOTCONN;
    assert_false(perdure_savevm_resume_prepare(s, &err));
    assert_calls("a.resume");
    assert_error(err, "a.0 cannot resume the migration: Transport endpoint is not connected");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_instances),
        TEST(test_bad_registrations),
        TEST(test_unregister_by_full_id_and_opaque),
        TEST(test_section_ids_are_never_used_again),
        TEST(test_order_of_a_whole_save),
        TEST(test_absent_members_are_defaults),
        TEST(test_iterate_stops_at_the_first_that_is_not_done),
        TEST(test_iterate_skips),
        TEST(test_iterate_error),
        TEST(test_pending_adds_up),
        TEST(test_inactive_is_left_out_but_cleaned_up),
        TEST(test_setup_error_stops_and_cleans_up_everyone),
        TEST(test_errors_of_each_kind_of_section),
        TEST(test_postcopy),
        TEST(test_resume),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
