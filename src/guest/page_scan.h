/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking at whole pages, in the widest form that this processor has.
 */
#ifndef GUEST_PAGE_SCAN_H
#define GUEST_PAGE_SCAN_H

#include <stdbool.h>
#include <stdint.h>

bool page_is_zero(const void *page);
/* One bit for each of the 64 lines of 64 bytes that differ. */
uint64_t page_diff(const void *a, const void *b);

#endif
