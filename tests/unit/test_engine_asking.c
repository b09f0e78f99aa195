/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two engines that see each other no more: what the arbiter, the user and the peer have to say. */
#include "fake_world.h"

#include "engine/session.h"
#include <perdure/replication.h>

/* Both sides live, and see each other no more. */
static void cut(struct side *s)
{
    link_down(&s->e->session->link, "the cable was pulled");
}

static bool session_is_over(void *arg)
{
    struct side *s = arg;
    bool over;

    task_lock(&s->e->lock);
    over = s->e->session_ended;
    task_unlock(&s->e->lock);
    return over;
}

/* The arbiter is the user, so the backup cannot know; its primary comes back and tells. */
static void test_backup_is_told_that_the_primary_went_on(void **state)
{
    struct world *w = *state;

    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "manual");
    for (int i = 0; i < 2; i++) {
        protect(w, &w->a);
        cut(&w->a);
        await(w->a.e, ENGINE_UNPROTECTED, 0);
        await(w->b.e, ENGINE_ASKING, 0);
    }
    protect(w, &w->a);
    assert_non_null(strstr(status_of(&w->b).report, "the primary was granted, and said so"));
    engine_free(w->a.e);
    w->a.e = NULL;
    await(w->b.e, ENGINE_ASKING, 0);
    assert_true(engine_failover(w->b.e, true, NULL));
    assert_goes_on(&w->b);
}

/* The user was quicker than the primary: who took over is nobody's standby. */
static void test_primary_went_on_too_late(void **state)
{
    struct world *w = *state;
    Error *err = NULL;

    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "manual");
    protect(w, &w->a);
    cut(&w->a);
    await(w->a.e, ENGINE_UNPROTECTED, 0);
    await(w->b.e, ENGINE_ASKING, 0);
    assert_true(engine_failover(w->b.e, true, NULL));
    assert_false(engine_protect(w->a.e, &w->params, false, &err));
    assert_non_null(strstr(error_get_pretty(err), "runs here as the primary"));
    error_free(err);
}

/* --- an arbiter in the test's hand --- */

#define ORACLE_HANGS 99

/* By side: its answer, how often it gave one, and does a question hang. */
static int oracle[2], oracle_asked[2], oracle_hangs[2];

static enum arbiter_answer oracle_claim(Arbiter *a, const struct arbiter_claim *c, int64_t deadline,
                                        Error **errp)
{
    int answer = __atomic_load_n(&oracle[c->side], __ATOMIC_ACQUIRE);

    (void)a;
    __atomic_fetch_add(&oracle_asked[c->side], 1, __ATOMIC_ACQ_REL);
    if (answer == ORACLE_HANGS) {
        __atomic_store_n(&oracle_hangs[c->side], 1, __ATOMIC_RELEASE);
        while (!arbiter_gave_up(c, deadline + 600 * NS_PER_S))
            task_sleep_until(clock_now() + NS_PER_MS);
        answer = ARBITER_UNKNOWN;
    }
    if (answer == ARBITER_UNKNOWN)
        error_setg(errp, "the oracle is silent");
    return (enum arbiter_answer)answer;
}

static void oracle_free(Arbiter *a)
{
    free(a);
}

static Arbiter *oracle_new(const char *spec, Error **errp)
{
    static const struct arbiter_ops ops = {.claim = oracle_claim, .free = oracle_free};
    Arbiter *a = strcmp(spec, "delphi") ? NULL : calloc(1, sizeof(*a));

    (void)errp;
    if (a)
        a->ops = &ops;
    return a;
}

static void oracle_says(enum arbiter_side side, enum arbiter_answer answer)
{
    __atomic_store_n(&oracle[side], answer, __ATOMIC_RELEASE);
}

static bool asked_again(void *arg)
{
    enum arbiter_side *side = arg;

    return __atomic_load_n(&oracle_asked[*side], __ATOMIC_ACQUIRE) > 0;
}

static void await_question(enum arbiter_side side)
{
    __atomic_store_n(&oracle_asked[side], 0, __ATOMIC_RELEASE);
    wait_until(asked_again, &side, "a question to the arbiter");
}

/* --- a backup that was permitted to run --- */

static void answer_late(void *arg)
{
    (void)arg;
    await_question(ARBITER_BACKUP); /* has been asked in vain, and asks again */
    await_question(ARBITER_BACKUP);
    oracle_says(ARBITER_BACKUP, ARBITER_GRANTED);
}

/* The arbiter writes the claim down, and its answer is lost. Whoever gave up then would leave both sides denied, if his
 * word was lost as well. */
static void test_lost_answer_in_a_swap(void **state)
{
    struct world *w = *state;
    Error *err = NULL;
    Task *oracle_task;

    oracle_says(ARBITER_PRIMARY, ARBITER_DENIED);
    oracle_says(ARBITER_BACKUP, ARBITER_UNKNOWN);
    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "delphi");
    protect(w, &w->a);
    oracle_task = task_start("oracle", answer_late, NULL, NULL);
    if (!engine_swap(w->a.e, false, &err))
        fail_msg("swap: %s", error_get_pretty(err));
    task_join(oracle_task);
    await(w->b.e, ENGINE_PROTECTED, 0);
    assert_goes_on(&w->b);
}

/* --- a backup that cannot take over --- */

static bool fails_once_asking(ReplicationState *rs, Error **errp)
{
    struct world *w = rs->opaque;

    if (status_of(&w->b).state != ENGINE_ASKING)
        return true;
    error_setg(errp, "the journal's disk is broken");
    return false;
}

/* It would be granted, the primary be denied, and the guest run nowhere. */
static void test_backup_with_a_broken_disk_does_not_claim(void **state)
{
    static ReplicationOps ops = {.get_error = fails_once_asking};
    struct world *w = *state;
    ReplicationState *rs = replication_new(w, &ops);

    oracle_says(ARBITER_PRIMARY, ARBITER_UNKNOWN);
    oracle_says(ARBITER_BACKUP, ARBITER_GRANTED);
    oracle_asked[ARBITER_BACKUP] = 0;
    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "delphi");
    protect(w, &w->a);
    cut(&w->a);
    await(w->b.e, ENGINE_LISTENING, 0);
    assert_int_equal(oracle_asked[ARBITER_BACKUP], 0);
    assert_non_null(strstr(status_of(&w->b).last_error, "does not take over: the journal's disk is broken"));
    oracle_says(ARBITER_PRIMARY, ARBITER_GRANTED);
    await(w->a.e, ENGINE_UNPROTECTED, 0);
    assert_goes_on(&w->a);
    replication_remove(rs);
}

/* --- the user's word, and the arbiter's after it --- */

/* Both sides ask in vain. */
static void lose_each_other(struct world *w)
{
    oracle_says(ARBITER_PRIMARY, ARBITER_UNKNOWN);
    oracle_says(ARBITER_BACKUP, ARBITER_UNKNOWN);
    memset(oracle_hangs, 0, sizeof(oracle_hangs));
    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "delphi");
    protect(w, &w->a);
    cut(&w->a);
    await(w->a.e, ENGINE_ASKING, 0);
    await(w->b.e, ENGINE_ASKING, 0);
}

static void force(struct world *w)
{
    Error *err = NULL;

    lose_each_other(w);
    assert_false(engine_unprotect(w->a.e, false, &err));
    assert_non_null(strstr(error_get_pretty(err), "the oracle is silent"));
    error_free(err);
    assert_true(engine_unprotect(w->a.e, true, NULL));
    assert_int_equal(status_of(&w->a).state, ENGINE_UNPROTECTED);
    assert_goes_on(&w->a);
    await_question(ARBITER_PRIMARY);
}

/* The guest is held by the engine: not another step. */
static void assert_stands_still(struct side *s)
{
    uint64_t step;

    task_lock(&s->g->lock);
    step = s->g->step;
    assert_true(s->g->pausing && s->g->standing);
    task_unlock(&s->g->lock);
    task_sleep_until(clock_now() + 20 * NS_PER_MS);
    task_lock(&s->g->lock);
    assert_int_equal(s->g->step, step);
    task_unlock(&s->g->lock);
}

static void test_forced_primary_is_granted_late(void **state)
{
    struct world *w = *state;
    Error *err = NULL;

    force(w);
    /* Not before the arbiter has spoken is the backup told: it may have been granted. */
    assert_false(engine_protect(w->a.e, &w->params, false, &err));
    assert_non_null(strstr(error_get_pretty(err), "busy (ASKING)"));
    error_free(err);
    await_question(ARBITER_PRIMARY); /* what was refused has not ended the asking */
    oracle_says(ARBITER_PRIMARY, ARBITER_GRANTED);
    wait_until(session_is_over, &w->a, "the end of the asking");
    assert_non_null(strstr(status_of(&w->a).report, "granted now"));
    assert_goes_on(&w->a);
    protect(w, &w->a);
    assert_non_null(strstr(status_of(&w->b).report, "the primary was granted, and said so"));
}

static void test_forced_primary_is_denied_late(void **state)
{
    struct world *w = *state;
    Error *err = NULL;

    force(w);
    oracle_says(ARBITER_BACKUP, ARBITER_GRANTED);
    oracle_says(ARBITER_PRIMARY, ARBITER_DENIED);
    await(w->a.e, ENGINE_FENCED, 0);
    assert_stands_still(&w->a);
    assert_non_null(strstr(status_of(&w->a).report, "denied after all"));
    assert_false(engine_protect(w->a.e, &w->params, false, &err));
    error_free(err);
    await(w->b.e, ENGINE_UNPROTECTED, 0);
}

/* A guest that cannot even be paused: nothing of it leaves. */
static void test_denied_guest_that_does_not_pause(void **state)
{
    struct world *w = *state;
    uint64_t released, step;

    lose_each_other(w);
    __atomic_store_n(&w->a.g->pauses_fail, 2, __ATOMIC_RELEASE);
    oracle_says(ARBITER_PRIMARY, ARBITER_DENIED);
    await(w->a.e, ENGINE_FENCED, 0);
    assert_true(held());
    task_lock(&output.lock);
    released = output.released;
    task_unlock(&output.lock);
    step = look(&w->a);
    wait_until(advanced, &(struct advance){&w->a, step + 20}, "the guest to run on");
    task_lock(&output.lock);
    assert_int_equal(output.released, released);
    task_unlock(&output.lock);
    checkpoint_devices_teardown(true); /* the next test has the same devices */
}

/* Here only the pause keeps it from being seen: tried until it works. */
static void test_late_denied_guest_that_does_not_pause(void **state)
{
    struct world *w = *state;

    force(w);
    __atomic_store_n(&w->a.g->pauses_fail, 2, __ATOMIC_RELEASE);
    oracle_says(ARBITER_PRIMARY, ARBITER_DENIED);
    await(w->a.e, ENGINE_FENCED, 0);
    assert_stands_still(&w->a);
}

/* A new protection has the session's place. */
static void test_forced_primary_is_protected_elsewhere(void **state)
{
    struct world *w = *state;

    force(w);
    engine_free(w->b.e);
    w->t->down = false;
    side_open(w, &w->b, "vm");
    assert_true(engine_listen(w->b.e, NULL, NULL));
    protect(w, &w->a);
    oracle_says(ARBITER_PRIMARY, ARBITER_DENIED);
    await(w->a.e, ENGINE_PROTECTED, status_of(&w->a).epoch + 10);
}

static void test_forced_primary_quits(void **state)
{
    struct world *w = *state;

    force(w);
    engine_free(w->a.e);
    w->a.e = NULL;
}

static void unprotect_is_done(void *arg)
{
    struct side *s = arg;

    assert_true(engine_unprotect(s->e, false, NULL));
}

static void next_session(Engine *e, int by)
{
    task_lock(&e->lock);
    e->session_number += (uint64_t)by;
    e->unknowns = 0;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
}

/* Another user was quick: when the one who waits for the end of a protection wakes up, the next has begun. */
static void test_waits_for_one_session_only(void **state)
{
    struct world *w = *state;
    Task *t;

    lose_each_other(w);
    oracle_says(ARBITER_PRIMARY, (enum arbiter_answer)ORACLE_HANGS);
    wait_until(nonzero, &oracle_hangs[ARBITER_PRIMARY], "a question that hangs");
    next_session(w->a.e, 0); /* no answer yet: unprotect waits */
    t = task_start("unprotect", unprotect_is_done, &w->a, NULL);
    while (!engine_wishes(w->a.e).unprotect)
        task_sleep_until(clock_now() + NS_PER_MS);
    next_session(w->a.e, 1);
    task_join(t);
}

static void wait_for_unprotect(void *arg)
{
    struct side *s = arg;
    Error *err = NULL;

    assert_false(engine_unprotect(s->e, false, &err));
    assert_string_equal(error_get_pretty(err), "'vm' ends");
    error_free(err);
}

/* An arbiter that hangs keeps neither the end of the process nor a command that waits. */
static void test_quit_while_the_arbiter_hangs(void **state)
{
    struct world *w = *state;
    Task *t;

    lose_each_other(w);
    oracle_says(ARBITER_PRIMARY, (enum arbiter_answer)ORACLE_HANGS);
    oracle_says(ARBITER_BACKUP, (enum arbiter_answer)ORACLE_HANGS);
    for (int side = 0; side < 2; side++)
        wait_until(nonzero, &oracle_hangs[side], "a question that hangs");
    next_session(w->a.e, 0); /* no answer yet: unprotect waits */
    t = task_start("unprotect", wait_for_unprotect, &w->a, NULL);
    while (!engine_wishes(w->a.e).unprotect)
        task_sleep_until(clock_now() + NS_PER_MS);
    engine_quit(w->a.e);
    task_join(t);
    engine_free(w->a.e);
    w->a.e = NULL;
}

/* The same for a backup that its user let run. */
static void test_vouched_backup_is_denied_late(void **state)
{
    struct world *w = *state;

    lose_each_other(w);
    assert_true(engine_failover(w->b.e, true, NULL));
    assert_goes_on(&w->b);
    await_question(ARBITER_BACKUP);
    oracle_says(ARBITER_PRIMARY, ARBITER_GRANTED);
    oracle_says(ARBITER_BACKUP, ARBITER_DENIED);
    await(w->b.e, ENGINE_FENCED, 0);
    assert_stands_still(&w->b);
    await(w->a.e, ENGINE_UNPROTECTED, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_backup_is_told_that_the_primary_went_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_primary_went_on_too_late, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lost_answer_in_a_swap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_backup_with_a_broken_disk_does_not_claim, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_forced_primary_is_granted_late, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_forced_primary_is_denied_late, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_denied_guest_that_does_not_pause, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_late_denied_guest_that_does_not_pause, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_forced_primary_is_protected_elsewhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_forced_primary_quits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_waits_for_one_session_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_quit_while_the_arbiter_hangs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_vouched_backup_is_denied_late, set_up, tear_down),
    };

    arbiter_set_factory(oracle_new);
    world_register();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
