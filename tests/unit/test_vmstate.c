/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <perdure/vmstate.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct part {
    uint16_t a;
    uint32_t late;
};

struct thing {
    uint8_t u8;
    uint64_t u64;
    bool flag;
    uint32_t words[3];
    uint8_t bytes[5];
    struct part part;
    struct part parts[2];
    uint32_t list_count;
    struct part list[4];
    uint32_t blob_size;
    uint8_t blob[16];
    uint32_t late;
};

static const VMStateField part_fields[] = {
    VMSTATE_U16(struct part, a, 1),
    VMSTATE_U32(struct part, late, 2),
    VMSTATE_END,
};
static const VMStateDescription part_description = {.name = "part", .version = 1, .fields = part_fields};

static bool thing_post_load(void *opaque, int version, Error **errp)
{
    struct thing *t = opaque;

    (void)version;
    if (t->u8 == 0xee)
        error_setg(errp, "u8 is 0xee");
    return t->u8 != 0xee;
}

static const VMStateField thing_fields[] = {
    VMSTATE_U8(struct thing, u8, 1),
    VMSTATE_U64(struct thing, u64, 1),
    VMSTATE_BOOL(struct thing, flag, 1),
    VMSTATE_U32_ARRAY(struct thing, words, 3, 1),
    VMSTATE_BUFFER(struct thing, bytes, 1),
    VMSTATE_STRUCT(struct thing, part, &part_description, 1),
    VMSTATE_STRUCT_ARRAY(struct thing, parts, 2, &part_description, 1),
    VMSTATE_U32(struct thing, list_count, 1),
    VMSTATE_STRUCT_VARRAY(struct thing, list, 4, list_count, &part_description, 1),
    VMSTATE_U32(struct thing, blob_size, 1),
    VMSTATE_BUFFER_VARRAY(struct thing, blob, blob_size, 1),
    VMSTATE_U32(struct thing, late, 2),
    VMSTATE_END,
};
static const VMStateDescription thing_v2 = {.name = "thing",
                                            .version = 2,
                                            .minimum_version = 1,
                                            .fields = thing_fields,
                                            .post_load = thing_post_load};
/* What a build of yesterday knows. */
static const VMStateDescription thing_v1 = {.name = "thing",
                                            .version = 1,
                                            .minimum_version = 1,
                                            .fields = thing_fields,
                                            .post_load = thing_post_load};

static struct thing example(void)
{
    return (struct thing){.u8 = 1,
                          .u64 = 0x0102030405060708,
                          .flag = true,
                          .words = {1, 2, 3},
                          .bytes = "four",
                          .part = {7, 8},
                          .parts = {{9, 10}, {11, 12}},
                          .list_count = 2,
                          .list = {{13, 14}, {15, 16}},
                          .blob_size = 3,
                          .blob = "xyz",
                          .late = 17};
}

/* The devices of this process, saved; owned by the caller (a memory stream). */
static VMStream *save(void)
{
    VMStream *f = perdure_stream_open_memory(0);

    assert_true(perdure_savevm_devices(f, NULL));
    return f;
}

static bool load(const void *data, size_t size, Error **errp)
{
    VMStream *in = perdure_stream_open_buffer(data, size);
    bool ok = perdure_loadvm_devices(in, errp);

    perdure_stream_close(in);
    return ok;
}

/* By what is saved of them: the padding of structs is nobody's. */
static void assert_same(struct thing *a, struct thing *b)
{
    VMStream *f[2] = {perdure_stream_open_memory(0), perdure_stream_open_memory(0)};
    const void *data[2];
    size_t size[2];

    for (int i = 0; i < 2; i++) {
        perdure_stream_begin(f[i], 1, 1);
        assert_true(perdure_vmstate_save(f[i], &thing_v2, i ? b : a, NULL));
        perdure_stream_end(f[i]);
        data[i] = perdure_stream_memory(f[i], &size[i]);
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(data[0], data[1], size[0]);
    for (int i = 0; i < 2; i++)
        perdure_stream_close(f[i]);
}

static void test_round_trip(void **state)
{
    struct thing from = example(), to = {0};
    VMStream *f;
    const void *data;
    size_t size;

    (void)state;
    assert_true(perdure_vmstate_register(&thing_v2, -1, &from, NULL));
    f = save();
    perdure_vmstate_unregister(&thing_v2, &from);
    assert_true(perdure_vmstate_register(&thing_v2, 0, &to, NULL));
    assert_false(perdure_vmstate_register(&thing_v2, 0, &from, NULL)); /* taken */
    data = perdure_stream_memory(f, &size);
    assert_true(load(data, size, NULL));
    assert_same(&from, &to);
    perdure_vmstate_unregister(&thing_v2, &to);
    perdure_stream_close(f);
}

static void expect_load_error(const VMStateDescription *saver, struct thing from,
                              const VMStateDescription *loader, const char *text)
{
    struct thing to = {0};
    Error *err = NULL;
    VMStream *f;
    const void *data;
    size_t size;

    perdure_vmstate_register(saver, 0, &from, NULL);
    f = save();
    perdure_vmstate_unregister(saver, &from);
    perdure_vmstate_register(loader, 0, &to, NULL);
    data = perdure_stream_memory(f, &size);
    assert_false(load(data, size, &err));
    if (!strstr(error_get_pretty(err), text))
        fail_msg("expected '%s', got '%s'", text, error_get_pretty(err));
    error_free(err);
    perdure_vmstate_unregister(loader, &to);
    perdure_stream_close(f);
}

static void test_versions(void **state)
{
    struct thing from = example(), to = {.late = 99, .part = {.late = 98}};
    VMStream *f = perdure_stream_open_memory(0), *in;
    uint16_t type;
    uint64_t id;
    const void *data;
    size_t size;

    (void)state;
    expect_load_error(&thing_v2, from, &thing_v1, "device thing.0: stream has version 2, this build knows 1");

    /* An older stream lacks the late fields: they keep what they had. Its writer knew only the fields of
     * version 1. */
    static const VMStateField old_part[] = {VMSTATE_U16(struct part, a, 1), VMSTATE_END};
    static const VMStateDescription old_part_description = {.name = "part", .version = 1, .fields = old_part};
    static const VMStateField old_fields[] = {
        VMSTATE_U8(struct thing, u8, 1),
        VMSTATE_STRUCT(struct thing, part, &old_part_description, 1),
        VMSTATE_END,
    };
    static const VMStateField new_fields[] = {
        VMSTATE_U8(struct thing, u8, 1),
        VMSTATE_STRUCT(struct thing, part, &part_description, 1),
        VMSTATE_U32(struct thing, late, 2),
        VMSTATE_END,
    };
    static const VMStateDescription old = {
        .name = "o", .version = 1, .minimum_version = 1, .fields = old_fields};
    static const VMStateDescription new = {
        .name = "o", .version = 2, .minimum_version = 1, .fields = new_fields};
    perdure_stream_begin(f, 1, 1);
    assert_true(perdure_vmstate_save(f, &old, &from, NULL));
    perdure_stream_end(f);
    data = perdure_stream_memory(f, &size);
    in = perdure_stream_open_buffer(data, size);
    assert_true(perdure_stream_next(in, &type, &id));
    assert_true(perdure_vmstate_load(in, &new, &to, 1, NULL));
    perdure_stream_done(in);
    assert_int_equal(perdure_stream_error(in, NULL), 0);
    assert_int_equal(to.part.a, 7);
    assert_int_equal(to.part.late, 98);
    assert_int_equal(to.late, 99);
    perdure_stream_close(in);
    perdure_stream_close(f);
}

static void test_refused_values(void **state)
{
    struct thing bad = example();

    (void)state;
    bad.u8 = 0xee;
    expect_load_error(&thing_v2, bad, &thing_v2, "loading thing.0: u8 is 0xee");
    bad = example();
    memset(&bad.flag, 2, 1);
    expect_load_error(&thing_v2, bad, &thing_v2, "flag is neither 0 nor 1");
}

/* Whatever is cut off or flipped: an error, and never more than the object is touched (the sanitizers watch).
 */
static void test_damage(void **state)
{
    struct thing thing = example(), guard;
    VMStream *f;
    const void *data;
    size_t size;
    uint8_t *copy;

    (void)state;
    perdure_vmstate_register(&thing_v2, 0, &thing, NULL);
    f = save();
    data = perdure_stream_memory(f, &size);
    copy = malloc(size);
    for (size_t n = 0; n < size; n++)
        assert_false(load(data, n, NULL));
    for (size_t bit = 0; bit < size * 8; bit++) {
        memcpy(copy, data, size);
        copy[bit / 8] ^= 1 << bit % 8;
        guard = thing;
        assert_false(load(copy, size, NULL));
        thing = guard;
    }
    free(copy);
    perdure_vmstate_unregister(&thing_v2, &thing);
    perdure_stream_close(f);
}

static bool refuse_silently(void *opaque, int version, Error **errp)
{
    (void)opaque, (void)version, (void)errp;
    return false;
}

static void test_refusal_without_a_reason(void **state)
{
    static const VMStateDescription silent = {.name = "thing",
                                              .version = 2,
                                              .minimum_version = 1,
                                              .fields = thing_fields,
                                              .post_load = refuse_silently};

    (void)state;
    expect_load_error(&thing_v2, example(), &silent, "what was loaded is refused, without a reason");
}

/* A body as the wire would carry it, in a record that is whole: only the values are wrong. */
static bool load_body(const uint8_t *body, size_t size, struct thing *to)
{
    VMStream *f = perdure_stream_open_memory(4096), *in;
    const void *data;
    uint16_t type;
    uint64_t id;
    size_t n;
    bool ok;

    perdure_stream_begin(f, 1, 1);
    perdure_stream_put_buffer(f, body, size);
    perdure_stream_end(f);
    data = perdure_stream_memory(f, &n);
    in = perdure_stream_open_buffer(data, n);
    assert_true(perdure_stream_next(in, &type, &id));
    ok = perdure_vmstate_load(in, &thing_v2, to, 2, NULL);
    perdure_stream_done(in);
    ok = ok && !perdure_stream_error(in, NULL);
    perdure_stream_close(in);
    perdure_stream_close(f);
    return ok;
}

/* Every value of every octet: loaded or refused, never more than the object is touched, and it can be saved
 * after either. */
static void test_hostile_values(void **state)
{
    struct thing from = example();
    VMStream *f = perdure_stream_open_memory(4096), *in;
    uint8_t body[512];
    uint16_t type;
    uint64_t id;
    size_t size, loaded = 0;

    (void)state;
    perdure_stream_begin(f, 1, 1);
    assert_true(perdure_vmstate_save(f, &thing_v2, &from, NULL));
    perdure_stream_end(f);
    in = perdure_stream_open_buffer(perdure_stream_memory(f, &size), size);
    assert_true(perdure_stream_next(in, &type, &id));
    size = perdure_stream_left(in);
    assert_true(size <= sizeof(body) && perdure_stream_get_buffer(in, body, size));
    for (size_t at = 0; at < size; at++) {
        for (int value = 0; value < 256; value++) {
            struct thing *to = calloc(1, sizeof(*to)); /* exact, for the sanitizers */
            uint8_t kept = body[at];

            body[at] = (uint8_t)value;
            loaded += load_body(body, size, to);
            body[at] = kept;
            perdure_stream_rewind(f);
            perdure_stream_begin(f, 1, 1);
            assert_true(perdure_vmstate_save(f, &thing_v2, to, NULL));
            perdure_stream_end(f);
            free(to);
        }
    }
    assert_true(loaded > size); /* most values are as good as any */
    perdure_stream_close(in);
    perdure_stream_close(f);
}

static bool gone(void *opaque, Error **errp)
{
    (void)opaque;
    error_setg(errp, "the device is gone");
    return false;
}

static bool gone_without_a_word(void *opaque, Error **errp)
{
    (void)opaque, (void)errp;
    return false;
}

static void expect_save_error(const VMStateDescription *d, const char *text)
{
    VMStream *f = perdure_stream_open_memory(0);
    struct thing from = example();
    Error *err = NULL;

    assert_true(perdure_vmstate_register(d, 0, &from, NULL));
    assert_false(perdure_savevm_devices(f, &err));
    assert_string_equal(error_get_pretty(err), text);
    error_free(err);
    perdure_vmstate_unregister(d, &from);
    perdure_stream_close(f);
}

/* What cannot be read is not saved as if it had been: at the top, or deep in it. */
static void test_pre_save_fails(void **state)
{
    static const VMStateField none[] = {VMSTATE_END};
    static const VMStateDescription top = {.name = "top", .version = 1, .fields = none, .pre_save = gone};
    static const VMStateDescription mute = {
        .name = "mute", .version = 1, .fields = none, .pre_save = gone_without_a_word};
    static const VMStateField around[] = {VMSTATE_STRUCT_ARRAY(struct thing, parts, 2, &top, 1), VMSTATE_END};
    static const VMStateDescription outer = {.name = "outer", .version = 1, .fields = around};

    (void)state;
    expect_save_error(&top, "saving top.0: the device is gone");
    expect_save_error(&mute, "saving mute.0: its state cannot be saved, without a reason");
    expect_save_error(&outer, "saving outer.0: the device is gone");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_refused_values),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_refusal_without_a_reason),
        cmocka_unit_test(test_hostile_values),
        cmocka_unit_test(test_pre_save_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
