/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile destinations of a migration: the answers of a real one, cut, damaged, forged, reordered and repeated, against a
 * real source. Until the permission to run is sent the guest goes on here, unharmed: it can be migrated again, and is the
 * same machine there. After that only the destination's word that it did not start lets it, or the arbiter.
 */
#include "hostile_fixture.h"

#include "base/crc32c.h"
#include "stream/frame.h"

static struct records answers;

/* --- what must be true of any answers --- */

static bool is_as_it_must_be(const struct rig_source_result *r, enum arbiter_answer says)
{
    if (r->state == ENGINE_MIGRATED)
        return r->permitted && !r->goes_on && !r->claims;
    if (!r->error[0])
        return false;
    if (!r->permitted || !r->claims) /* else it said that it did not start */
        return r->state == ENGINE_UNPROTECTED && r->goes_on && !r->claims;
    switch (says) {
    case ARBITER_GRANTED:
        return r->state == ENGINE_UNPROTECTED && r->goes_on;
    case ARBITER_DENIED:
        return r->state == ENGINE_FENCED && !r->goes_on;
    default:
        return r->state == ENGINE_ASKING && !r->goes_on;
    }
}

static void check_source(const struct rig_source_result *r, enum arbiter_answer says, const char *what,
                         size_t where)
{
    if (!is_as_it_must_be(r, says))
        fail_msg("%s at %zu: %s, the guest %s here, %s, %u claims, error '%s'", what, where,
                 engine_state_name(r->state), r->goes_on ? "goes on" : "stands still",
                 r->permitted ? "permitted" : "not permitted", r->claims, r->error);
}

/* again: it is the same machine when it is migrated then. */
static void play(const void *data, size_t size, enum arbiter_answer says, bool again,
                 struct rig_source_result *ret, const char *what, size_t where)
{
    struct rig_result there;

    rig_answer(&good, data, size, false, says, ret, again ? &there : NULL);
    check_source(ret, says, what, where);
    if (again && ret->state == ENGINE_UNPROTECTED)
        check_same(&there, what, where);
}

static void play_records(const struct records *rs, enum arbiter_answer says, bool again,
                         struct rig_source_result *ret, const char *what, size_t where)
{
    struct rig_bytes b = records_join(rs);

    play(b.data, b.size, says, again, ret, what, where);
    free(b.data);
}

static void expect_error(const struct rig_source_result *r, const char *why)
{
    if (!strstr(r->error, why))
        fail_msg("'%s' is not in '%s' (%s)", why, r->error, engine_state_name(r->state));
}

static struct records *change_answers(void)
{
    records_free(&changed);
    records_copy(&changed, &answers);
    return &changed;
}

static unsigned find_answer(uint16_t type)
{
    unsigned i = 0;

    while (i < answers.count && answers.r[i].type != type)
        i++;
    if (i == answers.count)
        fail_msg("nobody answered with a record of type 0x%x", type);
    return i;
}

/* --- octets --- */

static void test_good_answers(void **state)
{
    struct rig_source_result r;

    (void)state;
    play(good.answers.data, good.answers.size, ARBITER_DENIED, false, &r, "as they were", 0);
    assert_int_equal(r.state, ENGINE_MIGRATED);
    assert_string_equal(r.error, "");
    for (uint16_t type = WIRE_LOADED; type >= WIRE_RUNNING; type--)
        if (type == WIRE_RUNNING || type == WIRE_LOADED || type == WIRE_FEED_REPLY)
            find_answer(type); /* the recording has what the cases are about */
}

/* Every octet, with each answer of the arbiter once the permission was sent. */
static void test_cut_answers(void **state)
{
    struct rig_source_result r;

    (void)state;
    for (size_t at = 0; at < good.answers.size; at++) {
        enum arbiter_answer says =
            at % 3 ? (at % 3 == 1 ? ARBITER_DENIED : ARBITER_UNKNOWN) : ARBITER_GRANTED;

        play(good.answers.data, at, says, at % 4 == 0, &r, "cut", at);
        assert_int_not_equal(r.state, ENGINE_MIGRATED);
        assert_int_equal(r.permitted, at >= answers.r[find_answer(WIRE_RUNNING)].at);
    }
}

/* It is there, and says nothing any more. */
static void test_silence(void **state)
{
    struct rig_source_result r;
    struct rig_result there;

    (void)state;
    for (unsigned i = 1; i < answers.count; i++) {
        rig_answer(&good, good.answers.data, answers.r[i].at, true, ARBITER_GRANTED, &r, &there);
        check_source(&r, ARBITER_GRANTED, "silence", i);
        assert_int_not_equal(r.state, ENGINE_MIGRATED);
        check_same(&there, "silence", i);
    }
}

static void flip(bool forge)
{
    for (unsigned i = 0; i < answers.count; i++) {
        for (size_t o = 0; o < FRAME_HEADER_SIZE + answers.r[i].size; o++) {
            struct rig_bytes copy = {0};
            struct rig_source_result r;
            size_t at = answers.r[i].at + o;
            uint8_t *head;

            if (!forge && at % 3) /* a checksum is a checksum */
                continue;
            rig_bytes_add(&copy, good.answers.data, good.answers.size);
            head = copy.data + answers.r[i].at;
            copy.data[at] ^= (uint8_t)(1u << at % 8);
            if (forge) {
                if (o >= FRAME_HEADER_SIZE)
                    le32_put(head + 16, crc32c(0, head + FRAME_HEADER_SIZE, answers.r[i].size));
                le32_put(head + 20, crc32c(0, head, 20));
            }
            play(copy.data, copy.size, ARBITER_GRANTED, at % 16 == 0, &r, forge ? "forged" : "damage", at);
            if (!forge) {
                assert_int_not_equal(r.state, ENGINE_MIGRATED);
                expect_error(&r, "the checksum of the ");
            }
            free(copy.data);
        }
    }
}

static void test_damaged_answers(void **state)
{
    (void)state;
    flip(false);
}

static void test_forged_answers(void **state)
{
    (void)state;
    flip(true);
}

/* --- records --- */

static void test_answers_in_another_order(void **state)
{
    struct rig_source_result r;
    struct records *rs;

    (void)state;
    for (unsigned i = 0; i < answers.count; i++) {
        rs = change_answers();
        records_remove(rs, i);
        play_records(rs, ARBITER_GRANTED, true, &r, "left out", i);
        assert_int_not_equal(r.state, ENGINE_MIGRATED);
        rs = change_answers();
        records_insert(rs, i, rs->r[i].type, rs->r[i].id, rs->r[i].body, rs->r[i].size);
        play_records(rs, ARBITER_GRANTED, true, &r, "twice", i);
        if (i + 1 < answers.count)
            assert_int_not_equal(r.state, ENGINE_MIGRATED);
        for (unsigned k = i + 1; k < answers.count; k++) {
            if (answers.r[i].type == answers.r[k].type)
                continue;
            rs = change_answers();
            records_swap(rs, i, k);
            play_records(rs, ARBITER_GRANTED, true, &r, "exchanged", 100 * i + k);
            assert_int_not_equal(r.state, ENGINE_MIGRATED);
        }
    }
}

/* Whatever else is said in an answer's place. */
static void test_strange_answers(void **state)
{
    (void)state;
    for (unsigned i = 0; i < answers.count; i++) {
        for (uint16_t type = WIRE_HELLO - 16; type < WIRE_PONG + 4; type++) {
            struct rig_source_result r;
            struct records *rs;

            if (type == answers.r[i].type)
                continue;
            rs = change_answers();
            records_insert(rs, i, type, 0, "\4\0text", 6);
            play_records(rs, ARBITER_GRANTED, type % 8 == 0, &r, "a stranger", 100 * i + type);
            assert_int_not_equal(r.state, ENGINE_MIGRATED);
            if (type == WIRE_FAIL && answers.r[i].type != WIRE_RUNNING)
                expect_error(&r, "text");
            else if (type != WIRE_REFUSE && type != WIRE_NOT_STARTED)
                expect_error(&r, "unexpected record of type 0x");
        }
    }
}

/* The one answer after the permission that gives the guest back. */
static void test_not_started(void **state)
{
    unsigned i = find_answer(WIRE_RUNNING);
    struct rig_source_result r;
    struct records *rs = change_answers();

    (void)state;
    records_remove(rs, i);
    records_insert(rs, i, WIRE_NOT_STARTED, 0, "\4\0text", 6);
    play_records(rs, ARBITER_DENIED, true, &r, "not started", 0);
    expect_error(&r, "the other side could not take over: text");
    assert_true(r.permitted && r.goes_on);
    /* a text that is none is no word at all */
    rs = change_answers();
    records_remove(rs, i);
    records_insert(rs, i, WIRE_NOT_STARTED, 0, "\377\377text", 6);
    play_records(rs, ARBITER_DENIED, false, &r, "half a word", 0);
    assert_int_equal(r.state, ENGINE_FENCED);
}

static void test_wrong_generation(void **state)
{
    static const uint64_t off[] = {1, UINT64_MAX, UINT64_MAX - 1, 0x8000000000000000};

    (void)state;
    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        struct records *rs = change_answers();
        struct rig_source_result r;

        rs->r[find_answer(WIRE_RUNNING)].id += off[i];
        play_records(rs, ARBITER_DENIED, false, &r, "another generation", i);
        assert_int_equal(r.state, ENGINE_FENCED);
        rs = change_answers();
        rs->r[find_answer(WIRE_RUNNING)].id += off[i];
        play_records(rs, ARBITER_UNKNOWN, false, &r, "another generation", i);
        assert_int_equal(r.state, ENGINE_ASKING);
    }
}

/* --- replies to the disks' questions --- */

static void reply_with(const void *body, size_t size, const char *why)
{
    unsigned i = find_answer(WIRE_FEED_REPLY);
    struct records *rs = change_answers();
    struct rig_source_result r;

    records_remove(rs, i);
    records_insert(rs, i, WIRE_FEED_REPLY, 0, body, size);
    play_records(rs, ARBITER_GRANTED, true, &r, "a reply", size);
    expect_error(&r, why);
    assert_false(r.permitted);
}

static void test_replies(void **state)
{
    const struct record *reply = &answers.r[find_answer(WIRE_FEED_REPLY)];
    uint8_t *body = malloc(reply->size + 1);

    (void)state;
    reply_with("", 0, "it ends too early");
    reply_with("\5\0ghost", 7, "ghost");
    reply_with("\5\0disks", 7, "it ends too early");
    reply_with("\377\377", 2, "too long");
    /* kind, disk, offset and count must be those of the question; the bits go with the count */
    for (size_t at = 7; at + 1 < reply->size; at++) {
        memcpy(body, reply->body, reply->size);
        body[at] ^= 0x10;
        reply_with(body, reply->size, "replication feed disks");
    }
    memcpy(body, reply->body, reply->size);
    body[reply->size] = 0;
    reply_with(body, reply->size - 1, "it ends too early");
    reply_with(body, reply->size + 1, "left over");
    free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_answers),     cmocka_unit_test(test_cut_answers),
        cmocka_unit_test(test_silence),          cmocka_unit_test(test_damaged_answers),
        cmocka_unit_test(test_forged_answers),   cmocka_unit_test(test_answers_in_another_order),
        cmocka_unit_test(test_strange_answers),  cmocka_unit_test(test_not_started),
        cmocka_unit_test(test_wrong_generation), cmocka_unit_test(test_replies),
    };
    int failed;

    rig_init();
    rig_record(&good);
    records_split(&answers, good.answers.data, good.answers.size);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    records_free(&answers);
    records_free(&changed);
    rig_forget(&good);
    return failed;
}
