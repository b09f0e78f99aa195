/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/buffer_pool.h"

#include <assert.h>
#include <stdlib.h>

#define PAGE     4096u
#define SMALLEST 12 /* log2 */

static unsigned class_of(size_t size)
{
    unsigned i = 0;

    while (size > (size_t)1 << (SMALLEST + i))
        i++;
    assert(i < BUFFER_POOL_CLASSES);
    return i;
}

static size_t class_size(const struct buffer_pool *p, unsigned i)
{
    return p->header + ((size_t)1 << (SMALLEST + i));
}

void *buffer_pool_get(struct buffer_pool *p, size_t size)
{
    unsigned i = class_of(size);
    struct buffer_pool_free *b = p->free[i];

    if (!b)
        return aligned_alloc(PAGE, class_size(p, i));
    p->free[i] = b->next;
    p->kept -= class_size(p, i);
    return b;
}

void buffer_pool_put(struct buffer_pool *p, void *buffer, size_t size)
{
    unsigned i = class_of(size);
    struct buffer_pool_free *b = buffer;

    if (p->kept + class_size(p, i) > p->limit) {
        free(buffer);
        return;
    }
    b->next = p->free[i];
    p->free[i] = b;
    p->kept += class_size(p, i);
}

void buffer_pool_destroy(struct buffer_pool *p)
{
    for (unsigned i = 0; i < BUFFER_POOL_CLASSES; i++) {
        while (p->free[i]) {
            struct buffer_pool_free *b = p->free[i];

            p->free[i] = b->next;
            free(b);
        }
    }
    p->kept = 0;
}
