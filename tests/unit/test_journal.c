/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal as a file: its octets, its two segments, what a reader accepts, and what it says about damage.
 * (What a power cut leaves of it is in test_journal_crash.c.)
 */
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/fault.h"
#include "base/random.h"
#include "block/journal_format.h"
#include "golden.h"
#include "memory_block.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define SEGMENT    ((JOURNAL_SIZE_MIN - 3 * JOURNAL_BLOCK) / 2 / JOURNAL_BLOCK * JOURNAL_BLOCK)
#define SEGMENT_AT (3 * JOURNAL_BLOCK)
#define PAIR       "0f8e2f9e-1b1c-4a7e-9f63-2d1f5f3c7a11"

static const struct journal_identity two_disks = {
    .pair = PAIR, .generation = 3, .disk_count = 2, .disks = {{"root", 1 << 20}, {"data", 1 << 30}}};

struct file {
    uint8_t bytes[JOURNAL_SIZE_MIN];
};

/* Bytes that stay with the test when their block is closed; one at a time. */
static void view_close(Block *b)
{
    b->ops = NULL;
}

static const struct block_ops view_ops = {.name = "view", .submit = memory_block_submit, .close = view_close};

static Block *view(void *bytes, size_t size)
{
    static struct memory_block m;

    assert_null(m.block.ops);
    m = (struct memory_block){.block = {.ops = &view_ops, .id = "journal", .size = size}, .bytes = bytes};
    return &m.block;
}

static Block *block_of(struct file *f)
{
    return view(f->bytes, sizeof(f->bytes));
}

static void keep(struct file *f, const struct memory_block *m)
{
    assert_int_equal(m->block.size, sizeof(f->bytes));
    memcpy(f->bytes, m->bytes, sizeof(f->bytes));
}

static void six_one_six(void *buf, size_t n)
{
    memset(buf, 0x61, n);
}

static struct epoch_writes *epoch(uint64_t number, uint32_t size)
{
    struct epoch_writes *w = epoch_writes_new();
    struct disk_write *d = disk_write_new(DISK_WRITE_DATA, number % 2, number * 512, size, size);

    w->epoch = number;
    memset(d->data, (int)number, size);
    epoch_writes_add(w, d);
    return w;
}

static void append(Journal *j, uint64_t number, uint32_t size)
{
    struct epoch_writes *w = epoch(number, size);
    bool full;

    if (!journal_append(j, w, &full, NULL))
        fail_msg("epoch %d cannot be appended (full: %d)", (int)number, full);
    epoch_writes_free(w);
}

static void assert_full(Journal *j, uint64_t number, uint32_t size)
{
    struct epoch_writes *w = epoch(number, size);
    Error *err = NULL;
    bool full = false;

    assert_false(journal_append(j, w, &full, &err));
    assert_true(full);
    assert_null(err);
    epoch_writes_free(w);
}

static void assert_append_fails(Journal *j, struct epoch_writes *w, const char *text)
{
    Error *err = NULL;
    bool full = true;

    assert_false(journal_append(j, w, &full, &err));
    assert_false(full);
    assert_non_null(strstr(error_get_pretty(err), text));
    error_free(err);
    epoch_writes_free(w);
}

/* --- reading --- */

struct seen {
    uint64_t epochs[64];
    unsigned count, stop_after; /* 0: never */
    uint64_t last;
};

static bool see(void *opaque, const struct epoch_writes *w, Error **errp)
{
    struct seen *s = opaque;

    assert_true(s->count < 64);
    s->epochs[s->count++] = w->epoch;
    if (s->count != s->stop_after)
        return true;
    error_setg(errp, "enough");
    return false;
}

/* Takes b. false: refused, with a text. */
static bool read_block(Block *b, struct seen *s, Error **errp)
{
    Journal *j = journal_open(b, errp);
    bool ok = j && journal_replay(j, see, s, &s->last, errp);

    journal_close(j);
    return ok;
}

static void assert_holds(struct file *f, uint64_t first, uint64_t last)
{
    struct seen s = {.last = 99};

    assert_true(read_block(block_of(f), &s, NULL));
    assert_int_equal(s.last, last);
    assert_int_equal(s.count, last - first + 1);
    for (unsigned i = 0; i < s.count; i++)
        assert_int_equal(s.epochs[i], first + i);
}

static void assert_refused(struct file *f, const char *text)
{
    Error *err = NULL;
    struct seen s = {0};

    assert_false(read_block(block_of(f), &s, &err));
    if (!strstr(error_get_pretty(err), text))
        fail_msg("\"%s\" instead of \"%s\"", error_get_pretty(err), text);
    assert_int_equal(s.count, 0);
    error_free(err);
}

/* Epochs 1 to last, each synced, those up to released in place. */
static void write_journal(struct file *f, uint64_t last, uint32_t size, uint64_t released)
{
    struct memory_block *m = memory_block_new("journal", sizeof(f->bytes));
    Journal *j = journal_create(&m->block, &two_disks, NULL);

    assert_non_null(j);
    for (uint64_t i = 1; i <= last; i++) {
        append(j, i, size);
        assert_true(journal_sync(j, NULL));
        if (i <= released)
            journal_release(j, i);
    }
    keep(f, m);
    journal_close(j);
}

/* --- octets --- */

static void add(struct epoch_writes *w, enum disk_write_kind kind, uint32_t disk, uint64_t offset,
                uint64_t size, const char *data)
{
    struct disk_write *d = disk_write_new(kind, disk, offset, size, strlen(data));

    memcpy(d->data, data, strlen(data));
    epoch_writes_add(w, d);
}

static bool is_zero(const uint8_t *p, size_t n)
{
    while (n && !*p)
        p++, n--;
    return !n;
}

static void test_golden_octets(void **state)
{
    static const struct {
        size_t from, to;
    } written[] = {{0, 160}, {4092, 4096}, {4096, 4096 + 44}, {12288, 12288 + 232}, {16384, 16384 + 64}};
    struct memory_block *m = memory_block_new("journal", JOURNAL_SIZE_MIN);
    struct epoch_writes *w = epoch_writes_new(), *empty = epoch_writes_new();
    uint8_t golden[1024];
    size_t n = 0, at = 0;
    Journal *j;
    bool full;

    (void)state;
    random_set_source(six_one_six);
    j = journal_create(&m->block, &two_disks, NULL);
    random_set_source(NULL);
    add(w, DISK_WRITE_DATA, 0, 512, 5, "hello");
    add(w, DISK_WRITE_ZERO, 1, 1 << 20, 1 << 29, "");
    add(w, DISK_WRITE_UNMAP, 1, 4096, 8192, "");
    add(w, DISK_WRITE_VERIFY, 0, 0, 65536, "this would be a SHA-256 in life.");
    w->epoch = 17;
    empty->epoch = 19;
    assert_true(journal_append(j, w, &full, NULL) && journal_sync(j, NULL));
    assert_true(journal_append(j, empty, &full, NULL));
    for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++) {
        size_t part = written[i].to - written[i].from;

        assert_true(is_zero(m->bytes + at, written[i].from - at));
        memcpy(golden + n, m->bytes + written[i].from, part);
        n += part;
        at = written[i].to;
    }
    assert_true(is_zero(m->bytes + at, JOURNAL_SIZE_MIN - at));
    assert_true(golden_matches("journal.hex", golden, n));
    epoch_writes_free(w);
    epoch_writes_free(empty);
    journal_close(j);
}

static bool compare_with_first(void *opaque, const struct epoch_writes *w, Error **errp)
{
    const struct epoch_writes *expected = opaque;
    const struct disk_write *a = w->first, *b = expected->first;

    (void)errp;
    assert_int_equal(w->epoch, expected->epoch);
    assert_int_equal(w->count, expected->count);
    for (; a && b; a = a->next, b = b->next) {
        assert_int_equal(a->kind, b->kind);
        assert_int_equal(a->disk, b->disk);
        assert_int_equal(a->offset, b->offset);
        assert_int_equal(a->size, b->size);
        assert_int_equal(a->data_size, b->data_size);
        assert_memory_equal(a->data, b->data, a->data_size);
    }
    assert_true(!a && !b);
    return true;
}

/* Larger than the buffer, with every length of padding. */
static void test_everything_comes_back(void **state)
{
    struct memory_block *m = memory_block_new("journal", 16 << 20);
    Journal *j = journal_create(&m->block, &two_disks, NULL);
    struct epoch_writes *w = epoch_writes_new();
    uint64_t last;
    bool full;

    (void)state;
    assert_memory_equal(journal_get_identity(j), &two_disks, sizeof(two_disks));
    w->epoch = UINT64_MAX;
    for (unsigned i = 0; i < 3000; i++) {
        struct disk_write *d = disk_write_new(DISK_WRITE_DATA, i % 2, i * 64, i, i);

        for (unsigned k = 0; k < i; k++)
            d->data[k] = (uint8_t)(i + k);
        epoch_writes_add(w, d);
    }
    add(w, DISK_WRITE_ZERO, 1, 0, 1 << 30, "");
    add(w, DISK_WRITE_UNMAP, 0, 1 << 20, 0, "");
    assert_true(journal_append(j, w, &full, NULL));
    assert_true(journal_replay(j, compare_with_first, w, &last, NULL));
    assert_true(last == UINT64_MAX);
    epoch_writes_free(w);
    journal_close(j);
}

/* --- two segments --- */

static void test_segments_take_turns(void **state)
{
    struct memory_block *m = memory_block_new("journal", JOURNAL_SIZE_MIN);
    Journal *j = journal_create(&m->block, &two_disks, NULL);
    struct file f;
    uint64_t n = 0;

    (void)state;
    for (unsigned i = 0; i < 2 * SEGMENT / 8192; i++)
        append(j, ++n, 5000);
    assert_full(j, n + 1, 5000);
    assert_full(j, n + 1, 5000);
    journal_release(j, n / 2 - 1); /* all but one of the first segment */
    assert_full(j, n + 1, 5000);
    keep(&f, m);
    assert_holds(&f, 1, n);
    journal_release(j, n / 2);
    append(j, ++n, 5000);
    keep(&f, m);
    assert_holds(&f, SEGMENT / 8192 + 1, n);
    for (int i = 0; i < 100; i++) { /* round and round */
        journal_release(j, n);
        append(j, ++n, i % 2 ? 5000 : 1);
    }
    keep(&f, m);
    journal_close(j);
    {
        struct seen s = {0};

        assert_true(read_block(block_of(&f), &s, NULL));
        assert_int_equal(s.last, n);
        assert_in_range(s.count, 1, 2 * SEGMENT / JOURNAL_BLOCK);
    }
}

/* Everything is in place, and the next segment's first epoch was never whole. */
static void test_nothing_is_needed(void **state)
{
    const uint64_t n = 2 * SEGMENT / 8192;
    struct file f;

    (void)state;
    write_journal(&f, n + 1, 5000, n);
    assert_holds(&f, n + 1, n + 1);
    f.bytes[SEGMENT_AT + 100] ^= 1;
    assert_holds(&f, n + 1, n);
    write_journal(&f, 0, 0, 0);
    assert_holds(&f, 1, 0);
}

/* begin_segment() makes durable what is appended and not synced: it is one flush for the mark and for that.
 */
static void test_flushes(void **state)
{
    struct memory_block *m = memory_block_new("journal", JOURNAL_SIZE_MIN);
    Journal *j = journal_create(&m->block, &two_disks, NULL);
    unsigned before = m->seen[BLOCK_FLUSH];

    (void)state;
    assert_true(journal_sync(j, NULL));
    append(j, 1, 5000);
    append(j, 2, 5000);
    assert_int_equal(m->seen[BLOCK_FLUSH], before);
    assert_true(journal_sync(j, NULL) && journal_sync(j, NULL));
    assert_int_equal(m->seen[BLOCK_FLUSH], before + 1);
    append(j, 3, SEGMENT - 8192); /* only into the other segment */
    assert_int_equal(m->seen[BLOCK_FLUSH], before + 2);
    journal_close(j);
}

static void test_refused_epochs(void **state)
{
    struct memory_block *m = memory_block_new("journal", JOURNAL_SIZE_MIN);
    Journal *j = journal_create(&m->block, &two_disks, NULL);
    struct epoch_writes *w = epoch_writes_new();
    unsigned before = m->seen[BLOCK_WRITE];

    (void)state;
    assert_append_fails(j, epoch(0, 512), "epoch 0 comes after 0");
    assert_append_fails(j, epoch(1, SEGMENT - JOURNAL_HEAD_SIZE - JOURNAL_WRITE_SIZE + 1),
                        "a larger journal is needed");
    w->epoch = 1;
    add(w, DISK_WRITE_ZERO, 0, 1, 1 << 20, "");
    assert_append_fails(j, w, "journal: disk root: 1048576 bytes at 1 lie beyond its end");
    assert_int_equal(m->seen[BLOCK_WRITE], before);
    append(j, 1, SEGMENT - JOURNAL_HEAD_SIZE - JOURNAL_WRITE_SIZE); /* just fits */
    append(j, 9, 1);
    assert_append_fails(j, epoch(9, 1), "epoch 9 comes after 9");
    assert_append_fails(j, epoch(2, 1), "epoch 2 comes after 9");
    journal_close(j);
}

static void test_a_reader_may_stop(void **state)
{
    struct seen s = {.stop_after = 2, .last = 42};
    struct file f;
    Error *err = NULL;

    (void)state;
    write_journal(&f, 4, 100, 0);
    assert_false(read_block(block_of(&f), &s, &err));
    assert_string_equal(error_get_pretty(err), "enough");
    assert_int_equal(s.count, 2);
    assert_int_equal(s.last, 42);
    error_free(err);
}

/* A file that held another journal, with other epochs of the same numbers. */
static void test_an_older_journal_does_not_count(void **state)
{
    struct file f;
    Block *b;
    Journal *j;

    (void)state;
    write_journal(&f, 6, 100, 0);
    b = block_of(&f);
    j = journal_create(b, &two_disks, NULL);
    append(j, 1, 100);
    journal_close(j);
    assert_holds(&f, 1, 1);
}

static void test_create_refuses(void **state)
{
    struct journal_identity bad = two_disks;
    Error *err = NULL;

    (void)state;
    assert_null(journal_create(&memory_block_new("journal", JOURNAL_SIZE_MIN - 1)->block, &two_disks, &err));
    assert_non_null(strstr(error_get_pretty(err), "at least"));
    error_free(err);
    bad.disk_count = 0;
    assert_null(journal_create(&memory_block_new("journal", JOURNAL_SIZE_MIN)->block, &bad, NULL));
    bad.disk_count = JOURNAL_DISKS_MAX + 1;
    assert_null(journal_create(&memory_block_new("journal", JOURNAL_SIZE_MIN)->block, &bad, NULL));
    bad = two_disks;
    memset(bad.disks[1].id, 'x', sizeof(bad.disks[1].id));
    assert_null(journal_create(&memory_block_new("journal", JOURNAL_SIZE_MIN)->block, &bad, NULL));
    bad = two_disks;
    bad.pair[0] = 0;
    assert_null(journal_create(&memory_block_new("journal", JOURNAL_SIZE_MIN)->block, &bad, NULL));
}

/* --- damage --- */

static void reseal_header(struct file *f)
{
    le32_put(f->bytes + JOURNAL_BLOCK - 4, crc32c(0, f->bytes, JOURNAL_BLOCK - 4));
}

static void reseal_head(uint8_t *head, const uint8_t *body)
{
    le32_put(head + 56, crc32c(0, body, le64_get(head + 40)));
    le32_put(head + 60, crc32c(0, head, 60));
}

static void test_hostile_header(void **state)
{
    const struct {
        size_t at;
        uint64_t value;
        const char *text;
    } bad[] = {
        {0, 0, "this is no journal"},
        {8, 2, "has format"},
        {12, 0, "journal of 0 disks"},
        {12, UINT32_MAX, "journal of 4294967295 disks"},
        {12, JOURNAL_DISKS_MAX + 1, "journal of 65 disks"},
        {12, 3, "disk number 2 of the journal has no name"},
        {24, 0, "cut off"},
        {24, SEGMENT + 1, "cut off"},
        {24, SEGMENT + JOURNAL_BLOCK, "cut off"},
        {24, UINT64_MAX / 2 + 1, "cut off"},
        {40, 0, "names no pair"},
        {80 + 32, UINT64_MAX, "impossible size"},
        {16, 5, "both marks"}, /* another journal's */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct file f;

        write_journal(&f, 1, 100, 0);
        if (bad[i].at == 8 || bad[i].at == 12)
            le32_put(f.bytes + bad[i].at, bad[i].value);
        else
            le64_put(f.bytes + bad[i].at, bad[i].value);
        reseal_header(&f);
        assert_refused(&f, bad[i].text);
    }
}

/* With a right checksum: somebody wrote it so. */
static void test_hostile_epoch(void **state)
{
    const struct {
        size_t at; /* in the epoch */
        uint64_t value;
        const char *text; /* NULL: an end like a torn one */
    } bad[] = {
        {16, 2, NULL},
        {40, SEGMENT, NULL},
        {40, UINT64_MAX, NULL},
        {24, 0, "comes after epoch 0"},
        {32, 1, "was durable and is not whole"}, /* by itself */
        {40, 100, "cut off"},
        {40, 1, "a write is cut off"},
        {48, 2, "1 writes instead of 2"},
        {48, UINT64_MAX, "1 writes instead of"},
        {64, UINT64_C(2) << 32, "disk number 2, of 2"},
        {64, UINT64_C(1) << 32 | 4, "of kind 4"},
        {64, UINT64_C(1) << 32 | 1, "of kind 1, 100 bytes and 100"},
        {64 + 8, UINT64_MAX, "beyond its end"},
        {64 + 16, 101, "of kind 0, 101 bytes and 100"},
        {64 + 24, UINT64_C(1) << 32 | 100, "not filled up"},
        {64 + 24, UINT32_MAX, "bytes of data"},
        {64 + 32 + 96, UINT64_C(1) << 63, "not filled up"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct file f;
        uint8_t *head = f.bytes + SEGMENT_AT;
        uint64_t size;

        write_journal(&f, 1, 100, 0);
        le64_put(head + bad[i].at, bad[i].value);
        size = le64_get(head + 40);
        if (size <= SEGMENT - JOURNAL_HEAD_SIZE)
            reseal_head(head, head + JOURNAL_HEAD_SIZE);
        else
            le32_put(head + 60, crc32c(0, head, 60));
        if (bad[i].at == 32) { /* the epoch itself is torn */
            head[JOURNAL_HEAD_SIZE] ^= 1;
            assert_refused(&f, bad[i].text);
        } else if (bad[i].text)
            assert_refused(&f, bad[i].text);
        else
            assert_holds(&f, 1, 0);
    }
}

/* Old epochs with numbers that are not next, and marks with any number. */
static void test_hostile_mark(void **state)
{
    const uint64_t numbers[] = {1, 4, 5, 6, UINT64_MAX - 1};
    struct file f;

    (void)state;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct seen s = {0};
        uint64_t id;

        write_journal(&f, 5, 100, 0);
        id = le64_get(f.bytes + 16);
        journal_mark_encode(&(struct journal_mark){.turn = 1, .number = numbers[i], .epoch = numbers[i]}, id,
                            f.bytes + JOURNAL_MARK_OFFSET(1));
        assert_true(read_block(block_of(&f), &s, NULL));
        assert_int_equal(s.count, numbers[i] <= 5 ? 5 - numbers[i] : 0);
    }
}

struct expected {
    uint64_t first;       /* needed; an older one is welcome */
    uint64_t least, last; /* the newest that may be found */
};

/* The answers that are not allowed: a hole, something older than least, something that never was. */
static bool is_allowed(Block *b, const struct expected *e, Error **errp)
{
    struct seen s = {.last = UINT64_MAX};

    if (!read_block(b, &s, errp))
        return errp && error_get_pretty(*errp)[0];
    for (unsigned i = 0; i < s.count; i++)
        if (s.epochs[i] != s.epochs[0] + i)
            return false;
    if (s.count && (s.epochs[0] > e->first || s.last != s.epochs[s.count - 1]))
        return false;
    return s.last >= e->least && s.last <= e->last;
}

static void assert_survives(Block *b, const struct expected *e, const char *what, size_t where)
{
    Error *err = NULL;

    if (!is_allowed(b, e, &err))
        fail_msg("%s %zu: neither the same epochs nor fewer nor an error", what, where);
    error_free(err);
}

/* A journal that has wrapped: two marks, old epochs behind new ones, both segments needed. */
static struct expected wrapped_journal(struct file *f)
{
    const uint64_t per_segment = SEGMENT / JOURNAL_BLOCK, last = 3 * per_segment + 2;
    struct seen s = {0};

    write_journal(f, last, 300, last - 3);
    assert_true(read_block(block_of(f), &s, NULL));
    assert_int_equal(s.last, last);
    assert_true(s.count > 2);
    return (struct expected){.first = s.epochs[0], .least = last - 1, .last = last};
}

/* Only of the last epoch nobody says that it was durable. */
static void test_every_octet_flipped(void **state)
{
    struct file f;
    struct expected e = wrapped_journal(&f);

    (void)state;
    for (size_t i = 0; i < sizeof(f.bytes); i++) {
        uint8_t was = f.bytes[i];

        if (is_zero(f.bytes + i / 512 * 512, 512))
            continue; /* free space and filling */
        f.bytes[i] ^= 1 << i % 8;
        assert_survives(block_of(&f), &e, "bit of octet", i);
        f.bytes[i] = (uint8_t)~was;
        assert_survives(block_of(&f), &e, "octet", i);
        f.bytes[i] = was;
    }
}

static void test_every_truncation(void **state)
{
    struct file f;
    struct expected e = wrapped_journal(&f);

    (void)state;
    e.least = 0; /* zeroes wipe out also who knows better */
    for (size_t size = 0; size < sizeof(f.bytes); size += size % 512 < 3 || size % 512 > 508 ? 1 : 5) {
        struct memory_block *m = memory_block_new("journal", size),
                            *z = memory_block_new("journal", sizeof(f));

        memcpy(m->bytes, f.bytes, size);
        memcpy(z->bytes, f.bytes, size);
        assert_false(is_allowed(&m->block, &e, NULL)); /* always refused */
        assert_survives(&z->block, &e, "zeroes from", size);
    }
}

/* One that was durable must not be taken for a torn one: the disks may hold parts of what came after it. */
static void test_damage_is_not_a_torn_end(void **state)
{
    struct file f;

    (void)state;
    write_journal(&f, 5, 300, 0);
    f.bytes[SEGMENT_AT + 4 * JOURNAL_BLOCK + 100] ^= 1; /* the last: nobody knows that it was durable */
    assert_holds(&f, 1, 4);
    f.bytes[SEGMENT_AT + 2 * JOURNAL_BLOCK + 100] ^= 1;
    assert_refused(&f, "journal: the journal is damaged: what follows epoch 2 was durable and is not whole");
    memset(f.bytes + SEGMENT_AT, 0, JOURNAL_BLOCK);
    assert_refused(&f, "what follows epoch 0 was durable and is not whole");
}

static void test_planted_torn_epoch(void **state)
{
    struct file f;
    struct seen s = {0};

    (void)state;
    write_journal(&f, 2, 300, 0);
    f.bytes[SEGMENT_AT + JOURNAL_BLOCK + 200] ^= 1;
    assert_holds(&f, 1, 1);
    fault_arm("journal.accept_torn_epoch", 0);
    assert_true(read_block(block_of(&f), &s, NULL));
    fault_disarm_all();
    assert_int_equal(s.last, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_octets),
        cmocka_unit_test(test_everything_comes_back),
        cmocka_unit_test(test_segments_take_turns),
        cmocka_unit_test(test_nothing_is_needed),
        cmocka_unit_test(test_flushes),
        cmocka_unit_test(test_refused_epochs),
        cmocka_unit_test(test_a_reader_may_stop),
        cmocka_unit_test(test_an_older_journal_does_not_count),
        cmocka_unit_test(test_create_refuses),
        cmocka_unit_test(test_hostile_header),
        cmocka_unit_test(test_hostile_epoch),
        cmocka_unit_test(test_hostile_mark),
        cmocka_unit_test(test_every_octet_flipped),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_damage_is_not_a_torn_end),
        cmocka_unit_test(test_planted_torn_epoch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
