/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ReplicationFeed: what a replicating component tells its other half, through the stream of the checkpoints.
 *
 * A ReplicationState (<perdure/replication.h>) says when replication starts, checkpoints and stops; a feed
 * carries what is replicated. The component on the primary gives messages, whoever checkpoints the machine
 * sends them in order on the connection that carries everything else, and the feed of the same id on the
 * secondary receives them. Neither knows what is inside. Both ends of a message must agree on it, so a feed
 * begins with a message that says what it is about, and checks on the other side that this is the same.
 *
 * Epochs. Every message belongs to the epoch in which the component gave it out; the epochs of a protection
 * are 1, 2, 3, ... All messages of N are sent before N is declared complete, none of a later one: the
 * component counts for itself (its checkpoint device's postsuspend(N) ends N). Before epoch 1 is complete,
 * and as part of it, the component brings the other half to the same content ("sync"): it asks, the other
 * half answers.
 *
 *     primary                                          secondary
 *     replication_feeds_ask()    -- question -->       receive() puts a reply
 *     replication_feeds_answer() <-- reply --          ...
 *     replication_feeds_next(N)  -- message -->        receive()             as they come, all before END(N)
 *     END(N)                     -->                   replication_do_checkpoint_all(): N's messages count
 *
 * A further standby. What the secondary holds can be brought to another secondary, while the first goes on
 * receiving and checkpointing. Each feed puts what its half of the other secondary receives as it would from
 * the primary before epoch 1; that half does not know the difference. Pass after pass, until little changes
 * meanwhile; then the last one, with no checkpoint in between, after which the two are equal:
 *
 *     secondary                                        further standby
 *     replication_feeds_copy_begin()
 *     replication_feeds_copy()       -- message -->    receive()             receives and checkpoints meanwhile
 *     ...                                              ...
 *     replication_feeds_copy(last)   -- message -->    receive()             until there is no more of it
 *                                                      replication_do_checkpoint_all(): its first one
 *     replication_feeds_copy_end()
 *     each message of the primary    -- verbatim -->   receive()             from then on
 *
 * Threads: add, remove and the walks are called by one thread at a time, as those of replication.h; those of a
 * copy by one other, beside it. A component that gives messages from elsewhere (an I/O thread) has its own
 * lock, and tells by replication_feed_waiting(), from any thread, that something waits or that the running
 * epoch should end.
 *
 * Example, a component that replicates a counter:
 *
 *     static bool counter_next(void *opaque, uint64_t epoch, VMStream *f)
 *     {
 *         struct counter *c = opaque;
 *
 *         if (c->sent == c->value || c->epoch > epoch)
 *             return false;                               // nothing (more) of this epoch
 *         perdure_stream_put_u64(f, c->sent = c->value);
 *         return true;
 *     }
 *
 *     static bool counter_receive(void *opaque, VMStream *f, VMStream *reply, Error **errp)
 *     {
 *         struct counter *c = opaque;
 *
 *         c->received = perdure_stream_get_u64(f);        // counts from the next checkpoint on
 *         return !perdure_stream_error(f, errp);
 *     }
 *
 *     static const ReplicationFeedOps counter_ops = {.next = counter_next, .receive = counter_receive};
 *     ReplicationFeed feed = {.id = "counter", .opaque = &c, .ops = &counter_ops};
 *     replication_feed_add(&feed, &err);
 */
#ifndef PERDURE_REPLICATION_FEED_H
#define PERDURE_REPLICATION_FEED_H

#include <perdure/error.h>
#include <perdure/stream.h>
#include <stdint.h>

/* Each may be NULL: nothing to do. f is an open record: the operation puts or gets the message's contents. */
typedef struct ReplicationFeedOps {
    /* Primary: puts the next message of an epoch up to this one; false: there is none now, and what was put
     * (less than PERDURE_STREAM_CHUNK) is taken back. At most REPLICATION_MESSAGE_MAX bytes. */
    bool (*next)(void *opaque, uint64_t epoch, VMStream *f);
    /* Primary: the messages of the running epoch have become so many that it should end. */
    bool (*full)(void *opaque);
    /* Primary, just started: the other half has the same content already, there is nothing to ask. */
    void (*equal)(void *opaque);
    /* Primary, the machine runs: puts the sync's next question; false with no error: all is equal, or was
     * never different. May wait for a disk. One question at a time: the next is asked when the last was
     * answered, and what followed from it was taken by next(). */
    bool (*ask)(void *opaque, VMStream *f, Error **errp);
    /* Primary: the reply to the last question; what follows from it comes by next(). */
    bool (*answer)(void *opaque, VMStream *f, Error **errp);
    /* Primary, the machine runs: some of what is replicated is to be compared, by a message of the running epoch.
     * May wait for a disk. */
    void (*verify)(void *opaque);
    /* Primary: bytes that the sync still has to look at. */
    uint64_t (*left)(void *opaque);
    /* Secondary: a message, hostile until checked. A question puts its reply; anything else puts nothing. */
    bool (*receive)(void *opaque, VMStream *f, VMStream *reply, Error **errp);
    /* Secondary, after its first checkpoint: another secondary is to be brought to what this one holds. From here
     * on what checkpoints change counts as changed. */
    bool (*copy_begin)(void *opaque, Error **errp);
    /* Puts the next message for it, as next() does; false with no error: nothing is left that had changed when this
     * pass began, and the next call begins the next pass. Another task than receive's and checkpoint's, which go on
     * meanwhile. May wait for a disk. last: from the first such call on no checkpoint happens, and nothing was
     * received since the last one; what is put up to the false makes the two equal. An error ends the copy, and
     * leaves all else as it is. */
    bool (*copy_next)(void *opaque, VMStream *f, bool last, Error **errp);
    /* Bytes left to copy. Any task. */
    uint64_t (*copy_left)(void *opaque);
    /* No copy_next() is under way, or will come. Before the stop of replication, else it happens with that. */
    void (*copy_end)(void *opaque);
} ReplicationFeedOps;

#define REPLICATION_MESSAGE_MAX (1u << 20)

typedef struct ReplicationFeed {
    const char *id; /* the same on both sides; at most 31 bytes */
    void *opaque;
    const ReplicationFeedOps *ops; /* borrowed */
    /* private to the registry */
    struct ReplicationFeed *next;
} ReplicationFeed;

/* feed is borrowed until removed; false if the id is taken, empty or too long. Not from inside an operation
 * of a feed, and remove neither. */
bool replication_feed_add(ReplicationFeed *feed, Error **errp);
/* Nothing happens if it was not added. */
void replication_feed_remove(ReplicationFeed *feed);

/* --- for whoever runs the checkpoints --- */

/* Puts into f, between perdure_stream_begin() and _end() of type and id, one record a message: the feed's id
 * and the contents; every message of an epoch up to this one that waits now, but not much more than budget
 * bytes. The number of records; 0: nothing waits. */
unsigned replication_feeds_next(uint64_t epoch, VMStream *f, uint16_t type, uint64_t id, size_t budget);
bool replication_feeds_full(void);
/* One question into one record; the feeds are asked in order. *ret_asked false: the sync of every feed is
 * over. */
bool replication_feeds_ask(VMStream *f, uint16_t type, uint64_t id, bool *ret_asked, Error **errp);
/* f: the reply's record, open, closed by this. It must be of the feed that was asked last. */
bool replication_feeds_answer(VMStream *f, Error **errp);
uint64_t replication_feeds_left(void);
void replication_feeds_equal(void);
void replication_feeds_verify(void);
/* f: a message's record, open, closed by this. Where a reply is due it is one record of reply_type in reply
 * (which is empty before). An id that no feed has is an error by name. */
bool replication_feeds_receive(VMStream *f, VMStream *reply, uint16_t reply_type, Error **errp);

/* --- for whoever brings a further standby to what this side, a secondary, holds --- */

/* All feeds, or none; refused where one that receives messages cannot be copied. Until the end of the copy no
 * feed comes or goes. */
bool replication_feeds_copy_begin(Error **errp);
/* One batch of messages of about budget bytes, as replication_feeds_next() puts them. *ret_more false: this pass is
 * over for all feeds; the next call begins the next pass, and so does the first one that is the last. */
bool replication_feeds_copy(VMStream *f, uint16_t type, uint64_t id, size_t budget, bool last, bool *ret_more,
                            Error **errp);
/* 0 if none is under way. Any task. */
uint64_t replication_feeds_copy_left(void);
/* Nothing happens if none is under way. */
void replication_feeds_copy_end(void);

/* Something waits, or the epoch should end: calls the listener (one; NULL removes it), which must only wake
 * somebody: no walk may be called from there, or with a lock that it takes. */
void replication_feed_waiting(ReplicationFeed *feed);
void replication_feeds_set_listener(void (*waiting)(void *opaque), void *opaque);

#endif
