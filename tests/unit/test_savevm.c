/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "registry/context.h"
#include "registry/savevm_list.h"
#include <perdure/savevm.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/*
 * Fake components note every call: "a.setup", "b.iter", ...; each writes and expects a byte or two of its
 * own. What a call answers is in struct part.
 */
struct part {
    const char *name;
    uint8_t value, loaded;
    int versions[4], version_count; /* that load_state was given */
    int passes;                     /* iterate answers 0 that many times, then 1 */
    int setup_status, iterate_status, complete_status, load_status, load_setup_status, load_cleanup_status,
        resume_status;
    bool inactive, postcopy, not_iterated, breaks_stream;
    uint64_t pending[3];
};

static char calls[2048];

static void note(struct part *p, const char *what)
{
    size_t n = strlen(calls);

    snprintf(calls + n, sizeof(calls) - n, "%s%s.%s", n ? " " : "", p->name, what);
}

static void assert_calls(const char *expected)
{
    assert_string_equal(calls, expected);
    calls[0] = 0;
}

static void assert_error(Error *err, const char *expected)
{
    assert_non_null(err);
    assert_string_equal(error_get_pretty(err), expected);
    error_free(err);
}

static void put(struct part *p, VMStream *f, const char *what)
{
    note(p, what);
    perdure_stream_put_u8(f, p->value);
    if (p->breaks_stream)
        perdure_stream_set_error(f, -EIO, "%s broke", p->name);
}

static void p_save_state(VMStream *f, void *opaque)
{
    put(opaque, f, "state");
}

static int p_save_setup(VMStream *f, void *opaque)
{
    put(opaque, f, "setup");
    return ((struct part *)opaque)->setup_status;
}

static int p_iterate(VMStream *f, void *opaque)
{
    struct part *p = opaque;

    put(p, f, "iter");
    if (p->iterate_status < 0)
        return p->iterate_status;
    return p->passes-- <= 0;
}

static int p_complete_precopy(VMStream *f, void *opaque)
{
    put(opaque, f, "pre");
    return ((struct part *)opaque)->complete_status;
}

static int p_complete_postcopy(VMStream *f, void *opaque)
{
    put(opaque, f, "post");
    return ((struct part *)opaque)->complete_status;
}

static void p_save_cleanup(void *opaque)
{
    note(opaque, "clean");
}

static bool p_is_active(void *opaque)
{
    return !((struct part *)opaque)->inactive;
}

static bool p_has_postcopy(void *opaque)
{
    return ((struct part *)opaque)->postcopy;
}

static bool p_is_active_iterate(void *opaque)
{
    return !((struct part *)opaque)->not_iterated;
}

static void p_pending(VMStream *f, void *opaque, uint64_t threshold, uint64_t *precopy_only,
                      uint64_t *compatible, uint64_t *postcopy_only)
{
    struct part *p = opaque;

    (void)f;
    assert_int_equal(threshold, 42);
    *precopy_only += p->pending[0];
    *compatible += p->pending[1];
    *postcopy_only += p->pending[2];
}

static int p_load_setup(VMStream *f, void *opaque)
{
    (void)f;
    note(opaque, "lsetup");
    return ((struct part *)opaque)->load_setup_status;
}

static int p_load_state(VMStream *f, void *opaque, int version)
{
    struct part *p = opaque;

    note(p, "load");
    p->loaded = perdure_stream_get_u8(f);
    p->versions[p->version_count++ & 3] = version;
    return p->load_status;
}

static int p_load_cleanup(void *opaque)
{
    note(opaque, "lclean");
    return ((struct part *)opaque)->load_cleanup_status;
}

static int p_resume(struct MigrationState *s, void *opaque)
{
    assert_ptr_equal(s, calls);
    note(opaque, "resume");
    return ((struct part *)opaque)->resume_status;
}

static const SaveVMHandlers live_ops = {
    .save_setup = p_save_setup,
    .save_live_iterate = p_iterate,
    .save_live_complete_precopy = p_complete_precopy,
    .save_live_complete_postcopy = p_complete_postcopy,
    .save_live_pending = p_pending,
    .save_cleanup = p_save_cleanup,
    .is_active = p_is_active,
    .has_postcopy = p_has_postcopy,
    .is_active_iterate = p_is_active_iterate,
    .load_setup = p_load_setup,
    .load_state = p_load_state,
    .load_cleanup = p_load_cleanup,
    .resume_prepare = p_resume,
};
static const SaveVMHandlers device_ops = {.save_state = p_save_state, .load_state = p_load_state};

/* a and b are live, d and e devices; registered in the order d a e b. */
static struct part a, b, d, e;
static VMStream *out;

static int begin(void **state)
{
    (void)state;
    calls[0] = 0;
    a = (struct part){.name = "a", .value = 10};
    b = (struct part){.name = "b", .value = 11};
    d = (struct part){.name = "d", .value = 12};
    e = (struct part){.name = "e", .value = 13};
    out = perdure_stream_open_memory(4096);
    assert_int_equal(register_savevm_live("d", -1, 2, &device_ops, &d), 0);
    assert_int_equal(register_savevm_live("a", -1, 5, &live_ops, &a), 0);
    assert_int_equal(register_savevm_live("e", 7, 1, &device_ops, &e), 0);
    assert_int_equal(register_savevm_live("b", -1, 3, &live_ops, &b), 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    unregister_savevm(NULL, "a", &a);
    unregister_savevm(NULL, "b", &b);
    unregister_savevm(NULL, "d", &d);
    unregister_savevm(NULL, "e", &e);
    assert_null(savevm_first());
    assert_int_equal(registry_context_current()->savevm.walks, 0);
    perdure_stream_close(out);
    return 0;
}

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
        TEST(test_whole_load),
        TEST(test_section_ids_are_the_streams),
        TEST(test_unknown_section),
        TEST(test_versions),
        TEST(test_missing_section),
        TEST(test_setup_and_cleanup_of_loads),
        TEST(test_part_before_start),
        TEST(test_twice_and_without_end),
        TEST(test_wrong_kind_of_section),
        TEST(test_section_of_the_wrong_size),
        TEST(test_unknown_records),
        TEST(test_devices),
        TEST(test_truncated_and_flipped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
