/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk pair: two replication groups in one process, each in a registry context of its own, on disks in
 * memory, and what an engine does for them. One thread, so every step is the test's.
 *
 *     pair_open(2, 200000);
 *     pair_start();                        both
 *     pair_sync();                         until nothing is asked any more
 *     ...                                  block_write(pair.a.top[0], ...)
 *     pair_checkpoint();                   postsuspend, messages, checkpoint
 *     pair_close();
 */
#ifndef TESTS_DISK_PAIR_H
#define TESTS_DISK_PAIR_H

#include "base/fault.h"
#include "block/replication_filter.h"
#include "memory_block.h"
#include "registry/context.h"
#include "stream/vmstream.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

#define PAIR_MESSAGE  0x70
#define PAIR_QUESTION 0x71
#define PAIR_REPLY    0x72

#define PAIR_DISKS 3 /* at most */

struct pair_side {
    struct registry_context *context;
    ReplicationGroup *group;
    unsigned count;
    struct memory_block *disk[PAIR_DISKS];
    Block *top[PAIR_DISKS];
    struct memory_block *journal; /* the last one that was made; it belongs to the group */
    bool no_journal;
};

static struct disk_pair {
    struct pair_side a, b; /* primary, backup; or as the test wants */
    uint64_t epoch;        /* the last one that was checkpointed */
    VMStream *out, *reply;
} pair;

static inline Block *pair_open_journal(void *opaque, Error **errp)
{
    struct pair_side *s = opaque;

    if (s->no_journal) {
        error_setg(errp, "no room for a journal");
        return NULL;
    }
    s->journal = memory_block_new("journal", 4 << 20);
    return &s->journal->block;
}

/* Who is there already stays: other threads may look at it then. */
static inline void pair_enter(struct pair_side *s)
{
    if (!s || registry_context_current() != s->context)
        registry_context_switch(s ? s->context : NULL);
}

/* Without disks; to be followed by pair_side_ready(). */
static inline void pair_side_begin(struct pair_side *s, uint64_t limit)
{
    struct replication_group_options o = {
        .queue_limit = limit, .open_journal = pair_open_journal, .open_journal_opaque = s};

    *s = (struct pair_side){.context = registry_context_new()};
    pair_enter(s);
    s->group = replication_group_new(&o, NULL);
    assert_non_null(s->group);
    replication_group_set_pair(s->group, "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11", 1);
}

/* end: the end of the chain, whose bytes m has. */
static inline void pair_side_add(struct pair_side *s, unsigned i, struct memory_block *m, Block *end)
{
    s->count++;
    s->disk[i] = m;
    s->top[i] = replication_filter_new(s->group, end, NULL);
    assert_non_null(s->top[i]);
}

static inline void pair_side_ready(void)
{
    replication_group_register();
    assert_true(checkpoint_devices_setup_wait(NULL));
}

static inline void pair_side_open(struct pair_side *s, unsigned count, uint64_t size, uint64_t limit)
{
    pair_side_begin(s, limit);
    for (unsigned i = 0; i < count; i++) {
        struct memory_block *m = memory_block_new(i ? "data" : "root", size + i * 1000);

        pair_side_add(s, i, m, &m->block);
    }
    pair_side_ready();
}

static inline void pair_side_close(struct pair_side *s)
{
    pair_enter(s);
    replication_stop_all(false, NULL);
    checkpoint_devices_teardown(true);
    for (unsigned i = 0; i < s->count; i++) {
        block_drain(s->top[i]);
        block_close(s->top[i]);
    }
    replication_group_free(s->group);
    pair_enter(NULL);
    registry_context_free(s->context);
}

static inline void pair_open_limited(unsigned count, uint64_t size, uint64_t limit)
{
    fault_disarm_all();
    pair.epoch = 0;
    pair_side_open(&pair.a, count, size, limit);
    pair_side_open(&pair.b, count, size, limit);
    pair.out = perdure_stream_open_memory(0);
    pair.reply = perdure_stream_open_memory(0);
}

static inline void pair_open(unsigned count, uint64_t size)
{
    pair_open_limited(count, size, 1 << 20);
}

static inline void pair_close(void)
{
    pair_side_close(&pair.a);
    pair_side_close(&pair.b);
    perdure_stream_close(pair.out);
    perdure_stream_close(pair.reply);
    fault_disarm_all();
}

/* What is in f is received by s; false and the error of the first message that was refused. */
static inline bool pair_deliver_from(VMStream *f, struct pair_side *s, Error **errp)
{
    VMStream *in = vmstream_reopen_memory(f);
    uint16_t type;
    uint64_t id;
    bool ok = true;

    pair_enter(s);
    perdure_stream_rewind(pair.reply);
    while (ok && perdure_stream_next(in, &type, &id))
        ok = replication_feeds_receive(in, pair.reply, PAIR_REPLY, errp);
    assert_true(!ok || !perdure_stream_error(in, NULL));
    perdure_stream_close(in);
    return ok;
}

static inline bool pair_deliver(struct pair_side *s, Error **errp)
{
    return pair_deliver_from(pair.out, s, errp);
}

/* All messages of an epoch up to this one, from a to b. */
static inline bool pair_messages(uint64_t epoch, Error **errp)
{
    for (;;) {
        unsigned n;

        perdure_stream_rewind(pair.out);
        pair_enter(&pair.a);
        n = replication_feeds_next(epoch, pair.out, PAIR_MESSAGE, epoch, 1 << 20);
        assert_int_equal(perdure_stream_error(pair.out, NULL), 0);
        if (!n)
            return true;
        if (!pair_deliver(&pair.b, errp))
            return false;
    }
}

/* The reply in pair.reply, to the primary. */
static inline bool pair_answer(Error **errp)
{
    VMStream *in = vmstream_reopen_memory(pair.reply);
    uint16_t type;
    uint64_t id;
    bool ok;

    pair_enter(&pair.a);
    assert_true(perdure_stream_next(in, &type, &id));
    ok = replication_feeds_answer(in, errp);
    perdure_stream_close(in);
    return ok;
}

/* One question and what follows from it. *ret_more false: there was none. */
static inline bool pair_sync_step(bool *ret_more, Error **errp)
{
    if (!pair_messages(1, errp))
        return false;
    perdure_stream_rewind(pair.out);
    pair_enter(&pair.a);
    if (!replication_feeds_ask(pair.out, PAIR_QUESTION, 1, ret_more, errp))
        return false;
    return !*ret_more || (pair_deliver(&pair.b, errp) && pair_answer(errp));
}

static inline bool pair_try_sync(Error **errp)
{
    bool more = true;

    while (more) {
        if (!pair_sync_step(&more, errp))
            return false;
    }
    return pair_messages(1, errp);
}

static inline void pair_sync(void)
{
    assert_true(pair_try_sync(NULL));
}

static inline bool pair_start_side(struct pair_side *s, enum ReplicationMode mode, Error **errp)
{
    pair_enter(s);
    return replication_start_all(mode, errp);
}

static inline void pair_start(void)
{
    assert_true(pair_start_side(&pair.b, REPLICATION_MODE_SECONDARY, NULL));
    assert_true(pair_start_side(&pair.a, REPLICATION_MODE_PRIMARY, NULL));
}

static inline void pair_end_epoch(void)
{
    pair_enter(&pair.a);
    assert_true(checkpoint_devices_postsuspend(pair.epoch + 1, NULL));
}

static inline bool pair_try_finish_epoch(Error **errp)
{
    if (!pair_messages(pair.epoch + 1, errp))
        return false;
    pair_enter(&pair.b);
    if (!replication_do_checkpoint_all(errp) || !replication_get_error_all(errp))
        return false;
    pair_enter(&pair.a);
    pair.epoch++;
    return replication_get_error_all(errp);
}

static inline void pair_checkpoint(void)
{
    pair_end_epoch();
    assert_true(pair_try_finish_epoch(NULL));
}

static inline void pair_protect(void)
{
    pair_start();
    pair_sync();
    pair_checkpoint();
}

static inline bool pair_stop(struct pair_side *s, bool failover, Error **errp)
{
    pair_enter(s);
    return replication_stop_all(failover, errp);
}

static inline struct replication_group_figures pair_figures(const struct pair_side *s)
{
    struct replication_group_figures f;

    replication_group_figures(s->group, &f);
    return f;
}

static inline bool pair_equal(void)
{
    for (unsigned i = 0; i < pair.a.count; i++) {
        if (memcmp(pair.a.disk[i]->bytes, pair.b.disk[i]->bytes, pair.a.disk[i]->block.size))
            return false;
    }
    return true;
}

static inline void pair_expect_error(Error *err, const char *text)
{
    assert_non_null(err);
    if (!strstr(error_get_pretty(err), text))
        fail_msg("\"%s\" is not in \"%s\"", text, error_get_pretty(err));
    error_free(err);
}

static inline void pair_fill(Block *b, uint64_t offset, uint8_t value, size_t n)
{
    uint8_t *bytes = malloc(n);

    memset(bytes, value, n);
    assert_true(block_write(b, offset, bytes, n, NULL));
    free(bytes);
}

#endif
