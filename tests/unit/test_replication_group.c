/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The state machine of replicated disks, and what a request meets in each state. */
#include "base/task.h"
#include "disk_pair.h"

#include <errno.h>

#define SIZE 200000

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

/* --- every operation in every state --- */

static void bring_to(const char *state)
{
    if (!strcmp(state, "FORWARDING"))
        assert_true(pair_start_side(&pair.b, REPLICATION_MODE_PRIMARY, NULL));
    if (!strcmp(state, "TARGET"))
        assert_true(pair_start_side(&pair.b, REPLICATION_MODE_SECONDARY, NULL));
    if (!strcmp(state, "STANDBY"))
        pair_protect();
    if (!strcmp(state, "UNUSABLE")) {
        assert_true(pair_start_side(&pair.b, REPLICATION_MODE_SECONDARY, NULL));
        assert_true(pair_stop(&pair.b, false, NULL));
    }
}

static bool operate(const char *op, Error **errp)
{
    pair_enter(&pair.b);
    if (!strcmp(op, "start as primary"))
        return replication_start_all(REPLICATION_MODE_PRIMARY, errp);
    if (!strcmp(op, "start as secondary"))
        return replication_start_all(REPLICATION_MODE_SECONDARY, errp);
    if (!strcmp(op, "take a checkpoint"))
        return replication_do_checkpoint_all(errp);
    if (!strcmp(op, "be copied")) {
        bool ok = replication_feeds_copy_begin(errp);

        replication_feeds_copy_end();
        return ok;
    }
    return replication_stop_all(!strcmp(op, "take over"), errp);
}

/* What a read and a write get there. */
static int access_errno(Block *b)
{
    uint8_t byte = 7;
    Error *read_err = NULL, *write_err = NULL;
    int n;

    block_read(b, 0, &byte, 1, &read_err);
    block_write(b, 0, &byte, 1, &write_err);
    n = read_err ? error_get_errno(read_err) : 0;
    assert_int_equal(n, write_err ? error_get_errno(write_err) : 0);
    assert_int_equal(block_flush(b, NULL), !n);
    assert_int_equal(block_zero(b, 1, 1, false, NULL), !n);
    error_free(read_err);
    error_free(write_err);
    return n;
}

/* Which state it is, told by what it refuses. */
static void assert_state(const char *state)
{
    bool open = !strcmp(state, "PASSIVE") || !strcmp(state, "FORWARDING");
    Error *err = NULL;

    assert_int_equal(access_errno(pair.b.top[1]), open ? 0 : !strcmp(state, "UNUSABLE") ? EIO : EBUSY);
    if (strcmp(state, "PASSIVE")) {
        assert_false(operate("start as primary", &err));
        pair_expect_error(err, state);
    } else {
        assert_false(operate("take a checkpoint", &err));
        pair_expect_error(err, "(PASSIVE)");
    }
}

static const struct {
    const char *state, *op, *refused, *after;
} transitions[] = {
    {"PASSIVE", "start as primary", NULL, "FORWARDING"},
    {"PASSIVE", "start as secondary", NULL, "TARGET"},
    {"PASSIVE", "take a checkpoint", "replication does not run", "PASSIVE"},
    {"PASSIVE", "stop", NULL, "PASSIVE"},
    {"PASSIVE", "take over", NULL, "PASSIVE"},
    {"PASSIVE", "be copied", "replication does not run", "PASSIVE"},
    {"FORWARDING", "start as primary", "replication runs already", "FORWARDING"},
    {"FORWARDING", "start as secondary", "replication runs already", "FORWARDING"},
    {"FORWARDING", "take a checkpoint", NULL, "FORWARDING"},
    {"FORWARDING", "stop", NULL, "PASSIVE"},
    {"FORWARDING", "take over", NULL, "PASSIVE"},
    {"FORWARDING", "be copied", "only a standby can, after its first checkpoint", "FORWARDING"},
    {"TARGET", "start as primary", "replication runs already", "TARGET"},
    {"TARGET", "start as secondary", "replication runs already", "TARGET"},
    {"TARGET", "stop", NULL, "UNUSABLE"},
    {"TARGET", "take over", "half of one copy and half of another", "UNUSABLE"},
    {"TARGET", "be copied", "only a standby can, after its first checkpoint", "TARGET"},
    {"STANDBY", "start as primary", "replication runs already", "STANDBY"},
    {"STANDBY", "start as secondary", "replication runs already", "STANDBY"},
    {"STANDBY", "take a checkpoint", NULL, "STANDBY"},
    {"STANDBY", "stop", NULL, "PASSIVE"},
    {"STANDBY", "take over", NULL, "PASSIVE"},
    {"STANDBY", "be copied", NULL, "STANDBY"},
    {"UNUSABLE", "start as primary", "half of one copy and half of another", "UNUSABLE"},
    {"UNUSABLE", "start as secondary", NULL, "TARGET"},
    {"UNUSABLE", "take a checkpoint", "replication does not run", "UNUSABLE"},
    {"UNUSABLE", "stop", NULL, "UNUSABLE"},
    {"UNUSABLE", "take over", "half of one copy and half of another", "UNUSABLE"},
    {"UNUSABLE", "be copied", "replication does not run", "UNUSABLE"},
};

static void test_every_operation_in_every_state(void **state)
{
    char text[200];

    (void)state;
    for (size_t i = 0; i < sizeof(transitions) / sizeof(transitions[0]); i++) {
        Error *err = NULL;
        bool ok;

        pair_open(2, SIZE);
        bring_to(transitions[i].state);
        assert_state(transitions[i].state);
        ok = operate(transitions[i].op, &err);
        assert_int_equal(ok, !transitions[i].refused);
        if (!ok) {
            snprintf(text, sizeof(text), "disks: cannot %s: ", transitions[i].op);
            assert_non_null(strstr(error_get_pretty(err), text));
            snprintf(text, sizeof(text), "%s%s (%s)",
                     transitions[i].refused[0] == 'h' ? "the disks are " : "", transitions[i].refused,
                     transitions[i].state);
            pair_expect_error(err, text);
        }
        assert_state(transitions[i].after);
        pair_close();
    }
}

static void test_no_checkpoint_before_the_sync_is_over(void **state)
{
    Error *err = NULL;
    bool more;

    (void)state;
    pair_start();
    assert_false(operate("take a checkpoint", &err));
    pair_expect_error(err, "a checkpoint came before the sync was over");
    assert_true(pair_sync_step(&more, NULL));
    assert_true(more);
    assert_false(operate("take a checkpoint", NULL));
    pair_sync();
    assert_true(operate("take a checkpoint", NULL));
    assert_state("STANDBY");
}

/* --- what a start needs --- */

/* It is made when the sync begins: both machines stand still for the start. */
static void test_sync_without_journal(void **state)
{
    Error *err = NULL;

    (void)state;
    pair.b.no_journal = true;
    pair_start();
    assert_false(pair_try_sync(&err));
    pair_expect_error(err, "no room for a journal");
    assert_true(pair_stop(&pair.b, false, NULL));
    assert_true(pair_stop(&pair.a, false, NULL));
    assert_state("UNUSABLE");
    pair.b.no_journal = false;
    pair_protect();
}

/* Without disks it is a group all the same. */
static void test_no_disks(void **state)
{
    (void)state;
    pair_close();
    pair_open(0, 0);
    pair_protect();
    pair_checkpoint();
    assert_int_equal(pair_figures(&pair.b).durable_epoch, 2);
    assert_true(pair_stop(&pair.b, true, NULL));
    assert_true(pair_stop(&pair.a, false, NULL));
    assert_null(pair.b.journal);
}

static void test_members(void **state)
{
    struct memory_block *same = memory_block_new("root", 1000), *other = memory_block_new("other", 1000);
    ReplicationGroup *second;
    Error *err = NULL;
    Block *top;

    (void)state;
    assert_null(replication_filter_new(pair.a.group, &same->block, &err));
    pair_expect_error(err, "disk root: the id is taken");
    err = NULL;
    other->block.readonly = true;
    assert_null(replication_filter_new(pair.a.group, &other->block, &err));
    pair_expect_error(err, "disk other: it is read-only");
    other->block.readonly = false;
    top = replication_filter_new(pair.a.group, &other->block, NULL);
    assert_non_null(top);
    block_close(pair.a.top[1]); /* the ones behind move up */
    pair.a.top[1] = top;
    pair.a.disk[1] = other;
    assert_true(pair_start_side(&pair.a, REPLICATION_MODE_PRIMARY, NULL));
    assert_true(block_write(top, 0, "x", 1, NULL));
    err = NULL;
    pair_enter(&pair.a);
    second = replication_group_new(&(struct replication_group_options){0}, &err);
    assert_null(second);
    pair_expect_error(err, "the id is taken");
    assert_true(replication_get_error_all(NULL)); /* the first one is still there */
    block_close(&same->block);
}

/* --- epochs, as QEMU's test of block replication has them --- */

static void assert_bytes(const struct memory_block *m, uint64_t offset, uint8_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(m->bytes[offset + i], value);
}

static void test_epoch_is_visible_with_its_checkpoint(void **state)
{
    (void)state;
    memset(pair.a.disk[0]->bytes, 0x11, SIZE);
    pair_protect();
    pair_fill(pair.a.top[0], SIZE / 2, 0x22, SIZE / 2);
    pair_end_epoch();
    assert_true(pair_messages(2, NULL));
    assert_bytes(pair.b.disk[0], 0, 0x11, SIZE); /* received, and not there */
    assert_true(pair_try_finish_epoch(NULL));
    assert_true(pair_stop(&pair.b, true, NULL));
    assert_bytes(pair.b.disk[0], 0, 0x11, SIZE / 2);
    assert_bytes(pair.b.disk[0], SIZE / 2, 0x22, SIZE / 2);
}

/* What no checkpoint covered is gone: on both disks. */
static void test_takeover_drops_the_epoch_that_is_not_whole(void **state)
{
    (void)state;
    memset(pair.a.disk[0]->bytes, 0x11, SIZE);
    memset(pair.a.disk[1]->bytes, 0x12, SIZE);
    pair_protect();
    pair_fill(pair.a.top[0], 0, 0x21, SIZE);
    pair_fill(pair.a.top[1], 0, 0x22, SIZE);
    pair_checkpoint();
    pair_fill(pair.a.top[0], 0, 0x31, SIZE);
    pair_fill(pair.a.top[1], 0, 0x32, SIZE);
    pair_end_epoch();
    assert_true(pair_messages(3, NULL));
    assert_true(pair_stop(&pair.b, true, NULL));
    assert_bytes(pair.b.disk[0], 0, 0x21, SIZE);
    assert_bytes(pair.b.disk[1], 0, 0x22, SIZE);
    assert_int_equal(pair_figures(&pair.b).durable_epoch, 2);
    pair_fill(pair.b.top[0], 0, 0x41, 10); /* it is a disk now */
    assert_bytes(pair.b.disk[0], 0, 0x41, 10);
}

/* Failover, and the other direction, again and again. */
static void test_failback(void **state)
{
    struct pair_side s;

    (void)state;
    for (int i = 0; i < 6; i++) {
        pair_protect();
        pair_fill(pair.a.top[i % 2], 1000, (uint8_t)(0x50 + i), 5000);
        pair_checkpoint();
        pair_fill(pair.a.top[0], 0, 0xee, 100000); /* lost */
        assert_true(pair_stop(&pair.b, true, NULL));
        assert_true(pair_stop(&pair.a, false, NULL)); /* or it died */
        assert_bytes(pair.b.disk[i % 2], 1000, (uint8_t)(0x50 + i), 5000);
        assert_bytes(pair.b.disk[0], 50000, 0, 5000);
        s = pair.a;
        pair.a = pair.b;
        pair.b = s;
        pair.epoch = 0;
        /* The journal's place is the side's: its opaque points at the struct. */
        pair.a.no_journal = pair.b.no_journal = false;
    }
}

static void test_stop_without_failover_keeps_whole_epochs_too(void **state)
{
    (void)state;
    pair_protect();
    pair_fill(pair.a.top[0], 0, 1, 100);
    pair_checkpoint();
    pair_fill(pair.a.top[0], 0, 2, 100);
    assert_true(pair_messages(2, NULL));
    assert_true(pair_stop(&pair.b, false, NULL));
    assert_bytes(pair.b.disk[0], 0, 1, 100);
}

static void await_durable(uint64_t epoch)
{
    while (pair_figures(&pair.b).durable_epoch < epoch)
        task_sleep_until(clock_now() + NS_PER_MS);
}

static void test_empty_epochs(void **state)
{
    (void)state;
    pair_protect();
    for (int i = 0; i < 50; i++)
        pair_checkpoint();
    await_durable(51);
    pair_fill(pair.a.top[0], 5, 5, 5);
    pair_checkpoint();
    assert_true(pair_stop(&pair.b, true, NULL));
    assert_true(pair_equal());
    assert_int_equal(pair_figures(&pair.b).durable_epoch, 52);
}

static void test_wrong_epoch(void **state)
{
    Error *err = NULL;

    (void)state;
    pair_protect();
    pair_enter(&pair.a);
    assert_false(checkpoint_devices_postsuspend(3, &err));
    pair_expect_error(err, "disks: epoch 3 ends, but the one that runs is 2");
    pair_checkpoint();
    assert_true(pair_stop(&pair.a, false, NULL));
    assert_true(checkpoint_devices_postsuspend(77, NULL)); /* nothing runs, nothing ends */
}

/* --- errors of the backup --- */

static void test_backup_disk_fails_in_sync(void **state)
{
    Error *err = NULL;

    (void)state;
    memset(pair.a.disk[0]->bytes, 1, SIZE);
    pair_start();
    pair.b.disk[0]->errors[BLOCK_READ] = EIO;
    assert_false(pair_try_sync(&err));
    pair_expect_error(err, "disk root: cannot read");
    err = NULL;
    assert_true(pair_stop(&pair.b, false, NULL));
    assert_true(pair_stop(&pair.a, false, NULL));
    pair.b.disk[0]->errors[BLOCK_READ] = 0;
    pair_start();
    pair.b.disk[0]->errors[BLOCK_WRITE] = ENOSPC;
    assert_false(pair_try_sync(&err));
    pair_expect_error(err, "disk root: cannot write");
    pair.b.disk[0]->errors[BLOCK_WRITE] = 0;
}

/* Acknowledged and not to be put in place: told, and nothing may use what is there. */
static void test_backup_disk_fails_in_standby(void **state)
{
    Error *err = NULL;

    (void)state;
    pair_protect();
    pair.b.disk[1]->errors[BLOCK_WRITE] = EIO;
    pair_fill(pair.a.top[1], 0, 1, 100);
    pair_end_epoch();
    pair_try_finish_epoch(NULL); /* it may be told with this epoch, or later */
    assert_false(pair_stop(&pair.b, true, &err));
    pair_expect_error(err, "disk data: cannot write");
    pair.b.disk[1]->errors[BLOCK_WRITE] = 0;
    assert_state("UNUSABLE");
}

static void test_journal_fails(void **state)
{
    Error *err = NULL;

    (void)state;
    pair_protect();
    pair.b.journal->errors[BLOCK_WRITE] = EIO;
    pair_fill(pair.a.top[1], 0, 1, 100);
    pair_end_epoch();
    pair_try_finish_epoch(NULL);
    pair_enter(&pair.b);
    assert_false(pair_stop(&pair.b, false, &err));
    pair_expect_error(err, "journal");
    assert_state("UNUSABLE");
}

static void test_verification(void **state)
{
    Error *err = NULL;

    (void)state;
    for (unsigned i = 0; i < SIZE; i++)
        pair.a.disk[0]->bytes[i] = (uint8_t)(i * 7);
    replication_group_verify(pair.a.group, 1 << 20); /* nothing to compare with */
    pair_start();
    replication_group_verify(pair.a.group, 1 << 20);
    assert_int_equal(pair_figures(&pair.a).verified, 0);
    pair_sync();
    replication_group_verify(pair.a.group, 1 << 20); /* of the first epoch, too */
    pair_checkpoint();
    pair_fill(pair.a.top[0], 70000, 9, 100);
    replication_group_verify(pair.a.group, 1 << 20);
    pair_fill(pair.a.top[0], 0, 9, 100);
    assert_int_equal(pair_figures(&pair.a).verified,
                     2 * (SIZE + SIZE + 1000)); /* nothing twice in one epoch */
    pair_checkpoint();
    assert_true(pair_stop(&pair.b, false, NULL));
    assert_true(pair_equal());

    assert_true(pair_stop(&pair.a, false, NULL));
    pair.epoch = 0;
    pair_protect();
    pair.b.disk[1]->bytes[SIZE + 500] ^= 1; /* in its last chunk */
    replication_group_verify(pair.a.group, 1 << 20);
    pair_end_epoch();
    pair_try_finish_epoch(NULL);
    assert_false(pair_stop(&pair.b, true, &err));
    pair_expect_error(err, "disk data: 4392 bytes at 196608 differ from the primary's");
}

/* --- a swap --- */

/* b's machine was the last to run: its disks are whole until something is written to them. */
static void test_target_that_ran_last(void **state)
{
    bool more;
    Error *err = NULL;

    (void)state;
    assert_true(pair_start_side(&pair.b, REPLICATION_MODE_PRIMARY, NULL));
    assert_true(pair_stop(&pair.b, false, NULL));
    assert_true(pair_start_side(&pair.b, REPLICATION_MODE_SECONDARY, NULL));
    assert_true(pair_stop(&pair.b, true, NULL));
    assert_state("PASSIVE");
    memset(pair.a.disk[0]->bytes, 1, SIZE);
    pair_start();
    assert_true(pair_sync_step(&more, NULL));
    assert_true(pair_messages(1, NULL));
    assert_false(pair_stop(&pair.b, true, &err));
    pair_expect_error(err, "half of one copy");
    assert_state("UNUSABLE");
}

/* --- planted --- */

static void test_planted_takeover_of_half_synced(void **state)
{
    bool more;

    (void)state;
    memset(pair.a.disk[0]->bytes, 1, SIZE);
    pair_start();
    assert_true(pair_sync_step(&more, NULL));
    fault_arm("disks.takeover_of_half_synced", 0);
    assert_true(pair_stop(&pair.b, true, NULL)); /* what the tests above would find */
    assert_state("PASSIVE");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation_in_every_state),
        TEST(test_no_checkpoint_before_the_sync_is_over),
        TEST(test_sync_without_journal),
        TEST(test_no_disks),
        TEST(test_members),
        TEST(test_epoch_is_visible_with_its_checkpoint),
        TEST(test_takeover_drops_the_epoch_that_is_not_whole),
        TEST(test_failback),
        TEST(test_stop_without_failover_keeps_whole_epochs_too),
        TEST(test_empty_epochs),
        TEST(test_wrong_epoch),
        TEST(test_backup_disk_fails_in_sync),
        TEST(test_backup_disk_fails_in_standby),
        TEST(test_journal_fails),
        TEST(test_verification),
        TEST(test_target_that_ran_last),
        TEST(test_planted_takeover_of_half_synced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
