/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A backup that moves: three engines in one process, over channels in memory. Whoever dies in which moment, the guest goes on in one
 * place, from a state that is not older than anything that was seen of it.
 */
#include "fake_world.h"

/* One side's transport: it listens at a name, and reaches the others by theirs. */
struct port {
    struct transport t;
    struct fake_transport *queue;
    struct trio *trio;
};

struct trio {
    struct side side[3];
    struct port port[3];
    struct engine_params params;
    bool unreachable; /* from the primary: the second */
    char dir[64];
};

static Channel *port_connect(struct transport *t, const char *address, int64_t deadline, Error **errp)
{
    struct port *p = t->opaque;
    int i = address[strlen(address) - 1] - 'a';

    if (i < 0 || i > 2 || (p->trio->unreachable && p == &p->trio->port[0] && i == 2)) {
        error_setg(errp, "%s: no route to host", address);
        return NULL;
    }
    return fake_connect(&p->trio->port[i].queue->t, address, deadline, errp);
}

static Channel *port_accept(struct transport *t, Error **errp)
{
    struct port *p = t->opaque;

    return fake_accept(&p->queue->t, errp);
}

static void port_shutdown(struct transport *t)
{
    struct port *p = t->opaque;

    fake_shutdown(&p->queue->t);
}

static void open_side(struct trio *w, int i)
{
    struct side *s = &w->side[i];
    struct engine_owner owner = {.opaque = s,
                                 .factory = &s->factory,
                                 .event = on_event,
                                 .promoted = on_promoted,
                                 .guest_ended = on_ended};

    w->port[i] = (struct port){.t = {port_connect, port_accept, port_shutdown, &w->port[i]},
                               .queue = fake_transport_new(),
                               .trio = w};
    s->factory = (struct guest_factory){.create = factory_create, .destroy = factory_destroy, .opaque = s};
    s->e = engine_new("vm", s->g ? &s->g->guest : NULL, &w->port[i].t, &owner, NULL);
    assert_non_null(s->e);
}

static int open_trio(void **state)
{
    struct trio *w = calloc(1, sizeof(*w));

    output.held = false;
    output.open_count = output.closed_count = 0;
    output.last_released = output.released = output.discarded = 0;
    w->side[0].g = fake_guest_new();
    fake_resume(&w->side[0].g->guest);
    for (int i = 0; i < 3; i++)
        open_side(w, i);
    assert_true(engine_listen(w->side[1].e, NULL, NULL));
    assert_true(engine_listen(w->side[2].e, NULL, NULL));
    snprintf(w->dir, sizeof(w->dir), "/tmp/test_engine.XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    engine_params_default(&w->params);
    w->params.interval_ns = 4 * NS_PER_MS;
    w->params.timeout_ns = 2 * NS_PER_S;
    w->params.verify_every = 5;
    snprintf(w->params.to, sizeof(w->params.to), "memory:b");
    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "file:%s", w->dir);
    *state = w;
    return 0;
}

static int close_trio(void **state)
{
    struct trio *w = *state;

    for (int i = 0; i < 3; i++)
        engine_free(w->side[i].e);
    for (int i = 0; i < 3; i++) {
        fake_guest_free(w->side[i].g);
        fake_transport_free(w->port[i].queue);
    }
    wait_until(dir_is_removed, w->dir, "the arbiter's directory is removed");
    free(w);
    return 0;
}

static const char *address(int i)
{
    static const char *const names[] = {"memory:a", "memory:b", "memory:c"};

    return names[i];
}

static void protect_by(struct trio *w, int i)
{
    Error *err = NULL;

    snprintf(w->params.to, sizeof(w->params.to), "%s", address(i));
    if (!engine_protect(w->side[0].e, &w->params, false, &err))
        fail_msg("%s", error_get_pretty(err));
    await(w->side[0].e, ENGINE_PROTECTED, 10);
}

static void move(struct trio *w, int by, int to)
{
    Error *err = NULL;

    if (!engine_move_backup(w->side[by].e, address(to), &err))
        fail_msg("%s", error_get_pretty(err));
}

static void kill_side(struct trio *w, int i)
{
    engine_free(w->side[i].e);
    w->side[i].e = NULL;
}

struct outcome_want {
    Engine *e;
    enum engine_migration_outcome outcome;
};

static bool has_outcome(void *arg)
{
    struct outcome_want *want = arg;
    struct engine_status s;

    engine_status(want->e, &s);
    return s.migration.outcome == want->outcome;
}

static void await_outcome(struct side *s, enum engine_migration_outcome outcome)
{
    wait_until(has_outcome, &(struct outcome_want){s->e, outcome}, "the outcome of the move");
}

static void assert_protected_by(struct trio *w, int i)
{
    uint64_t epoch;

    await(w->side[i].e, ENGINE_STANDBY, 1);
    epoch = status_of(&w->side[0]).epoch;
    await(w->side[0].e, ENGINE_PROTECTED, epoch + 10);
    await(w->side[i].e, ENGINE_STANDBY, epoch + 10);
    assert_string_equal(status_of(&w->side[0]).peer, address(i));
    assert_true(held());
}

/* --- the course --- */

static void test_there_and_back(void **state)
{
    struct trio *w = *state;

    protect_by(w, 1);
    for (int i = 0; i < 4; i++) {
        int from = 1 + i % 2, to = 3 - from;

        move(w, from, to);
        await_outcome(&w->side[from], ENGINE_MIGRATION_COMPLETED);
        assert_protected_by(w, to);
        await(w->side[from].e, ENGINE_LISTENING, 0);
        assert_int_equal(status_of(&w->side[0]).generation, 1);
        assert_goes_on(&w->side[0]);
    }
}

static void test_asked_by_the_primary(void **state)
{
    struct trio *w = *state;

    protect_by(w, 1);
    move(w, 0, 2);
    await_outcome(&w->side[0], ENGINE_MIGRATION_COMPLETED);
    assert_protected_by(w, 2);
    await(w->side[1].e, ENGINE_LISTENING, 0);
}

static void test_successor_takes_over(void **state)
{
    struct trio *w = *state;

    protect_by(w, 1);
    move(w, 1, 2);
    assert_protected_by(w, 2);
    kill_side(w, 0);
    await(w->side[2].e, ENGINE_UNPROTECTED, 0);
    assert_goes_on(&w->side[2]);
    assert_int_equal(status_of(&w->side[2]).generation, 2);
    assert_int_equal(status_of(&w->side[1]).state, ENGINE_LISTENING);
}

static void test_successor_swaps(void **state)
{
    struct trio *w = *state;
    Error *err = NULL;

    protect_by(w, 1);
    move(w, 1, 2);
    assert_protected_by(w, 2);
    if (!engine_swap(w->side[0].e, false, &err))
        fail_msg("%s", error_get_pretty(err));
    await(w->side[0].e, ENGINE_STANDBY, 0);
    /* and the former primary, a backup now, moves away at once: the machine has moved, and was protected all the time */
    move(w, 0, 1);
    await(w->side[2].e, ENGINE_PROTECTED, 5);
    assert_goes_on(&w->side[2]);
    await_outcome(&w->side[0], ENGINE_MIGRATION_COMPLETED);
    await(w->side[1].e, ENGINE_STANDBY, 1);
    kill_side(w, 2);
    await(w->side[1].e, ENGINE_UNPROTECTED, 0);
    assert_goes_on(&w->side[1]);
    assert_int_equal(status_of(&w->side[0]).state, ENGINE_LISTENING);
}

static void test_protected_anew(void **state)
{
    struct trio *w = *state;
    Error *err = NULL;

    protect_by(w, 1);
    move(w, 1, 2);
    assert_protected_by(w, 2);
    assert_true(engine_unprotect(w->side[0].e, false, &err));
    await(w->side[2].e, ENGINE_LISTENING, 0);
    protect_by(w, 1);
    assert_protected_by(w, 1);
}

/* --- who dies --- */

/* At any moment of the move: the backup that has the right takes over, whichever that is. */
static void kill_primary_after(struct trio *w, int64_t ns)
{
    struct side *winner;

    protect_by(w, 1);
    move(w, 1, 2);
    task_sleep_until(clock_now() + ns);
    kill_side(w, 0);
    while (!__atomic_load_n(&w->side[1].promoted, __ATOMIC_ACQUIRE) &&
           !__atomic_load_n(&w->side[2].promoted, __ATOMIC_ACQUIRE))
        task_sleep_until(clock_now() + NS_PER_MS);
    winner = &w->side[w->side[1].promoted ? 1 : 2];
    await(winner->e, ENGINE_UNPROTECTED, 0);
    assert_goes_on(winner);
    await(w->side[w->side[1].promoted ? 2 : 1].e, ENGINE_LISTENING, 0);
    assert_false(w->side[1].promoted && w->side[2].promoted);
}

static void test_primary_dies(void **state)
{
    for (int ms = 0; ms < 24; ms += 2) {
        kill_primary_after(*state, ms * NS_PER_MS);
        close_trio(state);
        open_trio(state);
    }
}

/* The primary goes on; with the successor, if it was followed, else alone. */
static void test_backup_dies(void **state)
{
    for (int ms = 0; ms < 24; ms += 2) {
        struct trio *w = *state;
        struct engine_status s;

        protect_by(w, 1);
        move(w, 1, 2);
        task_sleep_until(clock_now() + ms * NS_PER_MS);
        kill_side(w, 1);
        assert_goes_on(&w->side[0]);
        while (engine_status(w->side[0].e, &s),
               s.state == ENGINE_ASKING || (s.state == ENGINE_PROTECTED && !strcmp(s.peer, "memory:b")))
            task_sleep_until(clock_now() + NS_PER_MS);
        if (s.state == ENGINE_PROTECTED)
            assert_protected_by(w, 2);
        else
            await(w->side[2].e, ENGINE_LISTENING, 0);
        close_trio(state);
        open_trio(state);
    }
}

static bool stays_or_goes_on_alone(void *arg)
{
    struct trio *w = arg;

    return status_of(&w->side[1]).migration.outcome == ENGINE_MIGRATION_FAILED ||
           status_of(&w->side[0]).state == ENGINE_UNPROTECTED;
}

static void test_successor_dies(void **state)
{
    for (int ms = 0; ms < 24; ms += 2) {
        struct trio *w = *state;

        protect_by(w, 1);
        move(w, 1, 2);
        task_sleep_until(clock_now() + ms * NS_PER_MS);
        kill_side(w, 2);
        assert_goes_on(&w->side[0]);
        wait_until(stays_or_goes_on_alone, w, "the move to fail");
        if (status_of(&w->side[0]).state == ENGINE_PROTECTED)
            assert_protected_by(w, 1);
        else
            await(w->side[1].e, ENGINE_LISTENING, 0);
        close_trio(state);
        open_trio(state);
    }
}

/* --- it does not go --- */

static void test_refused(void **state)
{
    struct trio *w = *state;
    Error *err = NULL;

    assert_false(engine_move_backup(w->side[1].e, address(2), &err)); /* nobody's backup */
    assert_non_null(strstr(error_get_pretty(err), "LISTENING"));
    error_free(err);
    err = NULL;
    assert_false(engine_move_backup(w->side[0].e, address(2), &err));
    error_free(err);
    err = NULL;
    protect_by(w, 1);
    w->side[2].refuse = true;
    assert_false(engine_move_backup(w->side[1].e, address(2), &err));
    assert_non_null(strstr(error_get_pretty(err), "net 'net0' is not mapped here"));
    error_free(err);
    err = NULL;
    assert_false(engine_move_backup(w->side[1].e, "memory:z", &err));
    assert_non_null(strstr(error_get_pretty(err), "no route"));
    error_free(err);
    move(w, 0, 2); /* the primary hears of it, too */
    await_outcome(&w->side[0], ENGINE_MIGRATION_FAILED);
    assert_non_null(strstr(status_of(&w->side[0]).last_error, "net 'net0' is not mapped here"));
    assert_protected_by(w, 1);
    w->side[2].refuse = false;
    move(w, 0, 2);
    await_outcome(&w->side[0], ENGINE_MIGRATION_COMPLETED);
    assert_protected_by(w, 2);
}

static void test_primary_cannot_follow(void **state)
{
    struct trio *w = *state;

    protect_by(w, 1);
    w->unreachable = true;
    move(w, 0, 2);
    await_outcome(&w->side[0], ENGINE_MIGRATION_FAILED);
    assert_non_null(strstr(status_of(&w->side[0]).last_error, "no route"));
    await_outcome(&w->side[1], ENGINE_MIGRATION_FAILED);
    assert_protected_by(w, 1);
    await(w->side[2].e, ENGINE_LISTENING, 0);
    w->unreachable = false;
    move(w, 0, 2);
    await_outcome(&w->side[0], ENGINE_MIGRATION_COMPLETED);
    assert_protected_by(w, 2);
}

static void test_ends_on_the_way(void **state)
{
    struct trio *w = *state;
    Error *err = NULL;

    protect_by(w, 1);
    for (int i = 0; i < 8; i++) {
        move(w, 1, 2);
        task_sleep_until(clock_now() + i * NS_PER_MS);
        assert_true(engine_unprotect(w->side[0].e, false, &err));
        await(w->side[1].e, ENGINE_LISTENING, 0);
        await(w->side[2].e, ENGINE_LISTENING, 0);
        protect_by(w, 1);
    }
    assert_goes_on(&w->side[0]);
}

static void test_cancelled(void **state)
{
    struct trio *w = *state;
    Error *err = NULL;

    protect_by(w, 1);
    assert_false(engine_migrate_cancel(w->side[1].e, false, &err)); /* nothing to be cancelled */
    error_free(err);
    for (int i = 0; i < 8; i++) {
        enum engine_migration_outcome outcome;

        err = NULL;
        move(w, 1, 2);
        task_sleep_until(clock_now() + i * NS_PER_MS);
        if (engine_migrate_cancel(w->side[1].e, false, &err)) {
            assert_protected_by(w, 1);
            await(w->side[2].e, ENGINE_LISTENING, 0);
            outcome = status_of(&w->side[1]).migration.outcome;
            assert_true(outcome == ENGINE_MIGRATION_CANCELLED || outcome == ENGINE_MIGRATION_FAILED);
            continue;
        }
        error_free(err);
        await_outcome(&w->side[1], ENGINE_MIGRATION_COMPLETED);
        assert_protected_by(w, 2);
        move(w, 0, 1);
        assert_protected_by(w, 1);
        await_outcome(&w->side[0], ENGINE_MIGRATION_COMPLETED);
    }
}

/* Nobody's epoch ends any more that the move could begin after. */
static void protect_slowly(struct trio *w)
{
    Error *err = NULL;

    w->params.interval_ns = w->params.min_epoch_ns = 60 * NS_PER_S;
    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "manual");
    if (!engine_protect(w->side[0].e, &w->params, false, &err))
        fail_msg("%s", error_get_pretty(err));
    await(w->side[0].e, ENGINE_PROTECTED, 1);
    await(w->side[1].e, ENGINE_STANDBY, 1);
}

static void move_in_vain(void *arg)
{
    struct trio *w = arg;
    Error *err = NULL;

    assert_false(engine_move_backup(w->side[1].e, address(2), &err));
    assert_non_null(err);
    error_free(err);
}

static void test_asked_too_late(void **state)
{
    struct trio *w = *state;
    Error *err = NULL;

    protect_slowly(w);
    move(w, 0, 2);
    assert_true(engine_unprotect(w->side[0].e, false, &err));
    await_outcome(&w->side[0], ENGINE_MIGRATION_FAILED);
}

static void test_asked_before_a_loss(void **state)
{
    struct trio *w = *state;
    Task *mover;

    protect_slowly(w);
    mover = task_start("mover", move_in_vain, w, NULL);
    assert_non_null(mover);
    await_outcome(&w->side[1], ENGINE_MIGRATION_SETUP);
    kill_side(w, 0);
    task_join(mover); /* while only the user knows whether the primary lives */
    assert_int_equal(status_of(&w->side[1]).state, ENGINE_ASKING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_there_and_back, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_asked_by_the_primary, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_successor_takes_over, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_successor_swaps, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_protected_anew, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_primary_dies, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_backup_dies, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_successor_dies, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_refused, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_primary_cannot_follow, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_ends_on_the_way, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_asked_too_late, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_asked_before_a_loss, open_trio, close_trio),
        cmocka_unit_test_setup_teardown(test_cancelled, open_trio, close_trio),
    };

    world_register();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
