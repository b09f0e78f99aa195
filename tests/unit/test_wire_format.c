/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * docs/wire-format.md against the code: what a machine's state looks like on the medium. The golden file was
 * made from the page, not by the code. One test only: ids of sections count registrations of the process.
 */
#include <perdure/savevm.h>
#include <perdure/vmstate.h>
#include "golden.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

/* A live component: it sends the numbers 10, 11, 12, one a call. */
struct live {
    uint32_t next;
    uint32_t loaded[3], load_count;
};

static int live_put(VMStream *f, void *opaque)
{
    struct live *l = opaque;

    perdure_stream_put_u32(f, l->next++);
    return l->next == 12;
}

static int live_load(VMStream *f, void *opaque, int version)
{
    struct live *l = opaque;

    assert_int_equal(version, 4);
    assert_true(l->load_count < 3);
    l->loaded[l->load_count++] = perdure_stream_get_u32(f);
    return 0;
}

static const SaveVMHandlers live_handlers = {
    .save_setup = live_put,
    .save_live_iterate = live_put,
    .save_live_complete_precopy = live_put,
    .load_state = live_load,
};

struct part {
    uint16_t a;
};

struct thing {
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    bool flag;
    uint32_t words[2];
    uint8_t bytes[3];
    struct part parts[2];
    uint32_t count;
    uint8_t blob[8];
};

static const VMStateField part_fields[] = {
    VMSTATE_U16(struct part, a, 1),
    VMSTATE_END,
};
static const VMStateDescription part_description = {.name = "part", .version = 1, .fields = part_fields};
static const VMStateField thing_fields[] = {
    VMSTATE_U8(struct thing, u8, 1),
    VMSTATE_U16(struct thing, u16, 1),
    VMSTATE_U32(struct thing, u32, 1),
    VMSTATE_U64(struct thing, u64, 1),
    VMSTATE_BOOL(struct thing, flag, 1),
    VMSTATE_U32_ARRAY(struct thing, words, 2, 1),
    VMSTATE_BUFFER(struct thing, bytes, 1),
    VMSTATE_STRUCT_ARRAY(struct thing, parts, 2, &part_description, 1),
    VMSTATE_U32(struct thing, count, 1),
    VMSTATE_BUFFER_VARRAY(struct thing, blob, count, 1),
    VMSTATE_END,
};
static const VMStateDescription thing_description = {
    .name = "thing", .version = 2, .minimum_version = 1, .fields = thing_fields};

static void test_machine_state(void **state)
{
    struct thing t = {.u8 = 1,
                      .u16 = 0x0203,
                      .u32 = 0x04050607,
                      .u64 = 0x08090a0b0c0d0e0f,
                      .flag = true,
                      .words = {0x10, 0x11},
                      .bytes = "abc",
                      .parts = {{0x2021}, {0x2223}},
                      .count = 2,
                      .blob = "yz"};
    struct live l = {.next = 10};
    VMStream *f = perdure_stream_open_memory(0);
    uint8_t *golden;
    const void *data;
    size_t size;

    (void)state;
    assert_int_equal(register_savevm_live("live", 0, 4, &live_handlers, &l), 0);
    assert_true(perdure_vmstate_register(&thing_description, -1, &t, NULL));
    assert_true(perdure_savevm_all(f, NULL));
    data = perdure_stream_memory(f, &size);
    assert_true(golden_matches("state.hex", data, size));
    perdure_stream_close(f);

    memset(&t, 0, sizeof(t));
    golden = golden_load("state.hex", &size);
    f = perdure_stream_open_buffer(golden, size);
    assert_true(perdure_loadvm_all(f, NULL));
    perdure_stream_close(f);
    free(golden);
    assert_int_equal(l.load_count, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(l.loaded[i], 10 + i);
    assert_true(t.u64 == 0x08090a0b0c0d0e0f);
    assert_true(t.flag);
    assert_memory_equal(t.bytes, "abc", 3);
    assert_int_equal(t.parts[1].a, 0x2223);
    assert_memory_equal(t.blob, "yz\0", 3);
    perdure_vmstate_unregister(&thing_description, &t);
    unregister_savevm(NULL, "live", &l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
