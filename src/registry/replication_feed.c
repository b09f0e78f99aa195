/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The feeds: a list in the order of their adding, and the walks of whoever runs the checkpoints. A message is
 * a record: the feed's id as a string, then the contents, which are the feed's own.
 */
#include <perdure/replication_feed.h>

#include "registry/context.h"
#include "stream/vmstream.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

#define ID_SIZE 32

static struct feed_list *feeds(void)
{
    struct feed_list *l = &registry_context_current()->feeds;

    if (!l->lock_ready) {
        task_mutex_init(&l->lock);
        l->lock_ready = true;
    }
    return l;
}

static void begin_walk(struct feed_list *l)
{
    task_lock(&l->lock);
    l->walks++;
    task_unlock(&l->lock);
}

static void end_walk(struct feed_list *l)
{
    task_lock(&l->lock);
    l->walks--;
    task_unlock(&l->lock);
}

static void assert_no_walk(struct feed_list *l)
{
    task_lock(&l->lock);
    assert(!l->walks);
    task_unlock(&l->lock);
}

static ReplicationFeed *find(const char *id)
{
    ReplicationFeed *feed = feeds()->first;

    while (feed && strcmp(feed->id, id))
        feed = feed->next;
    return feed;
}

bool replication_feed_add(ReplicationFeed *feed, Error **errp)
{
    struct feed_list *l = feeds();
    ReplicationFeed **end = &l->first;

    assert(feed->id && feed->ops);
    assert_no_walk(l);
    if (!feed->id[0] || strlen(feed->id) >= ID_SIZE) {
        error_setg(errp, "replication feed \"%s\": an id has 1 to %d bytes", feed->id, ID_SIZE - 1);
        return false;
    }
    if (find(feed->id)) {
        error_setg(errp, "replication feed %s: the id is taken by another feed", feed->id);
        return false;
    }
    while (*end)
        end = &(*end)->next;
    feed->next = NULL;
    *end = feed;
    return true;
}

void replication_feed_remove(ReplicationFeed *feed)
{
    struct feed_list *l = feeds();
    ReplicationFeed **link = &l->first;

    assert_no_walk(l);
    while (*link && *link != feed)
        link = &(*link)->next;
    if (!*link)
        return;
    *link = feed->next;
    feed->next = NULL;
    if (l->asked == feed)
        l->asked = NULL;
}

/* --- primary --- */

static void begin_message(const ReplicationFeed *feed, VMStream *f, uint16_t type, uint64_t id)
{
    perdure_stream_begin(f, type, id);
    perdure_stream_put_string(f, feed->id);
}

static void check_size(const ReplicationFeed *feed, VMStream *f, uint64_t before)
{
    uint64_t size = perdure_stream_bytes(f) - before;

    if (size > REPLICATION_MESSAGE_MAX + 1024) /* id and frame headers */
        perdure_stream_set_error(f, -EINVAL, "replication feed %s: a message of %llu bytes is too long",
                                 feed->id, (unsigned long long)size);
}

static bool next_message(ReplicationFeed *feed, uint64_t epoch, VMStream *f, uint16_t type, uint64_t id)
{
    uint64_t before = perdure_stream_bytes(f);

    begin_message(feed, f, type, id);
    if (perdure_stream_error(f, NULL))
        return false;
    if (!feed->ops->next(feed->opaque, epoch, f)) {
        vmstream_cancel(f);
        return false;
    }
    check_size(feed, f, before);
    perdure_stream_end(f);
    return !perdure_stream_error(f, NULL);
}

unsigned replication_feeds_next(uint64_t epoch, VMStream *f, uint16_t type, uint64_t id, size_t budget)
{
    uint64_t end = perdure_stream_bytes(f) + budget;
    struct feed_list *l = feeds();
    unsigned count = 0;

    begin_walk(l);
    for (ReplicationFeed *feed = l->first; feed; feed = feed->next) {
        while (feed->ops->next && perdure_stream_bytes(f) < end && next_message(feed, epoch, f, type, id))
            count++;
    }
    end_walk(l);
    return count;
}

bool replication_feeds_full(void)
{
    struct feed_list *l = feeds();
    bool full = false;

    begin_walk(l);
    for (ReplicationFeed *feed = l->first; feed && !full; feed = feed->next)
        full = feed->ops->full && feed->ops->full(feed->opaque);
    end_walk(l);
    return full;
}

uint64_t replication_feeds_left(void)
{
    struct feed_list *l = feeds();
    uint64_t left = 0;

    begin_walk(l);
    for (ReplicationFeed *feed = l->first; feed; feed = feed->next)
        left += feed->ops->left ? feed->ops->left(feed->opaque) : 0;
    end_walk(l);
    return left;
}

void replication_feeds_equal(void)
{
    struct feed_list *l = feeds();

    l->walks++;
    for (ReplicationFeed *feed = l->first; feed; feed = feed->next)
        if (feed->ops->equal)
            feed->ops->equal(feed->opaque);
    l->walks--;
}

void replication_feeds_verify(void)
{
    struct feed_list *l = feeds();

    begin_walk(l);
    for (ReplicationFeed *feed = l->first; feed; feed = feed->next)
        if (feed->ops->verify)
            feed->ops->verify(feed->opaque);
    end_walk(l);
}

/* An operation failed: it says why, or its stream does. Takes err. */
static bool failed(const ReplicationFeed *feed, VMStream *f, Error *err, Error **errp)
{
    if (!err)
        perdure_stream_error(f, &err);
    if (!err)
        error_setg(&err, "it failed and gave no reason");
    error_prepend(&err, "replication feed %s: ", feed->id);
    error_propagate(errp, err);
    return false;
}

/* *ret_asked: there is a question, in the record that this leaves open. */
static bool ask(ReplicationFeed *feed, VMStream *f, bool *ret_asked, Error **errp)
{
    Error *err = NULL;

    *ret_asked = feed->ops->ask(feed->opaque, f, &err);
    if (err || perdure_stream_error(f, NULL))
        return failed(feed, f, err, errp);
    return true;
}

static bool ask_one(ReplicationFeed *feed, VMStream *f, uint16_t type, uint64_t id, bool *ret_asked,
                    Error **errp)
{
    bool ok;

    begin_message(feed, f, type, id);
    ok = ask(feed, f, ret_asked, errp);
    if (!ok || !*ret_asked) {
        vmstream_cancel(f);
        return ok;
    }
    feeds()->asked = feed;
    perdure_stream_end(f);
    return !perdure_stream_error(f, errp);
}

bool replication_feeds_ask(VMStream *f, uint16_t type, uint64_t id, bool *ret_asked, Error **errp)
{
    struct feed_list *l = feeds();
    bool ok = true, asked = false;

    l->asked = NULL;
    begin_walk(l);
    for (ReplicationFeed *feed = l->first; feed && ok && !asked; feed = feed->next) {
        if (feed->ops->ask)
            ok = ask_one(feed, f, type, id, &asked, errp);
    }
    end_walk(l);
    *ret_asked = ok && asked;
    return ok;
}

/* --- messages that came --- */

/* The feed that f's record is for; NULL: none, with the error. */
static ReplicationFeed *addressee(VMStream *f, Error **errp)
{
    ReplicationFeed *feed;
    char id[ID_SIZE];

    if (!perdure_stream_get_string(f, id, sizeof(id))) {
        perdure_stream_error(f, errp);
        error_prepend(errp, "a message of a replication feed without an id: ");
        return NULL;
    }
    feed = find(id);
    if (!feed)
        error_setg(errp, "replication feed \"%s\": nothing on this side has that id", id);
    return feed;
}

/* Bytes left over are an error like any other. */
static bool close_message(const ReplicationFeed *feed, VMStream *f, bool ok, Error *err, Error **errp)
{
    if (ok && !err)
        perdure_stream_done(f);
    if (ok && !err && !perdure_stream_error(f, NULL))
        return true;
    return failed(feed, f, err, errp);
}

bool replication_feeds_answer(VMStream *f, Error **errp)
{
    struct feed_list *l = feeds();
    ReplicationFeed *feed = addressee(f, errp);
    Error *err = NULL;
    bool ok;

    if (!feed)
        return false;
    if (feed != l->asked || !feed->ops->answer) {
        error_setg(errp, "replication feed %s: a reply, but nothing was asked", feed->id);
        return false;
    }
    l->asked = NULL;
    begin_walk(l);
    ok = feed->ops->answer(feed->opaque, f, &err);
    end_walk(l);
    return close_message(feed, f, ok, err, errp);
}

static bool end_reply(const ReplicationFeed *feed, VMStream *reply, uint64_t empty, Error **errp)
{
    if (perdure_stream_bytes(reply) == empty)
        vmstream_cancel(reply);
    else
        perdure_stream_end(reply);
    return !perdure_stream_error(reply, NULL) || failed(feed, reply, NULL, errp);
}

static bool receive(ReplicationFeed *feed, VMStream *f, VMStream *reply, Error **errp)
{
    struct feed_list *l = feeds();
    uint64_t empty = perdure_stream_bytes(reply);
    Error *err = NULL;
    bool ok;

    begin_walk(l);
    ok = feed->ops->receive(feed->opaque, f, reply, &err);
    end_walk(l);
    if (close_message(feed, f, ok, err, errp))
        return end_reply(feed, reply, empty, errp);
    vmstream_cancel(reply);
    return false;
}

bool replication_feeds_receive(VMStream *f, VMStream *reply, uint16_t reply_type, Error **errp)
{
    ReplicationFeed *feed = addressee(f, errp);

    if (!feed)
        return false;
    if (!feed->ops->receive) {
        error_setg(errp, "replication feed %s: a message, but it takes none", feed->id);
        return false;
    }
    begin_message(feed, reply, reply_type, 0);
    return receive(feed, f, reply, errp);
}

/* --- a further standby --- */

static bool is_copying(struct feed_list *l)
{
    bool copying;

    task_lock(&l->lock);
    copying = l->copying;
    task_unlock(&l->lock);
    return copying;
}

static void set_copying(struct feed_list *l, bool copying)
{
    task_lock(&l->lock);
    l->copying = copying;
    task_unlock(&l->lock);
}

/* All before this one; NULL: all. */
static void end_copies(struct feed_list *l, const ReplicationFeed *before)
{
    for (ReplicationFeed *feed = l->first; feed != before; feed = feed->next) {
        if (feed->ops->copy_end)
            feed->ops->copy_end(feed->opaque);
    }
}

static bool begin_copy(const ReplicationFeed *feed, Error **errp)
{
    Error *err = NULL;

    if (feed->ops->receive && !feed->ops->copy_next)
        error_setg(&err, "it knows no further standby");
    else if (!feed->ops->copy_begin || feed->ops->copy_begin(feed->opaque, &err))
        return true;
    error_prepend(&err, "replication feed %s: ", feed->id);
    error_propagate(errp, err);
    return false;
}

static bool begin_copies(struct feed_list *l, Error **errp)
{
    for (ReplicationFeed *feed = l->first; feed; feed = feed->next) {
        if (!begin_copy(feed, errp)) {
            end_copies(l, feed);
            return false;
        }
    }
    return true;
}

bool replication_feeds_copy_begin(Error **errp)
{
    struct feed_list *l = feeds();

    if (is_copying(l)) {
        error_setg(errp, "replication feeds: a copy is under way already");
        return false;
    }
    begin_walk(l);
    if (!begin_copies(l, errp)) {
        end_walk(l);
        return false;
    }
    l->copied = NULL;
    l->last_pass = l->copy_failed = false;
    set_copying(l, true);
    return true;
}

/* *ret_put false: the feed's pass is over. */
static bool copy_message(ReplicationFeed *feed, VMStream *f, uint16_t type, uint64_t id, bool last,
                         bool *ret_put, Error **errp)
{
    uint64_t before = perdure_stream_bytes(f);
    Error *err = NULL;

    begin_message(feed, f, type, id);
    *ret_put = feed->ops->copy_next && feed->ops->copy_next(feed->opaque, f, last, &err);
    if (err || !*ret_put) {
        vmstream_cancel(f);
    } else {
        check_size(feed, f, before);
        perdure_stream_end(f);
    }
    return (!err && !perdure_stream_error(f, NULL)) || failed(feed, f, err, errp);
}

/* After an error something may be lost: taken, and not in any message that arrives. */
static bool may_go_on(struct feed_list *l, Error **errp)
{
    bool copying = is_copying(l);

    if (copying && !l->copy_failed)
        return true;
    error_setg(errp, "replication feeds: %s", copying ? "the copy has failed" : "no copy is under way");
    return false;
}

/* A pass that is the last begins anew: feeds that this pass has behind it may have changed since. */
static void enter_pass(struct feed_list *l, bool last)
{
    if (!l->copied || (last && !l->last_pass))
        l->copied = l->first;
    l->last_pass = last;
}

bool replication_feeds_copy(VMStream *f, uint16_t type, uint64_t id, size_t budget, bool last, bool *ret_more,
                            Error **errp)
{
    uint64_t end = perdure_stream_bytes(f) + budget;
    struct feed_list *l = feeds();
    bool ok = true, put;

    if (!may_go_on(l, errp))
        return false;
    enter_pass(l, last);
    while (ok && l->copied && perdure_stream_bytes(f) < end) {
        ok = copy_message(l->copied, f, type, id, last, &put, errp);
        if (ok && !put)
            l->copied = l->copied->next;
    }
    l->copy_failed = !ok;
    *ret_more = l->copied;
    return ok;
}

uint64_t replication_feeds_copy_left(void)
{
    struct feed_list *l = feeds();
    uint64_t left = 0;

    if (!is_copying(l))
        return 0;
    begin_walk(l);
    for (ReplicationFeed *feed = l->first; feed; feed = feed->next)
        left += feed->ops->copy_left ? feed->ops->copy_left(feed->opaque) : 0;
    end_walk(l);
    return left;
}

void replication_feeds_copy_end(void)
{
    struct feed_list *l = feeds();

    if (!is_copying(l))
        return;
    set_copying(l, false);
    end_copies(l, NULL);
    end_walk(l);
}

/* --- who waits --- */

void replication_feeds_set_listener(void (*waiting)(void *opaque), void *opaque)
{
    struct feed_list *l = feeds();

    task_lock(&l->lock);
    l->listener = waiting;
    l->listener_opaque = opaque;
    task_unlock(&l->lock);
}

/* Under the lock: once set_listener(NULL) has returned, nobody is inside the old one any more. */
void replication_feed_waiting(ReplicationFeed *feed)
{
    struct feed_list *l = feeds();

    (void)feed;
    task_lock(&l->lock);
    if (l->listener)
        l->listener(l->listener_opaque);
    task_unlock(&l->lock);
}
