/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The first sync, and what either half of a replication group hears from a peer that lies. */
#include "block/disk_hash.h"
#include "block/disk_message.h"
#include "disk_pair.h"
#include "golden.h"

#include <errno.h>

#define SIZE  (5 * REPLICATION_CHUNK_SIZE + 777)
#define CHUNK REPLICATION_CHUNK_SIZE

static int begin(void **state)
{
    (void)state;
    pair_open(2, SIZE);
    return 0;
}

static int end(void **state)
{
    (void)state;
    pair_close();
    return 0;
}

static void fill_random(struct memory_block *m, unsigned seed)
{
    for (uint64_t i = 0; i < m->block.size; i++)
        m->bytes[i] = (uint8_t)(rand_r(&seed) >> 4);
}

/* --- sync --- */

static void test_everything_differs(void **state)
{
    struct replication_group_figures f;

    (void)state;
    fill_random(pair.a.disk[0], 1);
    fill_random(pair.a.disk[1], 2);
    fill_random(pair.b.disk[0], 3);
    pair_start();
    f = pair_figures(&pair.a);
    assert_int_equal(f.sync_left, 2 * SIZE + 1000);
    pair_sync();
    assert_true(pair_equal());
    f = pair_figures(&pair.a);
    assert_int_equal(f.sync_left, 0);
    assert_int_equal(f.sync_total, 2 * SIZE + 1000);
    assert_int_equal(f.sync_sent, 2 * SIZE + 1000);
}

static void test_only_what_differs_is_sent(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        fill_random(pair.a.disk[i], (unsigned)i);
        fill_random(pair.b.disk[i], (unsigned)i);
    }
    pair.a.disk[0]->bytes[0] ^= 1;
    pair.a.disk[1]->bytes[SIZE + 999] ^= 1;
    memset(pair.a.disk[1]->bytes + CHUNK, 0, CHUNK); /* a zeroing */
    pair_start();
    pair_sync();
    assert_true(pair_equal());
    assert_int_equal(pair_figures(&pair.a).sync_sent, 2 * CHUNK + 1777);
    assert_int_equal(pair.b.disk[0]->seen[BLOCK_WRITE], 1);
    assert_int_equal(pair.b.disk[1]->seen[BLOCK_WRITE], 1);
    assert_int_equal(pair.b.disk[1]->seen[BLOCK_ZERO], 1);
    assert_true(pair.b.disk[0]->seen[BLOCK_FLUSH] > 0);
}

/* After a swap: whatever the disks hold, nothing is read, asked or sent; what is written from then on is. */
static void test_equal_is_not_compared(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        fill_random(pair.a.disk[i], (unsigned)i);
        fill_random(pair.b.disk[i], (unsigned)i);
    }
    pair_start();
    pair_enter(&pair.a);
    replication_feeds_equal();
    assert_int_equal(replication_feeds_left(), 0);
    assert_true(pair_messages(1, NULL)); /* LAYOUT, SYNC_OVER */
    assert_int_equal(pair.a.disk[0]->seen[BLOCK_READ] + pair.b.disk[0]->seen[BLOCK_READ], 0);
    assert_int_equal(pair_figures(&pair.a).sync_sent, 0);
    pair_fill(pair.a.top[1], 4096, 0x5a, 512);
    pair_checkpoint();
    assert_true(pair_equal());
}

static void test_progress(void **state)
{
    uint64_t left, before = UINT64_MAX;
    bool more = true;

    (void)state;
    pair_start();
    while (more) {
        assert_true(pair_sync_step(&more, NULL));
        pair_enter(&pair.a);
        left = replication_feeds_left();
        assert_int_equal(left, pair_figures(&pair.a).sync_left);
        assert_true(left < before || !more);
        before = left;
    }
    assert_int_equal(left, 0);
    assert_true(pair_stop(&pair.a, false, NULL));
    assert_int_equal(replication_feeds_left(), 0);
}

/* More than one question, more than one read, and an end in the middle of both. */
static void test_large_disk(void **state)
{
    (void)state;
    pair_close();
    pair_open(1, 9 * (1 << 20) + 12345);
    fill_random(pair.a.disk[0], 1);
    memcpy(pair.b.disk[0]->bytes, pair.a.disk[0]->bytes, 9 << 20);
    memset(pair.b.disk[0]->bytes + (4 << 20) - 10, 0, 20);
    pair_start();
    pair_sync();
    assert_true(pair_equal());
    assert_int_equal(pair_figures(&pair.a).sync_sent, 2 * CHUNK + 12345);
}

/* The machine writes while its disks are compared. */
static void test_writes_meanwhile(void **state)
{
    unsigned seed = 5;
    bool more = true;

    (void)state;
    fill_random(pair.a.disk[0], 1);
    fill_random(pair.a.disk[1], 2);
    pair_start();
    while (more) {
        pair_enter(&pair.a);
        assert_true(pair_messages(1, NULL));
        perdure_stream_rewind(pair.out);
        assert_true(replication_feeds_ask(pair.out, PAIR_QUESTION, 1, &more, NULL));
        for (int i = 0; i < 20; i++)
            pair_fill(pair.a.top[rand_r(&seed) % 2], (uint64_t)rand_r(&seed) % (SIZE - 9000), (uint8_t)i,
                      (size_t)rand_r(&seed) % 9000 + 1);
        if (more) {
            assert_true(pair_deliver(&pair.b, NULL));
            for (int i = 0; i < 20; i++)
                assert_true(block_zero(pair.a.top[rand_r(&seed) % 2], (uint64_t)rand_r(&seed) % (SIZE - 9000),
                                       (uint64_t)rand_r(&seed) % 9000, rand_r(&seed) % 2, NULL));
            assert_true(pair_answer(NULL));
        }
    }
    pair_checkpoint();
    assert_true(pair_equal());
}

/* The disks go by their names, not by their order. */
static void test_other_order_of_disks(void **state)
{
    struct replication_group_options o = {
        .open_journal = pair_open_journal, .open_journal_opaque = &pair.b, .queue_limit = 1 << 20};
    Block *data, *root;

    (void)state;
    fill_random(pair.a.disk[0], 1);
    fill_random(pair.a.disk[1], 2);
    pair_enter(&pair.b);
    block_close(pair.b.top[0]);
    block_close(pair.b.top[1]);
    replication_group_free(pair.b.group);
    pair.b.group = replication_group_new(&o, NULL);
    replication_group_set_pair(pair.b.group, "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11", 1);
    pair.b.disk[0] = memory_block_new("root", SIZE);
    pair.b.disk[1] = memory_block_new("data", SIZE + 1000);
    data = replication_filter_new(pair.b.group, &pair.b.disk[1]->block, NULL);
    root = replication_filter_new(pair.b.group, &pair.b.disk[0]->block, NULL);
    pair.b.top[0] = root;
    pair.b.top[1] = data;
    pair_protect();
    pair_fill(pair.a.top[1], SIZE, 3, 900);
    pair_checkpoint();
    assert_true(pair_stop(&pair.b, true, NULL));
    assert_true(pair_equal());
}

/* --- layouts that do not match --- */

static VMStream *message_begin(uint8_t kind)
{
    perdure_stream_rewind(pair.out);
    perdure_stream_begin(pair.out, PAIR_MESSAGE, 1);
    perdure_stream_put_string(pair.out, "disks");
    perdure_stream_put_u8(pair.out, kind);
    return pair.out;
}

static void expect_refusal(const char *text)
{
    Error *err = NULL;

    perdure_stream_end(pair.out);
    assert_false(pair_deliver(&pair.b, &err));
    pair_expect_error(err, text);
}

static void expect_welcome(void)
{
    Error *err = NULL;

    perdure_stream_end(pair.out);
    if (!pair_deliver(&pair.b, &err))
        fail_msg("%s", error_get_pretty(err));
}

static struct disk_layout layout_of_pair(void)
{
    struct disk_layout l = {.limit = 1 << 20, .count = 2, .disks = {{"root", SIZE}, {"data", SIZE + 1000}}};

    return l;
}

static void put_layout(const struct disk_layout *l)
{
    perdure_stream_rewind(pair.out);
    perdure_stream_begin(pair.out, PAIR_MESSAGE, 1);
    perdure_stream_put_string(pair.out, "disks");
    disk_message_put_layout(pair.out, l);
}

static void refuse_layout(const struct disk_layout *l, const char *text)
{
    put_layout(l);
    expect_refusal(text);
}

static void be_target(void)
{
    assert_true(pair_start_side(&pair.b, REPLICATION_MODE_SECONDARY, NULL));
}

static void be_greeted_target(void)
{
    struct disk_layout l = layout_of_pair();

    be_target();
    put_layout(&l);
    expect_welcome();
}

static void test_layouts(void **state)
{
    struct disk_layout l = layout_of_pair();

    (void)state;
    be_target();
    l.disks[1].size--;
    refuse_layout(&l, "disk data: it has 329456 bytes at the primary, 329457 on this side");
    l = layout_of_pair();
    l.disks[1].id[0] = 'D';
    refuse_layout(&l, "disk Data: the primary has it, this side does not");
    l = layout_of_pair();
    l.disks[1] = l.disks[0];
    refuse_layout(&l, "disk root: the primary has it twice");
    l = layout_of_pair();
    l.count = 1;
    refuse_layout(&l, "disk data: this side has it, the primary does not");
    l.count = 0;
    refuse_layout(&l, "disk root: this side has it, the primary does not");
    l = layout_of_pair();
    l.limit++;
    refuse_layout(&l, "the primary's epochs may have 1048577 bytes, this side takes 1048576");
    message_begin(DISK_MESSAGE_LAYOUT);
    perdure_stream_put_u64(pair.out, 1);
    perdure_stream_put_u32(pair.out, REPLICATION_DISKS_MAX + 1);
    expect_refusal("too many disks (65)");
    message_begin(DISK_MESSAGE_LAYOUT);
    perdure_stream_put_u64(pair.out, 1);
    perdure_stream_put_u32(pair.out, 1);
    perdure_stream_put_string(pair.out, "0123456789012345678901234567890123456789");
    expect_refusal("too long");
    l = layout_of_pair();
    put_layout(&l);
    perdure_stream_put_u8(pair.out, 0);
    expect_refusal("bytes are left over");
    l = layout_of_pair();
    pair_stop(&pair.b, false, NULL);
    be_greeted_target();
    refuse_layout(&l, "LAYOUT came twice");
}

/* --- messages that lie --- */

static void put_write(uint8_t kind, uint32_t d, uint64_t offset, uint64_t size, size_t data)
{
    perdure_stream_put_u8(pair.out, kind);
    perdure_stream_put_u32(pair.out, d);
    perdure_stream_put_u64(pair.out, offset);
    perdure_stream_put_u64(pair.out, size);
    while (data--)
        perdure_stream_put_u8(pair.out, 0xaa);
}

static void refuse_write(uint8_t kind, uint32_t d, uint64_t offset, uint64_t size, size_t data,
                         const char *text)
{
    message_begin(DISK_MESSAGE_WRITES);
    put_write(DISK_WRITE_ZERO, 1, 0, 1, 0); /* the one before it is good */
    put_write(kind, d, offset, size, data);
    expect_refusal(text);
}

static void refuse_bad_writes(void)
{
    refuse_write(DISK_WRITE_DATA, 2, 0, 1, 1, "disk number 2: the primary has 2");
    refuse_write(DISK_WRITE_DATA, UINT32_MAX, 0, 1, 1, "disk number 4294967295");
    refuse_write(DISK_WRITE_DATA, 0, SIZE, 1, 1, "disk root: 1 bytes at 328457 lie outside");
    refuse_write(DISK_WRITE_DATA, 0, SIZE - 1, 2, 2, "lie outside");
    refuse_write(DISK_WRITE_DATA, 0, UINT64_MAX, 2, 2, "lie outside");
    refuse_write(DISK_WRITE_ZERO, 0, 2, UINT64_MAX - 1, 0, "lie outside");
    refuse_write(DISK_WRITE_UNMAP, 0, 0, SIZE + 1, 0, "lie outside");
    refuse_write(DISK_WRITE_DATA, 0, 0, 0, 0, "a write of kind 0 and size 0");
    refuse_write(DISK_WRITE_ZERO, 0, 0, 0, 0, "a write of kind 1 and size 0");
    refuse_write(DISK_WRITE_DATA, 0, 0, DISK_WRITE_MESSAGE_MAX + 1, 10, "a write of kind 0 and size 1048577");
    refuse_write(DISK_WRITE_DATA, 0, 0, UINT64_C(1) << 32, 10, "a write of kind 0 and size 4294967296");
    refuse_write(DISK_WRITE_DATA, 0, 0, 100, 99, "ends too early");
    refuse_write(DISK_WRITE_VERIFY, 0, 0, 100, 31, "ends too early");
    refuse_write(DISK_WRITE_VERIFY, 0, 0, CHUNK + 1, 32, "a write of kind 3");
    refuse_write(4, 0, 0, 1, 1, "a write of kind 4");
    message_begin(DISK_MESSAGE_WRITES);
    expect_refusal("ends too early");
}

static void test_bad_writes_in_the_sync(void **state)
{
    (void)state;
    be_greeted_target();
    refuse_bad_writes();
    refuse_write(DISK_WRITE_VERIFY, 0, 0, 100, 32, "a verification came before the sync was over");
    assert_int_equal(pair.b.disk[0]->seen[BLOCK_WRITE], 0);
    assert_int_equal(pair.b.disk[1]->seen[BLOCK_ZERO], 0); /* a message counts as a whole */
}

static void test_bad_writes_in_an_epoch(void **state)
{
    (void)state;
    pair_protect();
    refuse_bad_writes();
}

static void test_nothing_before_layout(void **state)
{
    (void)state;
    be_target();
    message_begin(DISK_MESSAGE_SYNC_OVER);
    expect_refusal("the first message is not LAYOUT (4)");
    message_begin(DISK_MESSAGE_WRITES);
    expect_refusal("the first message is not LAYOUT (2)");
}

static void test_nothing_without_replication(void **state)
{
    struct disk_layout l = layout_of_pair();

    (void)state;
    refuse_layout(&l, "a message came, but this side replicates nothing");
    assert_true(pair_start_side(&pair.b, REPLICATION_MODE_PRIMARY, NULL));
    refuse_layout(&l, "a message came, but this side replicates nothing");
}

static void put_question(uint32_t d, uint64_t offset, uint32_t count, uint32_t hashes)
{
    message_begin(DISK_MESSAGE_QUESTION);
    perdure_stream_put_u32(pair.out, d);
    perdure_stream_put_u64(pair.out, offset);
    perdure_stream_put_u32(pair.out, count);
    while (hashes--)
        for (int i = 0; i < DISK_HASH_SIZE; i++)
            perdure_stream_put_u8(pair.out, 0);
}

static void test_bad_questions(void **state)
{
    (void)state;
    be_greeted_target();
    put_question(0, 0, 1, 1);
    expect_welcome();
    put_question(0, 5 * CHUNK, 1, 1);
    expect_welcome();
    put_question(0, 5 * CHUNK, 2, 2);
    expect_refusal("lie outside");
    put_question(0, SIZE, 1, 1);
    expect_refusal("lie outside");
    put_question(0, UINT64_MAX - 10, 1, 1);
    expect_refusal("lie outside");
    put_question(2, 0, 1, 1);
    expect_refusal("disk number 2");
    put_question(0, 0, 0, 0);
    expect_refusal("a question about that many chunks (0)");
    put_question(0, 0, DISK_QUESTION_MAX + 1, 4);
    expect_refusal("a question about that many chunks (65)");
    put_question(0, 0, 3, 2);
    expect_refusal("ends too early");
    put_question(0, 0, 1, 2);
    expect_refusal("bytes are left over");
}

static void test_out_of_turn(void **state)
{
    (void)state;
    be_greeted_target();
    message_begin(DISK_MESSAGE_SYNC_OVER);
    expect_welcome();
    message_begin(DISK_MESSAGE_SYNC_OVER);
    expect_refusal("SYNC_OVER came twice");
    put_question(0, 0, 1, 1);
    expect_refusal("QUESTION came after the sync was over");
    pair_enter(&pair.b);
    assert_true(replication_do_checkpoint_all(NULL));
    put_question(0, 0, 1, 1);
    expect_refusal("QUESTION came after the sync was over");
    message_begin(DISK_MESSAGE_SYNC_OVER);
    expect_refusal("SYNC_OVER came twice");
    message_begin(DISK_MESSAGE_REPLY);
    expect_refusal("there is no message of kind 5");
    message_begin(0);
    expect_refusal("there is no message of kind 0");
    perdure_stream_rewind(pair.out);
    perdure_stream_begin(pair.out, PAIR_MESSAGE, 1);
    perdure_stream_put_string(pair.out, "disks");
    expect_refusal("ends too early");
}

/* A primary that never ends its epoch does not fill the backup's memory. */
static void test_epoch_without_end(void **state)
{
    Error *err = NULL;
    int n = 0;

    (void)state;
    pair_protect();
    do {
        message_begin(DISK_MESSAGE_WRITES);
        put_write(DISK_WRITE_DATA, 0, 0, 200000, 200000);
        perdure_stream_end(pair.out);
        n++;
    } while (n < 1000 && pair_deliver(&pair.b, &err));
    pair_expect_error(err, "the epoch has more than the 69206016 bytes that were agreed on");
    assert_in_range(n, 300, 400);
}

/* --- replies that lie --- */

static void expect_false_reply(const struct disk_reply *r, uint8_t kind, const char *text)
{
    Error *err = NULL;
    bool more;

    perdure_stream_rewind(pair.out);
    pair_enter(&pair.a);
    assert_true(replication_feeds_ask(pair.out, PAIR_QUESTION, 1, &more, NULL));
    assert_true(more);
    perdure_stream_rewind(pair.reply);
    perdure_stream_begin(pair.reply, PAIR_REPLY, 0);
    perdure_stream_put_string(pair.reply, "disks");
    if (kind == DISK_MESSAGE_REPLY) {
        disk_message_put_reply(pair.reply, r);
    } else {
        perdure_stream_put_u8(pair.reply, kind);
    }
    perdure_stream_end(pair.reply);
    assert_false(pair_answer(&err));
    pair_expect_error(err, text);
    assert_true(pair_stop(&pair.a, false, NULL));
}

static void test_false_replies(void **state)
{
    static const struct {
        struct disk_reply reply;
        uint8_t kind;
        const char *text;
    } replies[] = {
        {{.disk = 1, .offset = 0, .count = 6}, DISK_MESSAGE_REPLY, "the reply is to another question"},
        {{.disk = 0, .offset = CHUNK, .count = 6}, DISK_MESSAGE_REPLY, "the reply is to another question"},
        {{.disk = 0, .offset = 0, .count = 7}, DISK_MESSAGE_REPLY, "the reply is to another question"},
        {{.disk = 0, .offset = 0, .count = 0}, DISK_MESSAGE_REPLY, "a reply about that many chunks (0)"},
        {{.disk = 0}, DISK_MESSAGE_WRITES, "a reply that is none"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        assert_true(pair_start_side(&pair.a, REPLICATION_MODE_PRIMARY, NULL));
        expect_false_reply(&replies[i].reply, replies[i].kind, replies[i].text);
    }
}

static void test_asked_again_before_the_reply(void **state)
{
    Error *err = NULL;
    bool more;

    (void)state;
    assert_true(pair_start_side(&pair.a, REPLICATION_MODE_PRIMARY, NULL));
    assert_true(replication_feeds_ask(pair.out, PAIR_QUESTION, 1, &more, NULL));
    assert_false(replication_feeds_ask(pair.out, PAIR_QUESTION, 1, &more, &err));
    pair_expect_error(err, "asked again before the reply");
}

/* --- the octets --- */

static void put_message_begin(VMStream *f, uint16_t type, uint64_t id)
{
    perdure_stream_begin(f, type, id);
    perdure_stream_put_string(f, "disks");
}

/* One of each kind. */
static struct disk_write *next_example(void *opaque, Error **errp)
{
    static const enum disk_write_kind kinds[] = {DISK_WRITE_DATA, DISK_WRITE_ZERO, DISK_WRITE_UNMAP,
                                                 DISK_WRITE_VERIFY};
    uint32_t i = (*(uint32_t *)opaque)++, n;
    struct disk_write *w;

    (void)errp;
    if (i == 4)
        return NULL;
    n = kinds[i] == DISK_WRITE_DATA ? 5 : kinds[i] == DISK_WRITE_VERIFY ? DISK_HASH_SIZE : 0;
    w = disk_write_new(kinds[i], i % 2, 0x1000 * i, n == 5 ? 5 : 0x200, n);
    if (n == 5)
        memcpy(w->data, "hello", 5);
    else if (n)
        assert_true(disk_hash("hello", 5, w->data, NULL));
    return w;
}

static void put_example_writes(VMStream *f)
{
    uint32_t given = 0;
    struct disk_writes_out o = {.next = next_example, .opaque = &given};

    assert_true(disk_message_put_writes(&o, f, NULL));
    assert_null(o.part);
}

static void test_golden(void **state)
{
    struct disk_layout l = layout_of_pair();
    struct disk_question q = {.disk = 1, .offset = 4 * CHUNK, .count = 2};
    struct disk_reply r = {.disk = 1, .offset = 4 * CHUNK, .count = 2, .differs = {2}};
    VMStream *f = perdure_stream_open_memory(0);
    const void *bytes;
    size_t size;

    (void)state;
    assert_true(disk_hash("a", 1, q.hashes[0], NULL));
    assert_true(disk_hash("b", 1, q.hashes[1], NULL));
    put_message_begin(f, 0x35, 1);
    disk_message_put_layout(f, &l);
    perdure_stream_end(f);
    put_message_begin(f, 0x35, 1);
    disk_message_put_question(f, &q);
    perdure_stream_end(f);
    put_message_begin(f, 0x36, 0);
    disk_message_put_reply(f, &r);
    perdure_stream_end(f);
    put_message_begin(f, 0x35, 1);
    perdure_stream_put_u8(f, DISK_MESSAGE_SYNC_OVER);
    perdure_stream_end(f);
    put_message_begin(f, 0x35, 2);
    put_example_writes(f);
    perdure_stream_end(f);
    bytes = perdure_stream_memory(f, &size);
    assert_true(golden_matches("disks.hex", bytes, size));
    perdure_stream_close(f);
}

/* Every cut and every flipped bit of a message is an error or another good message, and nothing worse. */
static void test_damage(void **state)
{
    uint8_t body[256];
    size_t n = 0;

    (void)state;
    be_greeted_target();
    message_begin(DISK_MESSAGE_WRITES);
    put_write(DISK_WRITE_DATA, 0, 100, 20, 20);
    put_write(DISK_WRITE_UNMAP, 1, 100, 20, 0);
    perdure_stream_end(pair.out);
    {
        const uint8_t *bytes = perdure_stream_memory(pair.out, &n);

        n -= 24 + 7; /* frame header, id */
        memcpy(body, bytes + 24 + 7, n);
    }
    for (size_t i = 0; i < n * 8; i++) {
        uint8_t damaged[256];
        Error *err = NULL;
        bool ok;

        memcpy(damaged, body, n);
        damaged[i / 8] ^= (uint8_t)(1u << i % 8);
        perdure_stream_rewind(pair.out);
        put_message_begin(pair.out, PAIR_MESSAGE, 1);
        perdure_stream_put_buffer(pair.out, damaged, i % 3 ? n : i / 8);
        perdure_stream_end(pair.out);
        ok = pair_deliver(&pair.b, &err);
        assert_int_equal(ok, !err);
        error_free(err);
        pair_stop(&pair.b, false, NULL);
        be_greeted_target();
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_everything_differs),
        TEST(test_only_what_differs_is_sent),
        TEST(test_equal_is_not_compared),
        TEST(test_progress),
        TEST(test_large_disk),
        TEST(test_writes_meanwhile),
        TEST(test_other_order_of_disks),
        TEST(test_layouts),
        TEST(test_bad_writes_in_the_sync),
        TEST(test_bad_writes_in_an_epoch),
        TEST(test_nothing_before_layout),
        TEST(test_nothing_without_replication),
        TEST(test_bad_questions),
        TEST(test_out_of_turn),
        TEST(test_epoch_without_end),
        TEST(test_false_replies),
        TEST(test_asked_again_before_the_reply),
        TEST(test_golden),
        TEST(test_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
