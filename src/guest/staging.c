/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest/staging.h"
#include "base/task.h"
#include "guest/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MINIMUM_BYTES (64u * 1024 * 1024)
#define TOUCH_BYTES   (4u * 1024 * 1024) /* in one call, which keeps other page faults waiting */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* of newer C libraries */
#endif

struct Staging {
    size_t capacity, count;
    uint64_t *pages; /* page index of each */
    uint8_t *data;   /* capacity * GUEST_PAGE_SIZE */
    Task *toucher;   /* NULL: there is none */
    bool closing;    /* the task's to see */
};

size_t staging_default_pages(uint64_t ram_size)
{
    uint64_t bytes = ram_size / 8 > MINIMUM_BYTES ? ram_size / 8 : MINIMUM_BYTES;

    /* More than the guest has is never used. */
    if (bytes > ram_size)
        bytes = ram_size;
    return bytes / GUEST_PAGE_SIZE;
}

/* populate: MAP_POPULATE, or 0. */
static Staging *make(size_t pages, int populate, Error **errp)
{
    Staging *s = calloc(1, sizeof(*s));
    size_t bytes = pages * GUEST_PAGE_SIZE;

    if (s) {
        s->capacity = pages;
        s->pages = malloc(pages * sizeof(*s->pages));
        s->data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | populate, -1, 0);
    }
    if (!s || !s->pages || s->data == MAP_FAILED) {
        error_setg_errno(errp, ENOMEM, "staging area of %zu MiB", bytes >> 20);
        staging_free(s);
        return NULL;
    }
    return s;
}

/* All is touched here, so that no page fault falls into a pause. */
Staging *staging_new(size_t pages, Error **errp)
{
    Staging *s = make(pages, MAP_POPULATE, errp);

    if (s)
        memset(s->pages, 0, pages * sizeof(*s->pages));
    return s;
}

/* Without changing what is there; a kernel before 5.14 cannot do it. */
static void touch(void *staging)
{
    Staging *s = staging;
    size_t bytes = s->capacity * GUEST_PAGE_SIZE;

    for (size_t at = 0; at < bytes && !__atomic_load_n(&s->closing, __ATOMIC_RELAXED); at += TOUCH_BYTES)
        madvise(s->data + at, bytes - at < TOUCH_BYTES ? bytes - at : TOUCH_BYTES, MADV_POPULATE_WRITE);
}

Staging *staging_new_quick(size_t pages, Error **errp)
{
    Staging *s = make(pages, 0, errp);

    if (s && !(s->toucher = task_start("staging", touch, s, errp))) {
        staging_free(s);
        return NULL;
    }
    return s;
}

void staging_free(Staging *s)
{
    if (!s)
        return;
    __atomic_store_n(&s->closing, true, __ATOMIC_RELAXED);
    task_join(s->toucher);
    if (s->data && s->data != MAP_FAILED)
        munmap(s->data, s->capacity * GUEST_PAGE_SIZE);
    free(s->pages);
    free(s);
}

bool staging_add(Staging *s, uint64_t page, const void *data)
{
    if (s->count >= s->capacity)
        return false;
    /* Measured, with 200 and 4500 scattered pages: nothing beats it. Stores that bypass the cache take three
     * times as long, and the sender would then read from memory what it now finds in the cache. */
    memcpy(s->data + s->count * GUEST_PAGE_SIZE, data, GUEST_PAGE_SIZE);
    s->pages[s->count++] = page;
    return true;
}

size_t staging_count(const Staging *s)
{
    return s->count;
}

bool staging_full(const Staging *s)
{
    return s->count >= s->capacity;
}

uint64_t staging_page(const Staging *s, size_t i)
{
    return s->pages[i];
}

const uint8_t *staging_data(const Staging *s, size_t i)
{
    return s->data + i * GUEST_PAGE_SIZE;
}

void staging_reset(Staging *s)
{
    s->count = 0;
}
