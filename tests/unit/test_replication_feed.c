/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "registry/context.h"
#include "stream/vmstream.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MESSAGE  0x70
#define QUESTION 0x71
#define REPLY    0x72

/* A component whose messages are numbers. */
struct numbers {
    ReplicationFeed feed;
    uint64_t epoch[8], value[8]; /* what waits */
    unsigned waits, given;
    size_t padding; /* behind each number */
    unsigned questions;
    bool is_full, asks_in_vain, silent, greedy, sloppy;
    uint64_t left;
    uint64_t received[8], answered[8];
    unsigned received_count, answered_count;
};

static void put_padding(VMStream *f, size_t n)
{
    while (n--)
        perdure_stream_put_u8(f, 0);
}

static bool numbers_next(void *opaque, uint64_t epoch, VMStream *f)
{
    struct numbers *n = opaque;

    perdure_stream_put_u64(f, 77); /* taken back unless there is more */
    if (n->given == n->waits || n->epoch[n->given] > epoch)
        return false;
    perdure_stream_put_u64(f, n->value[n->given++]);
    put_padding(f, n->padding);
    return true;
}

static bool numbers_full(void *opaque)
{
    return ((struct numbers *)opaque)->is_full;
}

static uint64_t numbers_left(void *opaque)
{
    return ((struct numbers *)opaque)->left;
}

static bool numbers_ask(void *opaque, VMStream *f, Error **errp)
{
    struct numbers *n = opaque;

    if (n->asks_in_vain) {
        error_setg(errp, "the disk does not answer");
        return false;
    }
    if (!n->questions)
        return false;
    perdure_stream_put_u64(f, 1);
    perdure_stream_put_u64(f, n->questions--);
    return true;
}

static bool numbers_answer(void *opaque, VMStream *f, Error **errp)
{
    struct numbers *n = opaque;

    (void)errp;
    n->answered[n->answered_count++] = perdure_stream_get_u64(f);
    return !perdure_stream_error(f, NULL);
}

static bool numbers_receive(void *opaque, VMStream *f, VMStream *reply, Error **errp)
{
    struct numbers *n = opaque;
    bool question = perdure_stream_get_u64(f) == 1;
    uint64_t v = perdure_stream_get_u64(f);

    if (n->silent)
        return false;
    if (v == 666) {
        error_setg(errp, "no such number");
        return false;
    }
    if (n->greedy)
        perdure_stream_get_u64(f);
    if (question)
        perdure_stream_put_u64(reply, v + 1000);
    else
        n->received[n->received_count++] = v;
    return true;
}

static const ReplicationFeedOps all_ops = {
    .next = numbers_next,
    .full = numbers_full,
    .ask = numbers_ask,
    .answer = numbers_answer,
    .left = numbers_left,
    .receive = numbers_receive,
};
static const ReplicationFeedOps no_ops;

static struct numbers a, b;
static VMStream *out, *reply;

static void init(struct numbers *n, const char *id, const ReplicationFeedOps *ops)
{
    *n = (struct numbers){.feed = {.id = id, .opaque = n, .ops = ops}};
    assert_true(replication_feed_add(&n->feed, NULL));
}

static int begin(void **state)
{
    (void)state;
    init(&a, "a", &all_ops);
    init(&b, "b", &all_ops);
    out = perdure_stream_open_memory(0);
    reply = perdure_stream_open_memory(0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    replication_feed_remove(&a.feed);
    replication_feed_remove(&b.feed);
    assert_null(registry_context_current()->feeds.first);
    assert_int_equal(registry_context_current()->feeds.walks, 0);
    perdure_stream_close(out);
    perdure_stream_close(reply);
    return 0;
}

static void give(struct numbers *n, uint64_t epoch, uint64_t value)
{
    n->epoch[n->waits] = epoch;
    n->value[n->waits++] = value;
}

static void assert_error(Error *err, const char *expected)
{
    assert_non_null(err);
    assert_string_equal(error_get_pretty(err), expected);
    error_free(err);
}

/* Every record of f to replication_feeds_receive(). */
static void deliver(VMStream *f)
{
    VMStream *in = vmstream_reopen_memory(f);
    uint16_t type;
    uint64_t id;

    while (perdure_stream_next(in, &type, &id)) {
        assert_int_equal(type, MESSAGE);
        assert_int_equal(id, 5);
        assert_true(replication_feeds_receive(in, reply, REPLY, NULL));
    }
    assert_int_equal(perdure_stream_error(in, NULL), 0);
    perdure_stream_close(in);
}

static void test_ids(void **state)
{
    char long_id[40] = "0123456789012345678901234567890";
    ReplicationFeed other = {.id = "a", .ops = &no_ops};
    Error *err = NULL;

    (void)state;
    assert_false(replication_feed_add(&other, &err));
    assert_error(err, "replication feed a: the id is taken by another feed");
    assert_false(replication_feed_add(&other, NULL));
    err = NULL;
    other.id = "";
    assert_false(replication_feed_add(&other, &err));
    assert_error(err, "replication feed \"\": an id has 1 to 31 bytes");
    other.id = long_id;
    assert_true(replication_feed_add(&other, NULL));
    replication_feed_remove(&other);
    replication_feed_remove(&other);
    long_id[31] = '1';
    assert_false(replication_feed_add(&other, NULL));
}

static void test_messages_in_order(void **state)
{
    (void)state;
    give(&b, 1, 10);
    give(&a, 1, 1);
    give(&a, 1, 2);
    give(&a, 2, 3);
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, 1 << 20), 3);
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, 1 << 20), 0);
    deliver(out);
    assert_int_equal(a.received_count, 2);
    assert_int_equal(a.received[0], 1);
    assert_int_equal(a.received[1], 2);
    assert_int_equal(b.received_count, 1);
    assert_int_equal(b.received[0], 10);
    perdure_stream_rewind(out);
    assert_int_equal(replication_feeds_next(2, out, MESSAGE, 5, 1 << 20), 1);
    deliver(out);
    assert_int_equal(a.received[2], 3);
}

/* A message that would begin behind the budget stays where it is. */
static void test_budget(void **state)
{
    (void)state;
    a.padding = 1000;
    for (int i = 0; i < 4; i++)
        give(&a, 1, (uint64_t)i);
    give(&b, 1, 9);
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, 0), 0);
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, 1), 1);
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, 1500), 2);
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, 1500), 2);
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, 1500), 0);
    assert_int_equal(a.given, 4);
    assert_int_equal(b.given, 1);
}

static void test_message_too_long(void **state)
{
    Error *err = NULL;

    (void)state;
    a.padding = REPLICATION_MESSAGE_MAX + 2000;
    give(&a, 1, 1);
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, SIZE_MAX / 2), 0);
    assert_int_equal(perdure_stream_error(out, &err), -EINVAL);
    assert_non_null(strstr(error_get_pretty(err), "replication feed a: a message of"));
    error_free(err);
}

/* The longest goes over several frames. */
static void test_message_of_several_frames(void **state)
{
    VMStream *in;
    uint16_t type;
    uint64_t id;

    (void)state;
    a.padding = REPLICATION_MESSAGE_MAX - 16;
    give(&a, 1, 1);
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, 1), 1);
    in = vmstream_reopen_memory(out);
    assert_true(perdure_stream_next(in, &type, &id));
    perdure_stream_skip(in);
    assert_false(perdure_stream_next(in, &type, &id));
    assert_int_equal(perdure_stream_error(in, NULL), 0);
    perdure_stream_close(in);
}

static void test_full_and_left(void **state)
{
    (void)state;
    assert_false(replication_feeds_full());
    b.is_full = true;
    assert_true(replication_feeds_full());
    a.left = 3;
    b.left = 4;
    assert_int_equal(replication_feeds_left(), 7);
}

/* One question into out, its reply into reply, and back. */
static bool ask_and_answer(Error **errp)
{
    VMStream *in;
    uint16_t type;
    uint64_t id;
    bool asked, ok;

    perdure_stream_rewind(out);
    perdure_stream_rewind(reply);
    assert_true(replication_feeds_ask(out, QUESTION, 1, &asked, NULL));
    if (!asked)
        return false;
    in = vmstream_reopen_memory(out);
    assert_true(perdure_stream_next(in, &type, &id));
    assert_int_equal(type, QUESTION);
    assert_true(replication_feeds_receive(in, reply, REPLY, NULL));
    perdure_stream_close(in);
    in = vmstream_reopen_memory(reply);
    assert_true(perdure_stream_next(in, &type, &id));
    assert_int_equal(type, REPLY);
    ok = replication_feeds_answer(in, errp);
    assert_true(ok || !errp || *errp);
    assert_false(perdure_stream_next(in, &type, &id));
    perdure_stream_close(in);
    return ok;
}

static void test_questions(void **state)
{
    (void)state;
    a.questions = 2;
    b.questions = 1;
    while (ask_and_answer(NULL))
        ;
    assert_int_equal(a.answered_count, 2);
    assert_int_equal(a.answered[0], 1002);
    assert_int_equal(a.answered[1], 1001);
    assert_int_equal(b.answered_count, 1);
    assert_int_equal(perdure_stream_bytes(out), 0);
}

static void test_question_fails(void **state)
{
    bool asked = true;
    Error *err = NULL;

    (void)state;
    b.asks_in_vain = true;
    assert_false(replication_feeds_ask(out, QUESTION, 1, &asked, &err));
    assert_false(asked);
    assert_error(err, "replication feed b: the disk does not answer");
    assert_int_equal(perdure_stream_bytes(out), 0); /* nothing half-written is left */
}

static VMStream *record(const char *id, const uint64_t *values, unsigned n)
{
    VMStream *f = perdure_stream_open_memory(0), *in;
    uint16_t type;
    uint64_t record_id;

    perdure_stream_begin(f, MESSAGE, 0);
    if (id)
        perdure_stream_put_string(f, id);
    for (unsigned i = 0; i < n; i++)
        perdure_stream_put_u64(f, values[i]);
    perdure_stream_end(f);
    perdure_stream_rewind(out);
    perdure_stream_append(out, f);
    perdure_stream_close(f);
    in = vmstream_reopen_memory(out);
    assert_true(perdure_stream_next(in, &type, &record_id));
    return in;
}

static void refuse_message(const char *id, unsigned n, uint64_t value, const char *why)
{
    VMStream *in = record(id, (uint64_t[]){0, value, 0}, n);
    Error *err = NULL;

    perdure_stream_rewind(reply);
    assert_false(replication_feeds_receive(in, reply, REPLY, &err));
    assert_non_null(err);
    if (!strstr(error_get_pretty(err), why))
        fail_msg("\"%s\" is not in \"%s\"", why, error_get_pretty(err));
    error_free(err);
    assert_int_equal(perdure_stream_bytes(reply), 0);
    perdure_stream_close(in);
}

static void test_hostile_messages(void **state)
{
    (void)state;
    refuse_message(NULL, 0, 0, "without an id");
    refuse_message("c", 2, 1, "replication feed \"c\": nothing on this side has that id");
    refuse_message("0123456789012345678901234567890123456789", 2, 1, "without an id");
    refuse_message("a", 2, 666, "replication feed a: no such number");
    refuse_message("a", 3, 1, "replication feed a: record type 0x70 id 0 at offset 0: bytes are left over");
    refuse_message("a", 1, 1, "replication feed a: record type 0x70 id 0 at offset 0: it ends too early");
    a.greedy = true;
    refuse_message("a", 2, 1, "it ends too early"); /* read too far and did not look */
    a.silent = true;
    refuse_message("a", 2, 1, "replication feed a: it failed and gave no reason");
    b.feed.ops = &no_ops;
    refuse_message("b", 2, 1, "replication feed b: a message, but it takes none");
}

static void refuse_reply(const char *id, unsigned n, const char *why)
{
    VMStream *in = record(id, (uint64_t[]){1, 2}, n);
    Error *err = NULL;

    assert_false(replication_feeds_answer(in, &err));
    if (!strstr(error_get_pretty(err), why))
        fail_msg("\"%s\" is not in \"%s\"", why, error_get_pretty(err));
    error_free(err);
    perdure_stream_close(in);
}

static void ask_a(void)
{
    bool asked;

    a.questions = 1;
    perdure_stream_rewind(out);
    assert_true(replication_feeds_ask(out, QUESTION, 1, &asked, NULL));
    assert_true(asked);
}

static void test_hostile_replies(void **state)
{
    (void)state;
    refuse_reply("a", 1, "replication feed a: a reply, but nothing was asked");
    ask_a();
    refuse_reply("b", 1, "replication feed b: a reply, but nothing was asked");
    refuse_reply("a", 2, "bytes are left over");
    refuse_reply("a", 1, "nothing was asked"); /* the one reply has come */
    ask_a();
    refuse_reply("a", 0, "it ends too early");
    ask_a();
    refuse_reply("z", 1, "nothing on this side has that id");
    replication_feed_remove(&a.feed);
    assert_true(replication_feed_add(&a.feed, NULL));
    refuse_reply("a", 1, "nothing was asked"); /* gone with the one that asked */
}

static void test_nothing_to_do(void **state)
{
    bool asked = true;

    (void)state;
    a.feed.ops = b.feed.ops = &no_ops;
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, 1 << 20), 0);
    assert_true(replication_feeds_ask(out, QUESTION, 1, &asked, NULL));
    assert_false(asked);
    assert_false(replication_feeds_full());
    assert_int_equal(replication_feeds_left(), 0);
    assert_int_equal(perdure_stream_bytes(out), 0);
}

/* A broken stream ends the walk; nothing is lost in a loop. */
static void test_stream_that_fails(void **state)
{
    bool asked;

    (void)state;
    give(&a, 1, 1);
    a.questions = 1;
    perdure_stream_set_error(out, -EIO, "broken");
    assert_int_equal(replication_feeds_next(1, out, MESSAGE, 5, 1 << 20), 0);
    assert_false(replication_feeds_ask(out, QUESTION, 1, &asked, NULL));
    assert_false(asked);
}

static void count(void *opaque)
{
    ++*(int *)opaque;
}

static void test_listener(void **state)
{
    int calls = 0;

    (void)state;
    replication_feed_waiting(&a.feed);
    replication_feeds_set_listener(count, &calls);
    replication_feed_waiting(&a.feed);
    replication_feed_waiting(&b.feed);
    replication_feeds_set_listener(NULL, NULL);
    replication_feed_waiting(&b.feed);
    assert_int_equal(calls, 2);
}

/* Each side of a simulated pair has its own. */
static void test_contexts(void **state)
{
    struct registry_context *other = registry_context_new();
    ReplicationFeed same = {.id = "a", .ops = &no_ops};

    (void)state;
    registry_context_switch(other);
    assert_true(replication_feed_add(&same, NULL));
    replication_feed_remove(&same);
    registry_context_switch(NULL);
    registry_context_free(other);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_ids),
        TEST(test_messages_in_order),
        TEST(test_budget),
        TEST(test_message_too_long),
        TEST(test_message_of_several_frames),
        TEST(test_full_and_left),
        TEST(test_questions),
        TEST(test_question_fails),
        TEST(test_hostile_messages),
        TEST(test_hostile_replies),
        TEST(test_nothing_to_do),
        TEST(test_stream_that_fails),
        TEST(test_listener),
        TEST(test_contexts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
