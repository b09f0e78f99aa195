/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disk messages: what the two halves of a replication group say to each other (docs/wire-format.md, part 5),
 * their octets and nothing else. Who says what when is in disk_sync.h and disk_target.h.
 *
 * What is got is checked against itself and against the record's length: counts, sizes of the data. Whether a
 * disk of that number is there, and the place inside of it, is the caller's to check; he looks at
 * perdure_stream_error() too.
 */
#ifndef BLOCK_DISK_MESSAGE_H
#define BLOCK_DISK_MESSAGE_H

#include <perdure/stream.h>

#include "block/epoch_writes.h"
#include "block/replication_group.h"

enum disk_message {
    DISK_MESSAGE_LAYOUT = 1,
    DISK_MESSAGE_WRITES = 2,
    DISK_MESSAGE_QUESTION = 3,
    DISK_MESSAGE_SYNC_OVER = 4,
    DISK_MESSAGE_REPLY = 5,
};

#define DISK_WRITE_MESSAGE_MAX (1u << 20) /* data of one write in a message that is accepted */
#define DISK_QUESTION_MAX      64         /* chunks in a question */
#define DISK_BITMAP_SIZE       (DISK_QUESTION_MAX / 8)

struct disk_layout {
    uint64_t limit; /* bytes that an epoch after the first may have, by forward_queue_cost() */
    uint32_t count;
    struct {
        char id[32];
        uint64_t size;
    } disks[REPLICATION_DISKS_MAX];
};

struct disk_question {
    uint32_t disk;
    uint64_t offset; /* of the first chunk */
    uint32_t count;  /* chunks, each of REPLICATION_CHUNK_SIZE but the last one of a disk */
    uint8_t hashes[DISK_QUESTION_MAX][DISK_HASH_SIZE];
};

struct disk_reply {
    uint32_t disk;
    uint64_t offset;
    uint32_t count;
    uint8_t differs[DISK_BITMAP_SIZE]; /* lowest bit first */
};

void disk_message_put_layout(VMStream *f, const struct disk_layout *l);
/* The first octet, the kind, has been got, here and below. */
bool disk_message_get_layout(VMStream *f, struct disk_layout *ret);

/* Where the writes of WRITES messages come from, and the one that is on its way. */
struct disk_writes_out {
    /* set by the user. The next write, taken; NULL with no error: there is none now. */
    struct disk_write *(*next)(void *opaque, Error **errp);
    void *opaque;
    /* private, but to be freed in the end */
    struct disk_write *part; /* in pieces; NULL: none */
    uint64_t part_sent;
};

/* As many as fit one message; false with no error: there was none, and nothing was put. */
bool disk_message_put_writes(struct disk_writes_out *o, VMStream *f, Error **errp);
/* NULL: an error, in f. */
struct disk_write *disk_message_get_write(VMStream *f);

void disk_message_put_question(VMStream *f, const struct disk_question *q);
bool disk_message_get_question(VMStream *f, struct disk_question *ret);
void disk_message_put_reply(VMStream *f, const struct disk_reply *r);
bool disk_message_get_reply(VMStream *f, struct disk_reply *ret);

#endif
