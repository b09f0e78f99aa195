/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inner loops over pages, in the widest form that this processor has.
 */
#ifndef GUEST_PAGE_COPY_H
#define GUEST_PAGE_COPY_H

#include <stdbool.h>
#include <stdint.h>

/* dst: page-aligned and soon read by the sender only, so it bypasses the cache; src: page-aligned. */
void page_copy(void *dst, const void *src);
bool page_is_zero(const void *page);
/* One bit for each of the 64 lines of 64 bytes that differ. */
uint64_t page_diff(const void *a, const void *b);

#endif
