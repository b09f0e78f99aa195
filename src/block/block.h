/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block: a node of a disk's chain. A request enters at the top and is passed down; its completion comes back
 * up.
 *
 *     virtio-blk -> replication filter -> raw                 (tests: ... -> fault filter -> raw)
 *
 *     Block *raw = block_raw_open(&(struct block_raw_options){.id = "root", .path = "/srv/web.img"}, &err);
 *     Block *top = replication_filter_new(group, raw, &err);   // takes raw
 *
 *     r->op = BLOCK_WRITE, r->offset = 0, r->size = 4096, r->data = buf, r->done = on_done, r->opaque = self;
 *     block_submit(top, r);            // on_done(r) once, perhaps before this returns
 *     ...
 *     block_drain(top);                // no request is under way any more
 *     block_close(top);                // the whole chain
 *
 * Requests: up to the whole disk in size for BLOCK_ZERO, else BLOCK_SIZE_MAX; offset and size are bytes, any
 * alignment. block_submit() checks them against the node (EINVAL outside, EROFS), and one of no bytes ends
 * there; so a driver sees only what lies inside, is not empty and may be written. Requests under way at the
 * same time may be carried out in any order; whoever needs an order waits for a completion. BLOCK_FLUSH:
 * every write that had completed before it was submitted is on the medium. What was zeroed reads as zeroes,
 * with unmap too: both sides of a pair must be equal afterwards.
 *
 * Ownership: a request and its data belong to the submitter, who does not touch them until done is called.
 * From then on they are his: done may free the request, or submit it again (a chain that completes at once
 * then recurses: whoever has many to submit does it in a loop).
 *
 * Threads: block_submit() from any thread. done comes on any thread, with no lock of the chain held; what it
 * may do is the submitter's affair (a device puts the request on a list and wakes its loop). The helpers that
 * wait (block_read, ...) must not be called on a thread that completions need, the loop's above all; a chain
 * whose top has carry_out needs none.
 *
 * Errors: r->error is 0 or an errno (EIO, ENOSPC, EROFS, EINVAL ...). A failed write may have happened in
 * part.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_SIZE_MAX  (64u << 20)
#define BLOCK_DEPTH_MAX 4 /* nodes of a chain that wait for the same request */

typedef struct Block Block;

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_ZERO, BLOCK_FLUSH };
/* "read", "write", "zero", "flush" */
const char *block_op_name(enum block_op op);

struct block_request {
    /* set by the submitter */
    enum block_op op;
    bool unmap;            /* BLOCK_ZERO: the space may be given back */
    uint64_t offset, size; /* not for BLOCK_FLUSH */
    void *data;            /* READ, WRITE */
    void (*done)(struct block_request *r);
    void *opaque;
    /* result */
    int error;
    /* private to the node that has it; the submitter's own before block_submit() and from done on */
    struct block_request *next;
    uint64_t progress; /* 0 when a node gets it */
    int stage;         /* 0 when a node gets it */
    /* private: the nodes that want to see the completion first, the last one on top */
    struct {
        void (*fn)(Block *b, struct block_request *r);
        Block *block;
    } waiting[BLOCK_DEPTH_MAX];
    int depth;
};

struct block_ops {
    const char *name; /* "raw" */
    /* Ends in block_complete(), now or later, or passes r on with block_pass(). */
    void (*submit)(Block *b, struct block_request *r);
    /* The same on the caller's thread, which waits for the disk: 0 or an errno. What is submitted may be under way
     * at the same time. NULL: whoever waits submits. */
    int (*carry_out)(Block *b, struct block_request *r);
    /* Returns when nothing that b got is under way in b itself: what it holds back it lets go. NULL: it holds
     * nothing. */
    void (*drain)(Block *b);
    void (*close)(Block *b); /* frees b, not b->next */
};

struct Block {
    const struct block_ops *ops;
    Block *next; /* NULL: the end of the chain */
    char id[32]; /* the disk's, for messages */
    uint64_t size;
    bool readonly;
    /* implementations embed this as their first member */
};

/* --- for those who use a disk --- */
void block_submit(Block *b, struct block_request *r);
/* The same and waiting for it; the error names the disk. Of any size. */
bool block_read(Block *b, uint64_t offset, void *buf, size_t n, Error **errp);
bool block_write(Block *b, uint64_t offset, const void *buf, size_t n, Error **errp);
bool block_zero(Block *b, uint64_t offset, uint64_t n, bool unmap, Error **errp);
bool block_flush(Block *b, Error **errp);
/* Waits until all that was submitted is done, from the top of the chain to its end; done may come on this
 * thread. With a raw node that belongs to a loop: lock held, or loop not started. Nobody submits meanwhile
 * but done. */
void block_drain(Block *b);
/* b and all below it; drained. NULL is fine. */
void block_close(Block *b);

/* --- for nodes --- */
/* What a filter has in common with the node below it, which it takes: id, size, readonly. */
void block_init_filter(Block *b, const struct block_ops *ops, Block *next);
/* Passes r on to b->next; fn(b, r) is called before whoever waits above, and ends in block_complete(r,
 * r->error), now or later. fn NULL: b does not look at the completion. */
void block_pass(Block *b, struct block_request *r, void (*fn)(Block *b, struct block_request *r));
/* The node's part is done: error is 0 or an errno. */
void block_complete(struct block_request *r, int error);

#endif
