/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The journal's own: journal.c writes it, journal_replay.c reads it.
 */
#ifndef BLOCK_JOURNAL_PRIVATE_H
#define BLOCK_JOURNAL_PRIVATE_H

#include "block/journal_format.h"

#define JOURNAL_BUFFER (256u << 10) /* what is read or written at once; a multiple of JOURNAL_BLOCK */

struct Journal {
    Block *block;
    struct journal_header header;
    uint8_t *buffer;
    /* writing only: */
    bool writable;
    unsigned current; /* segment */
    struct journal_segment {
        uint64_t used;          /* bytes */
        uint64_t number, epoch; /* of the last one in it; 0: none */
    } segments[2];
    uint64_t number, epoch;   /* the last one that was appended */
    uint64_t durable;         /* number */
    struct journal_mark mark; /* the last one that was written */
    uint64_t released_number; /* what the next mark will say */
    uint64_t released_epoch;
};

#endif
