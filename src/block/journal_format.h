/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Journal format: the journal's octets (docs/disk-format.md). Nothing here reads or writes a disk.
 *
 * The encoders trust what they are given; the decoders trust nothing. Those of marks and heads do not say why
 * something is not one: free space, an older use and a torn write are all the same to a reader.
 */
#ifndef BLOCK_JOURNAL_FORMAT_H
#define BLOCK_JOURNAL_FORMAT_H

#include "block/journal.h"

#define JOURNAL_BLOCK      4096u /* everything begins at a multiple of it */
#define JOURNAL_MARK_SIZE  44
#define JOURNAL_HEAD_SIZE  64
#define JOURNAL_WRITE_SIZE 32
#define JOURNAL_PADDING    8 /* a write's data is filled up with zeroes to a multiple of it */

#define JOURNAL_MARK_OFFSET(turn)    (JOURNAL_BLOCK * (1 + (turn) % 2))
#define JOURNAL_SEGMENT_OFFSET(h, n) (3 * JOURNAL_BLOCK + (uint64_t)(n) * (h)->segment_size)

struct journal_header {
    struct journal_identity identity;
    uint64_t id; /* random: what an older journal left in the same file does not count */
    uint64_t segment_size;
};

/* All epochs up to this number are in place. */
struct journal_mark {
    uint64_t turn; /* 0, 1, 2, ...: the higher one counts */
    uint64_t number, epoch;
};

struct journal_head {
    uint64_t number, epoch;
    uint64_t durable; /* all up to this number were durable before this one was written */
    uint64_t body_size, count;
    uint32_t body_crc;
};

/* The header for a journal of so many bytes; false: the size or the identity will not do. */
bool journal_header_init(struct journal_header *ret, const struct journal_identity *identity, uint64_t size,
                         const char *name, Error **errp);
void journal_header_encode(const struct journal_header *h, uint8_t out[JOURNAL_BLOCK]);
/* size: of the journal, in bytes. name: for messages. */
bool journal_header_decode(const uint8_t in[JOURNAL_BLOCK], uint64_t size, const char *name,
                           struct journal_header *ret, Error **errp);

void journal_mark_encode(const struct journal_mark *m, uint64_t id, uint8_t out[JOURNAL_MARK_SIZE]);
bool journal_mark_decode(const uint8_t in[JOURNAL_MARK_SIZE], uint64_t id, struct journal_mark *ret);

void journal_head_encode(const struct journal_head *h, uint64_t id, uint8_t out[JOURNAL_HEAD_SIZE]);
bool journal_head_decode(const uint8_t in[JOURNAL_HEAD_SIZE], uint64_t id, struct journal_head *ret);
/* What an epoch with such a body takes, UINT64_MAX if that is no number. */
uint64_t journal_epoch_size(uint64_t body_size);

/* An epoch's body, piece by piece. false: a sink said so. */
typedef bool journal_sink(void *opaque, const void *data, size_t n, Error **errp);
bool journal_body_encode(const struct epoch_writes *w, journal_sink *sink, void *opaque, Error **errp);
uint64_t journal_body_size(const struct epoch_writes *w);
uint32_t journal_body_crc(const struct epoch_writes *w);
/* body: head->body_size bytes whose CRC is right. */
struct epoch_writes *journal_body_decode(const struct journal_identity *identity,
                                         const struct journal_head *head, const uint8_t *body, Error **errp);

/* May a journal of these disks hold such a write? */
bool journal_write_check(const struct journal_identity *identity, const struct disk_write *d, Error **errp);

#endif
