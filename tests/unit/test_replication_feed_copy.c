/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Feeds: the walks for a further standby. */
#include "registry/context.h"
#include "stream/vmstream.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define MESSAGE 0x70

/* A component that has numbers to copy, and is its own other half. */
struct numbers {
    ReplicationFeed feed;
    unsigned changed, in_pass; /* left for the next pass, and for this one */
    unsigned begun, ended;
    bool passing, over, copy_fails, cannot_begin;
    uint64_t received[8];
    unsigned received_count;
};

static bool numbers_receive(void *opaque, VMStream *f, VMStream *reply, Error **errp)
{
    struct numbers *n = opaque;

    (void)reply;
    n->received[n->received_count++] = perdure_stream_get_u64(f);
    return !perdure_stream_error(f, errp);
}

static bool numbers_copy_begin(void *opaque, Error **errp)
{
    struct numbers *n = opaque;

    if (n->cannot_begin)
        error_setg(errp, "nothing was checkpointed yet");
    n->begun += !n->cannot_begin;
    return !n->cannot_begin;
}

/* In the last pass what changed counts too, and 99 comes once behind it. */
static bool numbers_copy_next(void *opaque, VMStream *f, bool last, Error **errp)
{
    struct numbers *n = opaque;
    bool put;

    if (n->copy_fails) {
        error_setg(errp, "cannot read");
        return false;
    }
    if (!n->passing || last) {
        n->in_pass += n->changed;
        n->changed = 0;
    }
    n->passing = put = n->in_pass || (last && !n->over);
    perdure_stream_put_u64(f, n->in_pass ? n->in_pass : 99);
    n->over = n->over || (put && !n->in_pass);
    n->in_pass -= n->in_pass > 0;
    return put;
}

static uint64_t numbers_copy_left(void *opaque)
{
    return ((struct numbers *)opaque)->in_pass + ((struct numbers *)opaque)->changed;
}

static void numbers_copy_end(void *opaque)
{
    ((struct numbers *)opaque)->ended++;
}

static const ReplicationFeedOps all_ops = {
    .receive = numbers_receive,
    .copy_begin = numbers_copy_begin,
    .copy_next = numbers_copy_next,
    .copy_left = numbers_copy_left,
    .copy_end = numbers_copy_end,
};
static const ReplicationFeedOps receive_ops = {.receive = numbers_receive};
static const ReplicationFeedOps no_ops;

static struct numbers a, b;
static VMStream *out, *reply;

static void init(struct numbers *n, const char *id)
{
    *n = (struct numbers){.feed = {.id = id, .opaque = n, .ops = &all_ops}};
    assert_true(replication_feed_add(&n->feed, NULL));
}

static int begin(void **state)
{
    (void)state;
    init(&a, "a");
    init(&b, "b");
    out = perdure_stream_open_memory(0);
    reply = perdure_stream_open_memory(0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    replication_feeds_copy_end();
    assert_int_equal(registry_context_current()->feeds.walks, 0);
    replication_feed_remove(&a.feed);
    replication_feed_remove(&b.feed);
    perdure_stream_close(out);
    perdure_stream_close(reply);
    return 0;
}

static void assert_error(Error *err, const char *expected)
{
    assert_non_null(err);
    assert_string_equal(error_get_pretty(err), expected);
    error_free(err);
}

/* Every record of out to replication_feeds_receive(). */
static void deliver(void)
{
    VMStream *in = vmstream_reopen_memory(out);
    uint16_t type;
    uint64_t id;

    while (perdure_stream_next(in, &type, &id)) {
        assert_int_equal(type, MESSAGE);
        assert_int_equal(id, 5);
        assert_true(replication_feeds_receive(in, reply, 0, NULL));
    }
    assert_int_equal(perdure_stream_error(in, NULL), 0);
    perdure_stream_close(in);
}

/* Batches up to the end of the pass; a and b receive them. */
static void copy_pass(bool last)
{
    bool more = true;

    while (more) {
        perdure_stream_rewind(out);
        assert_true(replication_feeds_copy(out, MESSAGE, 5, 100, last, &more, NULL));
        deliver();
    }
}

static void assert_received(const struct numbers *n, unsigned count, ...)
{
    va_list ap;

    assert_int_equal(n->received_count, count);
    va_start(ap, count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(n->received[i], va_arg(ap, int));
    va_end(ap);
}

static void test_copy(void **state)
{
    (void)state;
    a.changed = 2;
    b.changed = 1;
    assert_int_equal(replication_feeds_copy_left(), 0);
    assert_true(replication_feeds_copy_begin(NULL));
    assert_int_equal(replication_feeds_copy_left(), 3);
    copy_pass(false);
    assert_received(&a, 2, 2, 1);
    assert_received(&b, 1, 1);
    copy_pass(false);
    assert_int_equal(a.received_count + b.received_count, 3);
    b.changed = 1;
    copy_pass(false);
    assert_received(&b, 2, 1, 1);
    a.changed = 1;
    copy_pass(true);
    copy_pass(true); /* nothing twice */
    assert_received(&a, 4, 2, 1, 1, 99);
    assert_received(&b, 3, 1, 1, 99);
    replication_feeds_copy_end();
    replication_feeds_copy_end();
    assert_int_equal(a.ended, 1);
    assert_int_equal(b.ended, 1);
    assert_int_equal(replication_feeds_copy_left(), 0);
}

/* What a pass has behind it may have changed when the last one begins in its middle. */
static void test_last_pass_begins_anew(void **state)
{
    bool more;

    (void)state;
    a.changed = 1;
    b.changed = 3;
    assert_true(replication_feeds_copy_begin(NULL));
    for (int i = 0; i < 2; i++) {
        assert_true(replication_feeds_copy(out, MESSAGE, 5, 1, false, &more, NULL));
        assert_true(more);
        deliver();
        perdure_stream_rewind(out);
    }
    assert_received(&a, 1, 1);
    assert_received(&b, 1, 3);
    a.changed = 2;
    copy_pass(true);
    assert_received(&a, 4, 1, 2, 1, 99);
    assert_received(&b, 4, 3, 2, 1, 99);
    replication_feeds_copy_end();
}

static void test_copy_does_not_begin(void **state)
{
    Error *err = NULL;
    bool more;

    (void)state;
    b.cannot_begin = true;
    assert_false(replication_feeds_copy_begin(&err));
    assert_error(err, "replication feed b: nothing was checkpointed yet");
    assert_int_equal(a.begun, 1);
    assert_int_equal(a.ended, 1);
    assert_int_equal(b.ended, 0);
    b.feed.ops = &receive_ops;
    err = NULL;
    assert_false(replication_feeds_copy_begin(&err));
    assert_error(err, "replication feed b: it knows no further standby");
    b.feed.ops = &no_ops;
    err = NULL;
    assert_false(replication_feeds_copy(out, MESSAGE, 5, 100, false, &more, &err));
    assert_error(err, "replication feeds: no copy is under way");
    assert_true(replication_feeds_copy_begin(NULL));
    err = NULL;
    assert_false(replication_feeds_copy_begin(&err));
    assert_error(err, "replication feeds: a copy is under way already");
    copy_pass(true);
    assert_received(&a, 1, 99);
    replication_feeds_copy_end();
}

static void test_copy_fails(void **state)
{
    Error *err = NULL;
    bool more;

    (void)state;
    a.changed = b.changed = 1;
    assert_true(replication_feeds_copy_begin(NULL));
    b.copy_fails = true;
    assert_false(replication_feeds_copy(out, MESSAGE, 5, 100, false, &more, &err));
    assert_error(err, "replication feed b: cannot read");
    deliver(); /* whole messages, and nothing half-written */
    assert_received(&a, 1, 1);
    b.copy_fails = false;
    err = NULL;
    assert_false(replication_feeds_copy(out, MESSAGE, 5, 100, true, &more, &err));
    assert_error(err, "replication feeds: the copy has failed");
    replication_feeds_copy_end();
    assert_int_equal(b.ended, 1);
    assert_true(replication_feeds_copy_begin(NULL));
    perdure_stream_set_error(out, -EIO, "broken");
    assert_false(replication_feeds_copy(out, MESSAGE, 5, 100, false, &more, NULL));
}

static void test_nothing_to_copy(void **state)
{
    bool more = true;

    (void)state;
    a.feed.ops = b.feed.ops = &no_ops;
    assert_true(replication_feeds_copy_begin(NULL));
    assert_true(replication_feeds_copy(out, MESSAGE, 5, 100, true, &more, NULL));
    assert_false(more);
    assert_int_equal(perdure_stream_bytes(out), 0);
    replication_feeds_copy_end();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_copy),       TEST(test_last_pass_begins_anew), TEST(test_copy_does_not_begin),
        TEST(test_copy_fails), TEST(test_nothing_to_copy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
