/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "registry/context.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* What was called, in order: "a+P b+P" starts as primary, "-" stop, "!" stop for a failover, "c" checkpoint,
 * "e" get_error. */
static char calls[512];

struct part {
    char name;
    ReplicationState *rs;
    const char *fail;        /* the operations ("+", "-", ...) that fail */
    bool silent;             /* and say nothing */
    struct part *removes[2]; /* what goes when an operation of this part runs */
    const char *removes_in;  /* the operations where that happens; NULL: the first that comes */
    struct part *adds;
};

static bool called(ReplicationState *rs, const char *op, Error **errp)
{
    struct part *p = rs->opaque;
    bool fails = p->fail && strchr(p->fail, op[0]);
    size_t n = strlen(calls);

    snprintf(calls + n, sizeof(calls) - n, "%s%c%s", n ? " " : "", p->name, op);
    if (fails && !p->silent)
        error_setg(errp, "%c failed in %c", p->name, op[0]);
    if (p->adds)
        p->adds->rs = replication_new(p->adds, rs->ops);
    p->adds = NULL;
    for (int i = 0; i < 2; i++) {
        if (p->removes[i] && (!p->removes_in || strchr(p->removes_in, op[0]))) {
            replication_remove(p->removes[i]->rs);
            p->removes[i]->rs = NULL;
            p->removes[i] = NULL;
        }
    }
    return !fails;
}

static bool op_start(ReplicationState *rs, enum ReplicationMode mode, Error **errp)
{
    return called(rs, mode == REPLICATION_MODE_PRIMARY ? "+P" : "+S", errp);
}

static bool op_stop(ReplicationState *rs, bool failover, Error **errp)
{
    return called(rs, failover ? "!" : "-", errp);
}

static bool op_checkpoint(ReplicationState *rs, Error **errp)
{
    return called(rs, "c", errp);
}

static bool op_get_error(ReplicationState *rs, Error **errp)
{
    return called(rs, "e", errp);
}

static ReplicationOps all_ops = {op_start, op_stop, op_checkpoint, op_get_error};

static struct part a, b, c, d;

static int begin(void **state)
{
    (void)state;
    calls[0] = 0;
    a = (struct part){.name = 'a'};
    b = (struct part){.name = 'b'};
    c = (struct part){.name = 'c'};
    d = (struct part){.name = 'd'};
    a.rs = replication_new(&a, &all_ops);
    b.rs = replication_new(&b, &all_ops);
    c.rs = replication_new(&c, &all_ops);
    return 0;
}

static int end(void **state)
{
    (void)state;
    replication_remove(a.rs);
    replication_remove(b.rs);
    replication_remove(c.rs);
    replication_remove(d.rs);
    assert_null(registry_context_current()->replication.first);
    assert_null(registry_context_current()->replication.last);
    assert_null(registry_context_current()->replication.walks);
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

static void test_order_is_that_of_registration(void **state)
{
    Error *err = NULL;

    (void)state;
    assert_true(replication_start_all(REPLICATION_MODE_SECONDARY, &err));
    assert_true(replication_do_checkpoint_all(&err));
    assert_true(replication_get_error_all(&err));
    assert_true(replication_stop_all(true, &err));
    assert_null(err);
    assert_calls("a+S b+S c+S ac bc cc ae be ce a! b! c!");
}

static void test_nobody_registered(void **state)
{
    replication_remove(a.rs);
    replication_remove(b.rs);
    replication_remove(c.rs);
    a.rs = b.rs = c.rs = NULL;
    replication_remove(NULL);
    (void)state;
    assert_true(replication_start_all(REPLICATION_MODE_PRIMARY, NULL));
    assert_true(replication_do_checkpoint_all(NULL));
    assert_true(replication_get_error_all(NULL));
    assert_true(replication_stop_all(false, NULL));
}

static void test_missing_operations_are_skipped(void **state)
{
    static ReplicationOps none, only_stop = {.stop = op_stop};

    (void)state;
    a.rs->ops = &none;
    b.rs->ops = &only_stop;
    assert_true(replication_start_all(REPLICATION_MODE_PRIMARY, NULL));
    assert_true(replication_do_checkpoint_all(NULL));
    assert_true(replication_get_error_all(NULL));
    assert_true(replication_stop_all(false, NULL));
    assert_calls("c+P cc ce b- c-");
}

/* What was never started is not undone. */
static void test_undo_skips_what_has_no_start(void **state)
{
    static ReplicationOps only_stop = {.stop = op_stop};

    (void)state;
    b.rs->ops = &only_stop;
    c.fail = "+";
    assert_false(replication_start_all(REPLICATION_MODE_PRIMARY, NULL));
    assert_calls("a+P c+P a-");
}

static void test_start_fails_in_each_position(void **state)
{
    static const char *const expected[] = {"a+P", "a+P b+P a-", "a+P b+P c+P b- a-"};
    static const char *const text[] = {"a failed in +", "b failed in +", "c failed in +"};
    struct part *const parts[] = {&a, &b, &c};

    (void)state;
    for (int i = 0; i < 3; i++) {
        Error *err = NULL;

        parts[i]->fail = "+";
        assert_false(replication_start_all(REPLICATION_MODE_PRIMARY, &err));
        assert_error(err, text[i]);
        assert_calls(expected[i]);
        assert_false(replication_start_all(REPLICATION_MODE_PRIMARY, NULL));
        assert_calls(expected[i]);
        parts[i]->fail = NULL;
    }
}

static void test_undo_keeps_the_first_error_and_reaches_all(void **state)
{
    Error *err = NULL;

    (void)state;
    a.fail = b.fail = "-";
    c.fail = "+";
    assert_false(replication_start_all(REPLICATION_MODE_SECONDARY, &err));
    assert_error(err, "c failed in +");
    assert_calls("a+S b+S c+S b- a-");
}

static void test_checkpoint_and_get_error_stop_at_the_first(void **state)
{
    Error *err = NULL;

    (void)state;
    b.fail = "ce";
    c.fail = "ce";
    assert_false(replication_do_checkpoint_all(&err));
    assert_error(err, "b failed in c");
    err = NULL;
    assert_false(replication_get_error_all(&err));
    assert_error(err, "b failed in e");
    assert_false(replication_do_checkpoint_all(NULL));
    assert_false(replication_get_error_all(NULL));
    assert_calls("ac bc ae be ac bc ae be");
}

static void test_stop_reaches_everyone_first_error_reported(void **state)
{
    Error *err = NULL;

    (void)state;
    a.fail = c.fail = "!-";
    assert_false(replication_stop_all(true, &err));
    assert_error(err, "a failed in !");
    assert_false(replication_stop_all(false, NULL));
    assert_calls("a! b! c! a- b- c-");
}

static void test_a_failure_without_a_reason_gets_one(void **state)
{
    Error *err = NULL;

    (void)state;
    b.fail = "+c!";
    b.silent = true;
    assert_false(replication_start_all(REPLICATION_MODE_PRIMARY, &err));
    assert_error(err, "a replicating component could not start and gave no reason");
    err = NULL;
    assert_false(replication_do_checkpoint_all(&err));
    assert_error(err, "a replicating component could not take the checkpoint and gave no reason");
    err = NULL;
    assert_false(replication_stop_all(true, &err));
    assert_error(err, "a replicating component could not stop and gave no reason");
}

static bool true_with_error(ReplicationState *rs, Error **errp)
{
    (void)rs;
    error_setg(errp, "said yes and meant no");
    return true;
}

static void test_an_error_is_a_failure_whatever_was_returned(void **state)
{
    static ReplicationOps ops = {.get_error = true_with_error};
    Error *err = NULL;

    (void)state;
    a.rs->ops = &ops;
    assert_false(replication_get_error_all(&err));
    assert_error(err, "said yes and meant no");
}

static void test_self_removal_during_each_walk(void **state)
{
    (void)state;
    a.removes[0] = &a;
    assert_true(replication_start_all(REPLICATION_MODE_PRIMARY, NULL));
    assert_calls("a+P b+P c+P");
    c.removes[0] = &c;
    assert_true(replication_stop_all(true, NULL));
    assert_calls("b! c!");
    b.removes[0] = &b;
    assert_true(replication_do_checkpoint_all(NULL));
    assert_true(replication_get_error_all(NULL));
    assert_calls("bc");
}

static void test_removal_of_others_during_a_walk(void **state)
{
    (void)state;
    a.removes[0] = &b; /* the next one */
    assert_true(replication_do_checkpoint_all(NULL));
    assert_calls("ac cc");
    c.removes[0] = &a; /* one that was called before */
    c.removes[1] = &c;
    assert_true(replication_stop_all(false, NULL));
    assert_calls("a- c-");
}

static void test_everything_goes_at_once(void **state)
{
    (void)state;
    b.removes[0] = &c;
    b.removes[1] = &b;
    assert_true(replication_get_error_all(NULL));
    assert_calls("ae be");
}

/* A component that started and then went is not undone; one that fails and goes is not touched again. */
static void test_removal_and_undo(void **state)
{
    Error *err = NULL;

    (void)state;
    b.removes[0] = &b;
    c.fail = "+";
    c.removes[0] = &c;
    assert_false(replication_start_all(REPLICATION_MODE_PRIMARY, &err));
    assert_error(err, "c failed in +");
    assert_calls("a+P b+P c+P a-");
}

/* c's stop takes b away: the undo goes on at a, which goes too. */
static void test_removal_during_the_undo(void **state)
{
    (void)state;
    d.rs = replication_new(&d, &all_ops);
    d.fail = "+";
    c.removes[0] = &b;
    a.removes[0] = &a;
    a.removes_in = c.removes_in = "-";
    assert_false(replication_start_all(REPLICATION_MODE_PRIMARY, NULL));
    assert_calls("a+P b+P c+P d+P c- a-");
}

static void test_who_registers_during_a_walk_waits_for_the_next(void **state)
{
    (void)state;
    c.adds = &d;
    assert_true(replication_do_checkpoint_all(NULL));
    assert_calls("ac bc cc");
    assert_true(replication_do_checkpoint_all(NULL));
    assert_calls("ac bc cc dc");
}

static bool nested_get_error(ReplicationState *rs, Error **errp)
{
    (void)rs;
    return replication_stop_all(true, errp);
}

static void test_a_walk_inside_a_walk(void **state)
{
    static ReplicationOps ops = {.get_error = nested_get_error, .stop = op_stop};

    (void)state;
    a.rs->ops = &ops;
    b.removes[0] = &b;
    assert_true(replication_get_error_all(NULL));
    assert_calls("a! b! c! ce");
}

static void test_contexts_are_apart(void **state)
{
    struct registry_context *other = registry_context_new(), *before;

    (void)state;
    before = registry_context_switch(other);
    d.rs = replication_new(&d, &all_ops);
    assert_true(replication_get_error_all(NULL));
    assert_calls("de");
    replication_remove(d.rs);
    d.rs = NULL;
    assert_ptr_equal(registry_context_switch(before), other);
    registry_context_free(other);
    assert_true(replication_get_error_all(NULL));
    assert_calls("ae be ce");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_order_is_that_of_registration),
        TEST(test_nobody_registered),
        TEST(test_missing_operations_are_skipped),
        TEST(test_undo_skips_what_has_no_start),
        TEST(test_start_fails_in_each_position),
        TEST(test_undo_keeps_the_first_error_and_reaches_all),
        TEST(test_checkpoint_and_get_error_stop_at_the_first),
        TEST(test_stop_reaches_everyone_first_error_reported),
        TEST(test_a_failure_without_a_reason_gets_one),
        TEST(test_an_error_is_a_failure_whatever_was_returned),
        TEST(test_self_removal_during_each_walk),
        TEST(test_removal_of_others_during_a_walk),
        TEST(test_everything_goes_at_once),
        TEST(test_removal_and_undo),
        TEST(test_removal_during_the_undo),
        TEST(test_who_registers_during_a_walk_waits_for_the_next),
        TEST(test_a_walk_inside_a_walk),
        TEST(test_contexts_are_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
