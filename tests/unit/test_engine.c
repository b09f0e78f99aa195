/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two engines on threads, over channels in memory. The simulator goes much further: tests/sim. */
#include "fake_world.h"

#include "engine/engine_private.h"
#include "engine/session.h"
#include <perdure/replication.h>
#include <perdure/replication_feed.h>
#include <perdure/vmstate.h>
#include <dirent.h>
#include <errno.h>

/* --- tests --- */

static void test_epochs_and_takeover(void **state)
{
    struct world *w = *state;
    struct engine_status s;

    protect(w, &w->a);
    await(w->a.e, ENGINE_PROTECTED, 60);
    s = status_of(&w->a);
    assert_true(s.epochs >= 50 && s.verified >= 5 && output.released > 0);
    assert_int_equal(s.generation, 1);
    assert_string_equal(s.last_error, "");
    assert_int_equal(status_of(&w->b).state, ENGINE_STANDBY);
    engine_free(w->a.e); /* without a word: the backup takes over */
    w->a.e = NULL;
    await(w->b.e, ENGINE_UNPROTECTED, 0);
    s = status_of(&w->b);
    assert_int_equal(s.role, ENGINE_PRIMARY);
    assert_int_equal(s.generation, 2);
    assert_non_null(strstr(s.report, "first-instruction: +"));
    assert_non_null(strstr(s.report, "granted"));
    assert_goes_on(&w->b);
}

static void test_unprotect(void **state)
{
    struct world *w = *state;
    Error *err = NULL;

    for (int i = 0; i < 3; i++) {
        protect(w, &w->a);
        assert_true(engine_unprotect(w->a.e, false, &err));
        assert_int_equal(status_of(&w->a).state, ENGINE_UNPROTECTED);
        assert_false(held());
        if (i)
            continue; /* and protect again at once: the backup is not "busy" */
        await(w->b.e, ENGINE_LISTENING, 0);
        assert_goes_on(&w->a);
    }
    assert_false(engine_unprotect(w->a.e, false, &err));
    error_free(err);
}

static void test_swap(void **state)
{
    struct world *w = *state;
    struct side *now = &w->a, *other = &w->b, *t;
    Error *err = NULL;

    protect(w, now);
    for (int i = 0; i < 4; i++) {
        if (!engine_swap(now->e, false, &err))
            fail_msg("swap %d: %s", i, error_get_pretty(err));
        assert_int_equal(status_of(now).role, ENGINE_BACKUP);
        await(other->e, ENGINE_PROTECTED, 5);
        await(now->e, ENGINE_STANDBY, 5);
        assert_int_equal(status_of(other).generation, (uint64_t)i + 2);
        assert_goes_on(other);
        t = now;
        now = other;
        other = t;
    }
    engine_free(now->e);
    now->e = NULL;
    await(other->e, ENGINE_UNPROTECTED, 0);
    assert_goes_on(other);
}

static const int64_t a_while[] = {0, NS_PER_MS / 4, NS_PER_MS, 2 * NS_PER_MS, 5 * NS_PER_MS, 20 * NS_PER_MS};
#define WHILES (sizeof(a_while) / sizeof(a_while[0]))

/* The former primary is the standby before the new one runs: whenever that dies, it takes over from what it left. */
static void test_swap_and_death(void **state)
{
    (void)state;
    for (size_t i = 0; i < WHILES; i++) {
        struct world *w;

        set_up((void **)&w);
        protect(w, &w->a);
        assert_true(engine_swap(w->a.e, false, NULL));
        assert_int_equal(status_of(&w->a).state, ENGINE_STANDBY);
        task_sleep_until(clock_now() + a_while[i]);
        engine_free(w->b.e);
        w->b.e = NULL;
        await(w->a.e, ENGINE_UNPROTECTED, 0);
        assert_goes_on(&w->a);
        assert_int_equal(status_of(&w->a).generation, 3);
        tear_down((void **)&w);
    }
}

static bool is_settled(void *arg)
{
    struct world *w = arg;
    enum engine_state a = status_of(&w->a).state, b = status_of(&w->b).state;

    return (a == ENGINE_UNPROTECTED && b == ENGINE_FENCED) ||
           (a == ENGINE_LISTENING && b == ENGINE_UNPROTECTED);
}

/* Both live and do not see each other: the arbiter lets one of them run, also where the new primary never has. */
static void test_swap_and_a_cut_link(void **state)
{
    (void)state;
    for (size_t i = 0; i < WHILES; i++) {
        struct world *w;

        set_up((void **)&w);
        protect(w, &w->a);
        assert_true(engine_swap(w->a.e, false, NULL));
        task_sleep_until(clock_now() + a_while[i]);
        engine_take_link_down(w->a.e, "cut by the test");
        wait_until(is_settled, w, "one of them to go on");
        assert_goes_on(status_of(&w->a).state == ENGINE_UNPROTECTED ? &w->a : &w->b);
        tear_down((void **)&w);
    }
}

/* A side that is about to end says that it will not stand by: the other one need not ask an arbiter, which here says
 * nothing. */
static void test_swap_and_leave(void **state)
{
    struct world *w = *state;
    Error *err = NULL;

    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "manual");
    protect(w, &w->a);
    if (!engine_swap(w->a.e, true, &err))
        fail_msg("%s", error_get_pretty(err));
    await(w->b.e, ENGINE_UNPROTECTED, 0);
    await(w->a.e, ENGINE_LISTENING, 0);
    assert_false(held());
    assert_goes_on(&w->b);
}

/* What the guest had asked for is carried out once, on whichever side. */
static void test_swap_and_a_reset(void **state)
{
    struct world *w = *state;
    Error *err = NULL;

    protect(w, &w->a);
    fake_guest_ask(w->a.g, GUEST_REQUEST_RESET);
    if (!engine_swap(w->a.e, false, &err))
        fail_msg("%s", error_get_pretty(err));
    await(w->b.e, ENGINE_PROTECTED, 5);
    assert_int_equal(w->a.g->resets + w->b.g->resets, 1);
    assert_goes_on(&w->b);
}

static bool stop_unless_takeover(ReplicationState *rs, bool failover, Error **errp)
{
    (void)rs;
    if (failover)
        error_setg(errp, "the medium is gone");
    return !failover;
}

static int claims_in(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    int n = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)))
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* What may fail, and what has to be on the backup's medium, comes before its claim: a backup that dies there has
 * claimed nothing, and the primary, which has everything, goes on. */
static void test_swap_claims_last(void **state)
{
    struct world *w = *state;
    static ReplicationOps ops = {.stop = stop_unless_takeover};
    ReplicationState *rs = replication_new(NULL, &ops);
    Error *err = NULL;
    bool swapped;

    protect(w, &w->a);
    swapped = engine_swap(w->a.e, false, &err);
    replication_remove(rs);
    assert_false(swapped);
    if (!strstr(error_get_pretty(err), "the medium is gone"))
        fail_msg("%s", error_get_pretty(err));
    error_free(err);
    assert_int_equal(claims_in(w->dir), 0);
    assert_goes_on(&w->a);
}

static void test_handover(void **state)
{
    struct world *w = *state;
    Error *err = NULL;

    protect(w, &w->a);
    if (!engine_failover(w->b.e, false, &err))
        fail_msg("%s", error_get_pretty(err));
    await(w->b.e, ENGINE_PROTECTED, 3);
    await(w->a.e, ENGINE_STANDBY, 3);
    assert_goes_on(&w->b);
}

static void test_manual(void **state)
{
    struct world *w = *state;
    Error *err = NULL;

    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "manual");
    protect(w, &w->a);
    engine_free(w->a.e);
    w->a.e = NULL;
    await(w->b.e, ENGINE_ASKING, 0);
    assert_false(engine_failover(w->b.e, false, &err));
    assert_non_null(strstr(error_get_pretty(err), "--peer-is-dead"));
    error_free(err);
    err = NULL;
    assert_true(engine_failover(w->b.e, true, &err));
    assert_goes_on(&w->b);
}

static void test_backup_lost(void **state)
{
    struct world *w = *state;

    protect(w, &w->a);
    engine_free(w->b.e);
    w->b.e = NULL;
    await(w->a.e, ENGINE_UNPROTECTED, 0);
    assert_non_null(strstr(status_of(&w->a).report, "granted"));
    assert_false(held());
    assert_goes_on(&w->a);
}

static bool probe_pre_save(void *opaque, Error **errp)
{
    if (!__atomic_load_n((int *)opaque, __ATOMIC_ACQUIRE))
        return true;
    error_setg(errp, "a register cannot be read");
    return false;
}

/* A device whose state cannot be had ends the protection at once, and not at the takeover. */
static void test_unreadable_device(void **state)
{
    static const VMStateField none[] = {VMSTATE_END};
    static const VMStateDescription probe = {
        .name = "probe", .version = 1, .minimum_version = 1, .fields = none, .pre_save = probe_pre_save};
    struct world *w = *state;
    int broken = 0;

    assert_true(perdure_vmstate_register(&probe, 0, &broken, NULL));
    protect(w, &w->a);
    __atomic_store_n(&broken, 1, __ATOMIC_RELEASE);
    await(w->a.e, ENGINE_UNPROTECTED, 0);
    assert_string_equal(status_of(&w->a).last_error, "saving probe.0: a register cannot be read");
    assert_false(held());
    assert_goes_on(&w->a);
    await(w->b.e, ENGINE_LISTENING, 0);
    assert_false(w->b.promoted);
    perdure_vmstate_unregister(&probe, &broken);
}

static bool too_much(void *opaque, uint64_t epoch, VMStream *f)
{
    static uint8_t bytes[REPLICATION_MESSAGE_MAX + 8192];
    int *wanted = opaque;

    (void)epoch;
    if (!__atomic_exchange_n(wanted, 0, __ATOMIC_ACQ_REL))
        return false;
    perdure_stream_put_buffer(f, bytes, sizeof(bytes));
    return true;
}

/* A message that could not be put is lost: then the other half is not what this one is, and no epoch may say so. */
static void test_message_that_is_lost(void **state)
{
    static const ReplicationFeedOps ops = {.next = too_much};
    int wanted = 0;
    ReplicationFeed feed = {.id = "probe", .opaque = &wanted, .ops = &ops};
    struct world *w = *state;

    assert_true(replication_feed_add(&feed, NULL));
    protect(w, &w->a);
    __atomic_store_n(&wanted, 1, __ATOMIC_RELEASE);
    replication_feed_waiting(&feed);
    await(w->a.e, ENGINE_UNPROTECTED, 0);
    assert_non_null(strstr(status_of(&w->a).last_error, "too long"));
    assert_goes_on(&w->a);
    await(w->b.e, ENGINE_LISTENING, 0);
    replication_feed_remove(&feed);
}

static void test_refusals(void **state)
{
    struct world *w = *state;
    Error *err = NULL;

    w->b.refuse = true;
    for (int check = 0; check < 2; check++) {
        assert_false(engine_protect(w->a.e, &w->params, check, &err));
        assert_non_null(strstr(error_get_pretty(err), "disk 'root'"));
        assert_non_null(strstr(error_get_pretty(err), "net 'net0'"));
        error_free(err);
        err = NULL;
        await(w->b.e, ENGINE_LISTENING, 0);
    }
    w->b.refuse = false;
    assert_true(engine_protect(w->a.e, &w->params, true, &err));
    snprintf(w->params.arbiter, sizeof(w->params.arbiter), "oracle");
    assert_false(engine_protect(w->a.e, &w->params, false, &err));
    assert_non_null(strstr(error_get_pretty(err), "oracle"));
    error_free(err);
    assert_goes_on(&w->a);
}

static void test_wrong_name(void **state)
{
    struct world *w = *state;
    Error *err = NULL;

    engine_free(w->a.e);
    side_open(w, &w->a, "other");
    assert_false(engine_protect(w->a.e, &w->params, false, &err));
    assert_non_null(strstr(error_get_pretty(err), "for 'vm', not for 'other'"));
    error_free(err);
}

static void test_reset(void **state)
{
    struct world *w = *state;
    uint64_t epoch;

    protect(w, &w->a);
    fake_guest_ask(w->a.g, GUEST_REQUEST_RESET);
    epoch = status_of(&w->a).epoch;
    await(w->a.e, ENGINE_PROTECTED, epoch + 5);
    assert_int_equal(w->a.g->resets, 1);
    assert_goes_on(&w->a);
}

static void test_poweroff(void **state)
{
    struct world *w = *state;

    protect(w, &w->a);
    fake_guest_ask(w->a.g, GUEST_REQUEST_POWEROFF);
    wait_until(nonzero, &w->a.ended, "the end on the primary");
    wait_until(nonzero, &w->b.ended, "the end on the backup");
    await(w->a.e, ENGINE_UNPROTECTED, 0);
    await(w->b.e, ENGINE_LISTENING, 0);
    assert_false(w->b.promoted);
}

/* --- a peer that is not one of us --- */

struct stranger {
    Channel *main, *beat;
    VMStream *in, *out;
};

static Channel *stranger_greet(struct world *w, struct wire_hello *h, enum wire_kind kind, VMStream **in,
                               VMStream **out)
{
    Channel *ch = fake_connect(&w->t->t, "memory:a", TIME_NEVER, NULL);

    h->kind = kind;
    *in = vmstream_new_reader(ch);
    *out = vmstream_new_writer(ch);
    channel_set_deadline(ch, clock_now() + PATIENCE);
    assert_true(session_greet(*in, *out, h, NULL));
    return ch;
}

static void stranger_connect(struct world *w, struct stranger *st)
{
    struct wire_hello h = {.vm = "vm",
                           .pair = "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11",
                           .generation = 9,
                           .session = 1,
                           .timeout_ns = 10 * NS_PER_S,
                           .interval_ns = NS_PER_MS,
                           .min_epoch_ns = NS_PER_MS,
                           .arbiter = "manual",
                           .ram_size = RAM_SIZE};
    VMStream *in, *out;

    st->main = stranger_greet(w, &h, WIRE_KIND_MAIN, &st->in, &st->out);
    st->beat = stranger_greet(w, &h, WIRE_KIND_HEARTBEAT, &in, &out);
    perdure_stream_close(in);
    perdure_stream_close(out);
}

static void stranger_close(struct stranger *st)
{
    perdure_stream_close(st->in);
    perdure_stream_close(st->out);
    channel_close(st->main);
    channel_close(st->beat);
}

/* Side a becomes a backup that listens, with the guest that a swap left there. */
static void leave_guest(struct world *w)
{
    protect(w, &w->a);
    assert_true(engine_swap(w->a.e, false, NULL));
    await(w->b.e, ENGINE_PROTECTED, 2);
    assert_true(engine_unprotect(w->b.e, false, NULL));
    await(w->a.e, ENGINE_LISTENING, 0);
    engine_free(w->b.e);
    w->b.e = NULL;
    w->t->down = false;
    assert_true(engine_listen(w->a.e, NULL, NULL));
}

static void assert_refused(struct stranger *st, const char *why)
{
    char text[WIRE_TEXT_MAX];
    uint16_t type;
    uint64_t id;

    assert_true(wire_next(st->in, &type, &id, NULL));
    assert_int_equal(type, WIRE_REFUSE);
    assert_true(wire_get_text(st->in, text, NULL));
    assert_non_null(strstr(text, why));
}

/* A guest that is there already does not make a START one in turn. */
static void test_start_out_of_turn(void **state)
{
    struct world *w = *state;
    struct stranger st;

    leave_guest(w);
    stranger_connect(w, &st);
    assert_true(wire_send(st.out, WIRE_START, 0, NULL));
    assert_refused(&st, "out of turn");
    stranger_close(&st);
    await(w->a.e, ENGINE_LISTENING, 0);
}

static void test_guest_left_by_a_swap(void **state)
{
    struct world *w = *state;
    VMStream *config = perdure_stream_open_memory(0);
    struct stranger st;

    leave_guest(w);
    stranger_connect(w, &st);
    perdure_stream_begin(config, 1, 0);
    perdure_stream_put_u64(config, RAM_SIZE + 1);
    perdure_stream_end(config);
    assert_true(wire_send_config(st.out, config, NULL));
    perdure_stream_close(config);
    assert_refused(&st, "not the same any more");
    stranger_close(&st);
}

/* --- silence --- */

#define STALL (300 * NS_PER_MS)

/* A read that should have ended at its deadline and did so much later: this process stood still. */
static ssize_t stalled_read(Channel *ch, void *buf, size_t n, int64_t deadline, Error **errp)
{
    (void)ch;
    (void)buf;
    (void)n;
    task_sleep_until(deadline + STALL);
    error_setg_errno(errp, ETIMEDOUT, "nothing came");
    return -1;
}

static void stalled_close(Channel *ch)
{
    free(ch);
}

static const struct channel_ops stalled_ops = {.read = stalled_read, .close = stalled_close};

static void read_once(void *arg)
{
    char byte;

    channel_set_deadline(arg, clock_now() + 2 * STALL);
    channel_read(arg, &byte, 1, NULL);
}

static void no_wake(void *opaque)
{
    (void)opaque;
}

/* Both connections' tasks stand still at the same time: that is one stall, and no credit for the future. */
static void test_stall_is_forgiven_once(void **state)
{
    Channel *ends[2];
    Task *tasks[2];
    struct link l;

    (void)state;
    link_init(&l, 8 * NS_PER_MS, no_wake, NULL);
    for (int i = 0; i < 2; i++) {
        Channel *ch = calloc(1, sizeof(*ch));

        ch->ops = &stalled_ops;
        ends[i] = link_wrap(&l, ch);
    }
    l.life = clock_now();
    l.watching = true;
    for (int i = 0; i < 2; i++)
        tasks[i] = task_start("reader", read_once, ends[i], NULL);
    for (int i = 0; i < 2; i++)
        task_join(tasks[i]);
    assert_true(l.life <= clock_now());
    for (int i = 0; i < 2; i++)
        channel_close(ends[i]);
    link_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_epochs_and_takeover, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unprotect, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_swap, set_up, tear_down),
        cmocka_unit_test(test_swap_and_death),
        cmocka_unit_test(test_swap_and_a_cut_link),
        cmocka_unit_test_setup_teardown(test_swap_and_leave, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_swap_and_a_reset, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_swap_claims_last, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_handover, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_manual, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_backup_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unreadable_device, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_message_that_is_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reset, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_poweroff, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_start_out_of_turn, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_guest_left_by_a_swap, set_up, tear_down),
        cmocka_unit_test(test_stall_is_forgiven_once),
    };

    world_register();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
