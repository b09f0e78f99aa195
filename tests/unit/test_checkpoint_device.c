/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/task.h"
#include "registry/context.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/*
 * Three implementations: nic_picky takes NICs whose id begins with "p"; nic takes every other but those with
 * an "x"; disk takes disks. What a fake device does is in struct fake.
 */
struct fake {
    CheckpointDevice dev;
    const char *fail; /* "u" setup, "s" postsuspend, "r" preresume, "c" commit */
    bool silent;
    bool later; /* setup answers from a thread */
    Task *thread;
    bool removes_itself;
};

static char calls[1024];
static struct task_mutex calls_lock;

static void note(CheckpointDevice *dev, const char *what)
{
    size_t n;

    task_lock(&calls_lock);
    n = strlen(calls);
    snprintf(calls + n, sizeof(calls) - n, "%s%s:%s", n ? " " : "", dev->id, what);
    task_unlock(&calls_lock);
}

static bool said_no(CheckpointDevice *dev, char op, Error **errp)
{
    struct fake *f = dev->opaque;

    if (!f->fail || !strchr(f->fail, op))
        return false;
    if (!f->silent)
        error_setg(errp, "%s failed in %c", dev->id, op);
    return true;
}

static void answer(CheckpointDevice *dev)
{
    Error *err = NULL;
    bool no = said_no(dev, 'u', &err);

    note(dev, no ? "fails" : "ready");
    checkpoint_device_setup_done(dev, no ? CHECKPOINT_DEVICE_FAILED : CHECKPOINT_DEVICE_READY, err);
}

static void answer_later(void *arg)
{
    task_sleep_until(clock_now() + 5 * NS_PER_MS);
    answer(arg);
}

static void matched(CheckpointDevice *dev)
{
    struct fake *f = dev->opaque;

    if (f->later)
        f->thread = task_start("answer", answer_later, dev, NULL);
    else
        answer(dev);
}

static void picky_setup(CheckpointDevice *dev)
{
    note(dev, "picky");
    if (dev->id[0] == 'p')
        matched(dev);
    else
        checkpoint_device_setup_done(dev, CHECKPOINT_DEVICE_NO_MATCH, NULL);
}

static void nic_setup(CheckpointDevice *dev)
{
    note(dev, "nic");
    if (!strchr(dev->id, 'x'))
        matched(dev);
    else
        checkpoint_device_setup_done(dev, CHECKPOINT_DEVICE_NO_MATCH, NULL);
}

static void plain_teardown(CheckpointDevice *dev, bool discard)
{
    struct fake *f = dev->opaque;

    note(dev, discard ? "down!" : "down");
    if (f->removes_itself)
        checkpoint_device_remove(dev);
}

static bool op_postsuspend(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    (void)epoch;
    note(dev, "s");
    return !said_no(dev, 's', errp);
}

static bool op_preresume(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    (void)epoch;
    note(dev, "r");
    return !said_no(dev, 'r', errp);
}

static bool op_commit(CheckpointDevice *dev, uint64_t epoch, Error **errp)
{
    char text[24];
    bool no = said_no(dev, 'c', errp);
    struct fake *f = dev->opaque;

    snprintf(text, sizeof(text), "c%d", (int)epoch);
    note(dev, text);
    if (f->removes_itself)
        checkpoint_device_remove(dev);
    return !no;
}

static const CheckpointDeviceOps picky_ops = {
    .name = "picky", .kind = CHECKPOINT_DEVICE_NIC, .setup = picky_setup, .teardown = plain_teardown};
static const CheckpointDeviceOps nic_ops = {.name = "nic",
                                            .kind = CHECKPOINT_DEVICE_NIC,
                                            .setup = nic_setup,
                                            .teardown = plain_teardown,
                                            .postsuspend = op_postsuspend,
                                            .preresume = op_preresume,
                                            .commit = op_commit};
static const CheckpointDeviceOps disk_ops = {
    .name = "disk", .kind = CHECKPOINT_DEVICE_DISK, .setup = matched, .commit = op_commit};

static struct fake n0, n1, p0, d0;

static void add(struct fake *f, const char *id, enum CheckpointDeviceKind kind)
{
    f->dev = (CheckpointDevice){.id = id, .kind = kind, .opaque = f};
    assert_true(checkpoint_device_add(&f->dev, NULL));
}

static int begin(void **state)
{
    (void)state;
    calls[0] = 0;
    n0 = n1 = p0 = d0 = (struct fake){0};
    add(&n0, "n0", CHECKPOINT_DEVICE_NIC);
    add(&p0, "p0", CHECKPOINT_DEVICE_NIC);
    add(&d0, "d0", CHECKPOINT_DEVICE_DISK);
    return 0;
}

static int end(void **state)
{
    struct fake *const all[] = {&n0, &n1, &p0, &d0};

    (void)state;
    for (int i = 0; i < 4; i++) {
        task_join(all[i]->thread);
        checkpoint_device_remove(&all[i]->dev);
    }
    assert_null(registry_context_current()->checkpoint.first);
    assert_null(registry_context_current()->checkpoint.walks);
    checkpoint_devices_set_listener(NULL, NULL);
    return 0;
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

static void test_cycle(void **state)
{
    Error *err = NULL;

    (void)state;
    assert_true(checkpoint_devices_setup_wait(&err));
    assert_calls("n0:picky n0:nic n0:ready p0:picky p0:ready d0:ready");
    assert_true(checkpoint_devices_postsuspend(7, &err));
    assert_true(checkpoint_devices_preresume(7, &err));
    assert_true(checkpoint_devices_commit(7, &err));
    assert_null(err);
    assert_calls("n0:s n0:r n0:c7 d0:c7");
    checkpoint_devices_teardown(true);
    assert_calls("n0:down! p0:down!");
    /* Torn down is torn down. */
    checkpoint_devices_teardown(false);
    assert_true(checkpoint_devices_commit(8, &err));
    assert_calls("");
}

static void count_answer(void *opaque, Error *err)
{
    int *answers = opaque;

    error_free(err);
    ++*answers;
}

static void test_one_answer(void **state)
{
    int answers = 0;

    (void)state;
    checkpoint_devices_setup(count_answer, &answers);
    assert_int_equal(answers, 1);
    checkpoint_devices_teardown(false);
    n0.fail = p0.fail = d0.fail = "u";
    checkpoint_devices_setup(count_answer, &answers);
    assert_int_equal(answers, 2);
    checkpoint_devices_teardown(false);
}

static void test_no_devices(void **state)
{
    int answers = 0;

    (void)state;
    checkpoint_device_remove(&n0.dev);
    checkpoint_device_remove(&p0.dev);
    checkpoint_device_remove(&d0.dev);
    checkpoint_devices_setup(count_answer, &answers);
    assert_int_equal(answers, 1);
    assert_true(checkpoint_devices_setup_wait(NULL));
    assert_true(checkpoint_devices_postsuspend(1, NULL));
    checkpoint_devices_teardown(false);
}

static void test_answers_from_threads(void **state)
{
    (void)state;
    n0.later = p0.later = d0.later = true;
    assert_true(checkpoint_devices_setup_wait(NULL));
    assert_true(checkpoint_devices_commit(1, NULL));
    assert_non_null(strstr(calls, "n0:c1 d0:c1"));
    checkpoint_devices_teardown(false);
}

/* The others settle although one failed; all that matched are torn down, the failed one too; the error
 * survives it. */
static void test_failure_in_each_position(void **state)
{
    struct fake *const all[] = {&n0, &p0, &d0};
    static const char *const text[] = {"device n0: n0 failed in u", "device p0: p0 failed in u",
                                       "device d0: d0 failed in u"};

    (void)state;
    for (int later = 0; later < 2; later++) {
        for (int i = 0; i < 3; i++) {
            Error *err = NULL;

            all[i]->fail = "u";
            all[i]->later = later;
            assert_false(checkpoint_devices_setup_wait(&err));
            calls[0] = 0;
            assert_true(checkpoint_devices_commit(1, NULL));
            assert_null(strstr(calls, all[i]->dev.id));
            calls[0] = 0;
            checkpoint_devices_teardown(false);
            assert_calls("n0:down p0:down");
            assert_error(err, text[i]);
            assert_string_equal(error_get_pretty(all[i]->dev.err), text[i]);
            all[i]->fail = NULL;
            all[i]->later = false;
            task_join(all[i]->thread);
            all[i]->thread = NULL;
        }
    }
    assert_true(checkpoint_devices_setup_wait(NULL));
    checkpoint_devices_teardown(false);
}

static void test_first_error_in_time(void **state)
{
    Error *err = NULL;

    (void)state;
    n0.fail = d0.fail = "u";
    n0.later = true;
    assert_false(checkpoint_devices_setup_wait(&err));
    assert_error(err, "device d0: d0 failed in u");
    checkpoint_devices_teardown(false);
}

static void test_failure_without_a_reason(void **state)
{
    Error *err = NULL;

    (void)state;
    n0.fail = "u";
    n0.silent = true;
    assert_false(checkpoint_devices_setup_wait(&err));
    assert_error(err, "device n0: nic failed and gave no reason");
    checkpoint_devices_teardown(false);
}

static void test_not_supported_is_named(void **state)
{
    Error *err = NULL;

    (void)state;
    add(&n1, "nx", CHECKPOINT_DEVICE_NIC);
    assert_false(checkpoint_devices_setup_wait(&err));
    assert_int_equal(error_get_errno(err), ENOTSUP);
    assert_error(err,
                 "device nx: no implementation of checkpointing a nic takes it: Operation not supported");
    assert_calls("n0:picky n0:nic n0:ready p0:picky p0:ready d0:ready nx:picky nx:nic");
    /* What did not match is not torn down. */
    checkpoint_devices_teardown(false);
    assert_calls("n0:down p0:down");
}

static void test_kind_without_implementations(void **state)
{
    Error *err = NULL;

    (void)state;
    add(&n1, "con", CHECKPOINT_DEVICE_CONSOLE);
    assert_false(checkpoint_devices_setup_wait(&err));
    assert_error(
        err, "device con: no implementation of checkpointing a console takes it: Operation not supported");
    assert_false(checkpoint_devices_setup_wait(NULL));
    checkpoint_devices_teardown(false);
}

/* Everyone is reached, the first error counts. */
static void test_errors_of_a_checkpoint(void **state)
{
    Error *err = NULL;

    (void)state;
    n0.fail = "src";
    d0.fail = "c";
    assert_true(checkpoint_devices_setup_wait(NULL));
    calls[0] = 0;
    assert_false(checkpoint_devices_postsuspend(1, &err));
    assert_error(err, "n0 failed in s");
    assert_false(checkpoint_devices_preresume(1, NULL));
    err = NULL;
    assert_false(checkpoint_devices_commit(1, &err));
    assert_error(err, "n0 failed in c");
    n0.silent = true;
    err = NULL;
    assert_false(checkpoint_devices_commit(2, &err));
    assert_error(err, "a device under checkpointing failed its commit of epoch 2 and gave no reason");
    assert_calls("n0:s n0:r n0:c1 d0:c1 n0:c2 d0:c2");
    checkpoint_devices_teardown(false);
}

static void test_second_setup_is_refused(void **state)
{
    Error *err = NULL;

    (void)state;
    assert_true(checkpoint_devices_setup_wait(NULL));
    assert_false(checkpoint_devices_setup_wait(&err));
    assert_error(err, "device n0: was set up before and not torn down");
    assert_true(checkpoint_devices_commit(1, NULL));
    checkpoint_devices_teardown(false);
}

static void refuse_again(void *opaque, Error *err)
{
    Error **ret = opaque;

    *ret = err;
}

static void test_setup_during_setup_is_refused(void **state)
{
    int answers = 0;
    Error *err = NULL;

    (void)state;
    n0.later = true;
    checkpoint_devices_setup(count_answer, &answers);
    checkpoint_devices_setup(refuse_again, &err);
    assert_error(err, "the devices under checkpointing are being set up already");
    task_join(n0.thread);
    n0.thread = NULL;
    assert_int_equal(answers, 1);
    checkpoint_devices_teardown(false);
}

static void test_second_answer_is_ignored(void **state)
{
    Error *err = NULL;

    (void)state;
    assert_true(checkpoint_devices_setup_wait(NULL));
    error_setg(&err, "too late");
    checkpoint_device_setup_done(&n0.dev, CHECKPOINT_DEVICE_FAILED, err);
    checkpoint_device_setup_done(&n0.dev, CHECKPOINT_DEVICE_NO_MATCH, NULL);
    calls[0] = 0;
    assert_true(checkpoint_devices_preresume(1, NULL));
    assert_calls("n0:r");
    checkpoint_devices_teardown(false);
}

static void test_same_id_is_refused(void **state)
{
    CheckpointDevice again = {.id = "n0", .kind = CHECKPOINT_DEVICE_DISK};
    Error *err = NULL;

    (void)state;
    assert_false(checkpoint_device_add(&again, &err));
    assert_error(err, "device n0: the id is taken by another device under checkpointing");
}

static void test_removal_tears_down_and_discards(void **state)
{
    (void)state;
    assert_true(checkpoint_devices_setup_wait(NULL));
    calls[0] = 0;
    checkpoint_device_remove(&n0.dev);
    assert_calls("n0:down!");
    checkpoint_device_remove(&n0.dev);
    assert_true(checkpoint_devices_commit(1, NULL));
    assert_calls("d0:c1");
    checkpoint_devices_teardown(false);
}

static void test_removal_during_a_walk(void **state)
{
    (void)state;
    add(&n1, "n1", CHECKPOINT_DEVICE_NIC);
    assert_true(checkpoint_devices_setup_wait(NULL));
    calls[0] = 0;
    n0.removes_itself = n1.removes_itself = true;
    assert_true(checkpoint_devices_commit(3, NULL));
    assert_calls("n0:c3 n0:down! d0:c3 n1:c3 n1:down!");
    checkpoint_devices_teardown(false);
    assert_calls("p0:down");
}

/* A device that came after the setup waits for the next one. */
static void test_late_device(void **state)
{
    (void)state;
    assert_true(checkpoint_devices_setup_wait(NULL));
    add(&n1, "n1", CHECKPOINT_DEVICE_NIC);
    calls[0] = 0;
    assert_true(checkpoint_devices_commit(1, NULL));
    checkpoint_devices_teardown(true);
    assert_calls("n0:c1 d0:c1 n0:down! p0:down!");
}

static void count_wakeup(void *opaque)
{
    ++*(int *)opaque;
}

static void test_listener(void **state)
{
    int wakeups = 0;

    (void)state;
    checkpoint_device_output_waiting(&n0.dev);
    checkpoint_devices_set_listener(count_wakeup, &wakeups);
    checkpoint_device_output_waiting(&n0.dev);
    checkpoint_devices_set_listener(NULL, NULL);
    checkpoint_device_output_waiting(&n0.dev);
    assert_int_equal(wakeups, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_cycle),
        TEST(test_one_answer),
        TEST(test_no_devices),
        TEST(test_answers_from_threads),
        TEST(test_failure_in_each_position),
        TEST(test_first_error_in_time),
        TEST(test_failure_without_a_reason),
        TEST(test_not_supported_is_named),
        TEST(test_kind_without_implementations),
        TEST(test_errors_of_a_checkpoint),
        TEST(test_second_setup_is_refused),
        TEST(test_setup_during_setup_is_refused),
        TEST(test_second_answer_is_ignored),
        TEST(test_same_id_is_refused),
        TEST(test_removal_tears_down_and_discards),
        TEST(test_removal_during_a_walk),
        TEST(test_late_device),
        TEST(test_listener),
    };

    task_mutex_init(&calls_lock);
    checkpoint_device_register_ops(&picky_ops);
    checkpoint_device_register_ops(&nic_ops);
    checkpoint_device_register_ops(&nic_ops); /* again is fine */
    checkpoint_device_register_ops(&disk_ops);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
