/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Wire: the records that a primary and a backup exchange (docs/wire-format.md, part 2), put and got field by
 * field. What comes from the stream is bounded here; what it means is checked by the caller.
 */
#ifndef ENGINE_WIRE_H
#define ENGINE_WIRE_H

#include "guest/guest.h"
#include "base/uuid.h"
#include "stream/lanes.h"

#define WIRE_MAGIC      UINT32_C(0x45525550) /* "PURE" */
#define WIRE_VERSION    5
#define WIRE_TEXT_MAX   4096         /* of a refusal or a failure, with the NUL */
#define WIRE_CONFIG_MAX (512u << 20) /* kernel and initrd travel in it */

/* Numbers are never used again for something else. -> primary to backup, <- backup to primary. */
enum wire_record {
    WIRE_HELLO = 0x20,      /* -> the first record of each connection */
    WIRE_HELLO_OK = 0x21,   /* <- */
    WIRE_REFUSE = 0x22,     /* <- text: every reason, one a line; the connection ends */
    WIRE_CONFIG = 0x23,     /* -> the machine's configuration */
    WIRE_CONFIG_OK = 0x24,  /* <- */
    WIRE_START = 0x25,      /* -> start replication (both machines stand still) */
    WIRE_STARTED = 0x26,    /* <- */
    WIRE_SYNC_PAGES = 0x27, /* -> pages, applied at once; only before the first END */
    WIRE_PAGES = 0x28,      /* -> pages of epoch id */
    WIRE_END = 0x29,        /* -> the epoch is complete */
    WIRE_ACK = 0x2a,        /* <- the backup holds it, checked */
    WIRE_PROBE = 0x2b,      /* -> are you still my backup? */
    WIRE_PROBE_OK = 0x2c,   /* <- */
    WIRE_FAIL = 0x2d,    /* <- text: the other side cannot go on, and will never claim in this generation */
    WIRE_GOODBYE = 0x2e, /* -> text: protection ends; the primary goes on */
    WIRE_GOODBYE_OK = 0x2f, /* <- the backup will never claim in this generation */
    WIRE_RUN = 0x30, /* -> permission to run, after an acknowledged END with WIRE_END_SWAP, or LOADED */
    WIRE_RUNNING =
        0x31, /* <- the guest is the backup's, in generation id: it runs, or after a swap soon will */
    WIRE_NOT_STARTED = 0x32, /* <- text: it does not, and never will in this generation */
    WIRE_ENDED = 0x33,       /* -> the guest ended, as the acknowledged state says */
    WIRE_ENDED_OK = 0x34,    /* <- */
    WIRE_FEED = 0x35,        /* -> a message of a replicating component, part of epoch id */
    WIRE_FEED_REPLY = 0x36,  /* <- the reply to one that was a question */
    WIRE_LOADED = 0x37,      /* <- in a migration: the whole state is in the destination's machine */
    WIRE_PING = 0x38,        /* on the heartbeat connection; id counts */
    WIRE_PONG = 0x39,
    WIRE_WANT = 0x3a,    /* <- on the urgent connection: somebody waits for page id */
    WIRE_WANTED = 0x3b,  /* -> there: page id, as of page_codec.h */
    WIRE_LACK = 0x3c,    /* <- after WIRE_KIND_RESUME: runs of the pages that have not come */
    WIRE_FETCHED = 0x3d, /* <- all memory is here: the source has served its time */
    /* The backup moves: A is the primary, B its backup, S the successor. */
    WIRE_MOVE = 0x3e,      /* A to B, text: move to this address */
    WIRE_NOT_MOVED = 0x3f, /* B to A, text: it was not, and B remains the backup */
    WIRE_MOVED = 0x40,     /* B to A, text: the successor at this address holds what the next ACK names */
    WIRE_LET_GO = 0x41,    /* A to B: it is connected to the successor, which shall be the backup */
    WIRE_STAY = 0x42,      /* A to B, text: it is not, and B remains the backup */
    WIRE_SUCCEED = 0x43,   /* B to S: from here on it is, and B never claims in this generation */
    WIRE_SUCCEEDED = 0x44, /* S to B and to A: it is, and holds epoch id; B to A: B is none any more */
};

enum wire_kind {
    WIRE_KIND_MAIN, /* of a protection */
    WIRE_KIND_HEARTBEAT,
    WIRE_KIND_CHECK,
    WIRE_KIND_MIGRATE,   /* the main connection of a migration */
    WIRE_KIND_URGENT,    /* beside it, in postcopy: pages that somebody waits for */
    WIRE_KIND_RESUME,    /* the main connection once more, after a broken link in postcopy */
    WIRE_KIND_SUCCESSOR, /* the main connection from a backup to its successor */
    WIRE_KIND_FOLLOW,    /* and from the primary to the same: later the main one */
    WIRE_KIND_CHANNEL,   /* beside the main connection of a migration: a lane of its memory */
    WIRE_KINDS
};

struct wire_hello {
    enum wire_kind kind;
    char vm[64];
    char pair[UUID_TEXT_SIZE];
    uint64_t generation;
    uint64_t session; /* random; joins the connections of a link */
    int64_t timeout_ns, interval_ns, min_epoch_ns;
    uint32_t verify_every;
    bool delta, postcopy;
    char arbiter[1100];
    uint64_t ram_size;
    /* The protection that this primary was granted to go on alone from; pair empty: none. */
    char went_on_pair[UUID_TEXT_SIZE];
    uint64_t went_on_generation;
    uint8_t lanes; /* of this migration: channels beside the main connection, at most LANES_MAX; else 0 */
    uint8_t lane;  /* WIRE_KIND_CHANNEL: which of them this connection is, from 1; else 0 */
};

#define WIRE_END_FIRST  1u /* the backup loads it, reads it back and compares */
#define WIRE_END_SWAP   2u /* the primary stands still after it */
#define WIRE_END_HASHED 4u /* hash is that of all RAM */

struct wire_end {
    uint64_t generation, epoch;
    uint64_t pages;
    uint64_t hash;
    uint32_t crc; /* CRC32C of every frame of the epoch before this record, in order */
    uint8_t flags;
    uint8_t request; /* enum guest_request */
};

#define WIRE_ACK_HANDOVER 1u /* the backup's user asks for a swap */

struct wire_ack {
    uint64_t generation, epoch;
    uint32_t crc; /* computed by the backup */
    uint8_t flags;
};

/* "heartbeat" */
const char *wire_kind_name(enum wire_kind kind);

/* The next record; an end of the stream is an error (errno ECONNRESET). */
bool wire_next(VMStream *in, uint16_t *type, uint64_t *id, Error **errp);
/* Closes the record that was read; false with the stream's error if anything about it was wrong. */
bool wire_done(VMStream *in, Error **errp);
/* A record without contents, flushed. */
bool wire_send(VMStream *out, enum wire_record type, uint64_t id, Error **errp);
/* A record with a text, flushed. */
bool wire_send_text(VMStream *out, enum wire_record type, const char *text, Error **errp);
/* The text of such a record, for people: control characters but the newline are replaced. Closes the record.
 */
bool wire_get_text(VMStream *in, char text[WIRE_TEXT_MAX], Error **errp);
/* "unexpected record ..." as the sticky error of in. */
void wire_unexpected(VMStream *in, uint16_t type, const char *while_what);

bool wire_send_hello(VMStream *out, const struct wire_hello *h, Error **errp);
/* After wire_next() said WIRE_HELLO. Refuses, by name, another version and values out of range. */
bool wire_get_hello(VMStream *in, struct wire_hello *ret_hello, Error **errp);
/* config: a memory stream. Flushed. */
bool wire_send_config(VMStream *out, const VMStream *config, Error **errp);
/* Fills the empty memory buffer *ret_data (malloc). Closes the record. */
bool wire_get_config(VMStream *in, void **ret_data, size_t *ret_size, Error **errp);
bool wire_send_end(VMStream *out, const struct wire_end *end, Error **errp);
bool wire_get_end(VMStream *in, struct wire_end *ret_end, Error **errp);
bool wire_send_ack(VMStream *out, const struct wire_ack *ack, Error **errp);
bool wire_get_ack(VMStream *in, struct wire_ack *ret_ack, Error **errp);

#endif
