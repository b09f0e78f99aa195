/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The numbered requests of GUEST_OP_COUNT (guest_abi.h): each is carried out once, and dirties a few pages of
 * a ring whose earlier content it checks, so that an answer vouches for more than one page of memory.
 * Freestanding: the same code counts in the embedded guest and in process 1 of a Linux guest. One caller at a
 * time.
 *
 *     status.count.start = ...; status.count.pages = 1024; status.count.dirty = 2;
 *     requests_start(&status.count, torn);
 *     if (m.op == GUEST_OP_COUNT)
 *         requests_answer(&m, status.errors != 0);
 */
#ifndef GUESTS_REQUESTS_H
#define GUESTS_REQUESTS_H

#include <stdbool.h>
#include "guest_abi.h"

/* A page of the ring does not hold what was last written. */
typedef void (*requests_torn)(uint64_t address, uint64_t have, uint64_t want);

/* s is borrowed for ever: the caller has set start, pages and dirty, the rest is counted in it. Clears the
 * ring: `pages` pages (at least one) from `start`. */
void requests_start(volatile struct guest_count_status *s, requests_torn torn);
/* Fills in answer, value, chain and counter. failed: this guest has found an error: nothing is carried out
 * any more. */
void requests_answer(struct guest_message *m, bool failed);

#endif
