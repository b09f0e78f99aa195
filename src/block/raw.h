/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Raw: the end of a chain: a file or block device whose bytes are the disk's.
 *
 * Requests go through io_uring, many at a time; where the kernel does not offer it (old, or forbidden by a
 * sandbox) through a few threads. With a loop the completions come on the loop's thread, under its lock and
 * never while it is parked; without, on a thread of the node. What a handler of the loop submits goes to the
 * kernel in one call, after the handler. The helpers that wait (block_read, ...) make their calls on the
 * caller's thread and need neither. With a loop, open, drain and close want its lock held, or it not started.
 *
 * Zeroes are made by the file system where it can (a hole for unmap, else an unwritten range), else written.
 *
 * Locks (image_lock.h) are QEMU's: many may read an image, or one may write it, whichever program they are.
 *
 * An image that two hosts see goes from one to the other (live migration) with block_raw_hold(): HELD here, OFFERED,
 * then HELD there and LEFT here, or HELD here again. It is written, and read, only where it is HELD; elsewhere requests
 * fail (EBUSY).
 *
 *     there: block_raw_open({.elsewhere = true})     // LEFT
 *     here:  block_drain(raw), block_raw_hold(raw, BLOCK_RAW_OFFERED, errp)
 *     there: block_raw_hold(raw, BLOCK_RAW_HELD, errp)
 *     here:  block_raw_hold(raw, BLOCK_RAW_LEFT, NULL)
 */
#ifndef BLOCK_RAW_H
#define BLOCK_RAW_H

#include "base/loop.h"
#include "block/block.h"

/* AUTO: io_uring where it works; the environment variable PERDURE_DISK_ENGINE (uring, threads) decides for
 * tests. URING: an error where it does not. */
enum block_raw_engine { BLOCK_RAW_AUTO, BLOCK_RAW_URING, BLOCK_RAW_THREADS };

struct block_raw_options {
    const char *id, *path; /* borrowed during the call */
    bool readonly;
    bool elsewhere; /* another host has it: it is opened for writing, and LEFT */
    Loop *loop;     /* NULL: completions come on a thread of the node */
    enum block_raw_engine engine;
};

Block *block_raw_open(const struct block_raw_options *o, Error **errp);

enum block_raw_hold { BLOCK_RAW_HELD, BLOCK_RAW_OFFERED, BLOCK_RAW_LEFT };

/* Of an image that can be written. OFFERED and LEFT: nothing is under way (block_drain()). What was written is on the
 * medium when it is OFFERED. HELD: what this host remembers of its content is forgotten, as far as the kernel lets.
 * A failure leaves it as it was. Waits for the disk. */
bool block_raw_hold(Block *b, enum block_raw_hold how, Error **errp);
/* What has completed goes to the medium. An error is told again to whoever flushes next: the kernel tells it only once. */
bool block_raw_settle(Block *b, Error **errp);
/* Is a file that is LEFT really the one that another host writes to, and do we see its lock? Of a block device nobody can
 * tell. */
bool block_raw_check_elsewhere(const Block *b, Error **errp);

/* A new file of size bytes, its space allocated: ENOSPC comes here and not later. It must not exist. Durable,
 * the name too, when it returns. */
bool block_raw_create(const char *path, uint64_t size, Error **errp);
/* The path as given, for messages and for what lies beside the image. NULL: b is no raw node. */
const char *block_raw_path(const Block *b);
/* "io_uring" or "threads". */
const char *block_raw_engine_name(const Block *b);

#endif
