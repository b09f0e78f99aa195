/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault filter: a node of a chain that makes requests fail, for tests.
 *
 *     Block *faulty = fault_filter_new(raw, &err);                  // takes raw
 *     fault_filter_fail(faulty, BLOCK_FLUSH, 3, EIO);               // the third flush from now, once
 *     fault_filter_fail(faulty, BLOCK_WRITE, 0, EIO);               // every write
 *     fault_filter_limit(faulty, 1 << 20);                          // a full disk after 1 MiB more: ENOSPC
 *     fault_filter_clear(faulty);                                   // all is well again
 *
 * To try each failure in turn: arm the first, the second, ... request until fault_filter_fired() stays false.
 *
 * A request that fails does not reach the next node, unless fault_filter_fail_half() says so: then a write or zero has
 * happened in its first half. The points of base/fault.h, "block.read", "block.write", "block.zero" and "block.flush",
 * are hit by the requests of every fault filter of the process, and fail with EIO.
 *
 * Threads: everything from any thread.
 */
#ifndef BLOCK_FAULT_FILTER_H
#define BLOCK_FAULT_FILTER_H

#include "block/block.h"

/* Takes next on success. */
Block *fault_filter_new(Block *next, Error **errp);

/* The nth request of this kind from now (1 is the next) fails with error, once; 0: every one. One rule a kind: a new
 * one replaces it. */
void fault_filter_fail(Block *b, enum block_op op, uint64_t nth, int error);
/* Requests that fail from now on have happened in their first half (whole sectors). */
void fault_filter_fail_half(Block *b, bool half);
/* A write or zero that would make more than so many bytes from now on fails with ENOSPC. */
void fault_filter_limit(Block *b, uint64_t bytes);
void fault_filter_clear(Block *b);

/* Requests that failed here since the last fault_filter_fail, _limit or _clear. */
uint64_t fault_filter_fired(Block *b);
/* Requests of this kind that came, since it was made. */
uint64_t fault_filter_count(Block *b, enum block_op op);

#endif
