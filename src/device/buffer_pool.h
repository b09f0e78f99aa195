/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Buffer pool: page-aligned buffers, each with room for a header, that are used again, the last one first. A large buffer from malloc() is memory that
 * the kernel has to find and to clear, page by page, each time: for a request of 1 MiB that costs more than the copy.
 *
 * What is given back is kept up to a limit. Loop lock held.
 */
#ifndef DEVICE_BUFFER_POOL_H
#define DEVICE_BUFFER_POOL_H

#include <stddef.h>

#define BUFFER_POOL_CLASSES 13 /* 4 KiB to 16 MiB, in powers of two, and the header */

struct buffer_pool {
    /* set by the owner */
    size_t limit;  /* bytes kept */
    size_t header; /* of each buffer, whole pages */
    /* private */
    size_t kept;
    struct buffer_pool_free {
        struct buffer_pool_free *next;
    } * free[BUFFER_POOL_CLASSES];
};

/* The header and at least size bytes, at most 16 MiB. NULL: no memory. */
void *buffer_pool_get(struct buffer_pool *p, size_t size);
/* size as it was asked for. */
void buffer_pool_put(struct buffer_pool *p, void *buffer, size_t size);
void buffer_pool_destroy(struct buffer_pool *p);

#endif
