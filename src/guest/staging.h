/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staging: the bounded, preallocated place where an epoch's changed pages wait for the sender, so that the
 * guest runs again as soon as they are copied. max(64 MiB, RAM/8). One writer (collect, the guest paused),
 * then one reader (the sender).
 */
#ifndef GUEST_STAGING_H
#define GUEST_STAGING_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Staging Staging;

/* pages: capacity. All memory is touched here. */
Staging *staging_new(size_t pages, Error **errp);
/* The same, for a guest that stands still meanwhile: a task of its own touches the memory, and what is used before it
 * was there takes its page faults. */
Staging *staging_new_quick(size_t pages, Error **errp);
size_t staging_default_pages(uint64_t ram_size);
void staging_free(Staging *s);
/* Copies one page; false when full. */
bool staging_add(Staging *s, uint64_t page, const void *data);
size_t staging_count(const Staging *s);
bool staging_full(const Staging *s);
uint64_t staging_page(const Staging *s, size_t i);
const uint8_t *staging_data(const Staging *s, size_t i);
void staging_reset(Staging *s);

#endif
