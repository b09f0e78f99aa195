/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Raw group: requests that lie one behind the other on the disk, made with one call. A guest that writes a file in order
 * has its requests in flight together; one call for all of them costs hardly more than one for the first.
 *
 *     while ((r = l->first)) {
 *         g = raw_group_take(l);              // one call for all of g->requests
 *         if (!g)
 *             r = raw_list_take(l);           // one for r
 *     }
 *
 * If that call fails, or transfers less, nobody knows whose part that is: raw_group_split() puts the requests back, each
 * to be made alone.
 */
#ifndef BLOCK_RAW_GROUP_H
#define BLOCK_RAW_GROUP_H

#include <sys/uio.h>

#include "block/raw_private.h"

#define RAW_GROUP_MAX  32
#define RAW_GROUP_SIZE (1u << 20)

struct raw_group {
    enum block_op op; /* READ or WRITE */
    unsigned count;   /* at least 2 */
    uint64_t offset, size;
    struct block_request *requests[RAW_GROUP_MAX];
    struct iovec iov[RAW_GROUP_MAX];
};

/* Takes the first requests of l that go together; freed by the caller. NULL: the first stands alone (or there is no
 * memory), and stays in l. */
struct raw_group *raw_group_take(struct raw_list *l);
/* Takes g. */
void raw_group_split(struct raw_group *g, struct raw_list *l);

#endif
