/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stream taken apart into its records, to be changed and put together again with checksums that are right.
 */
#ifndef TESTS_STREAM_RECORDS_H
#define TESTS_STREAM_RECORDS_H

#include "incoming_rig.h"

#define RECORDS_MAX 128

struct record {
    uint16_t type;
    uint64_t id;
    uint8_t *body; /* malloc */
    size_t size;
    size_t at; /* of its first frame, in the stream that it was taken from */
};

struct records {
    struct record r[RECORDS_MAX];
    unsigned count;
};

/* Up to the end, or to what is no record any more, or the RECORDS_MAX-th. */
void records_split(struct records *ret, const void *data, size_t size);
/* To be freed by the caller. */
struct rig_bytes records_join(const struct records *rs);
void records_free(struct records *rs);
void records_copy(struct records *ret, const struct records *from);

/* Nothing happens when there is no room. */
void records_insert(struct records *rs, unsigned at, uint16_t type, uint64_t id, const void *body,
                    size_t size);
void records_remove(struct records *rs, unsigned at);
void records_swap(struct records *rs, unsigned a, unsigned b);

#endif
