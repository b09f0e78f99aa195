/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The status block (guest_abi.h), and where every guest begins. */
#ifndef GUESTS_LIB_STATUS_H
#define GUESTS_LIB_STATUS_H

#include <stdbool.h>
#include "guest_abi.h"

#define status (*(volatile struct guest_status *)(uintptr_t)GUEST_STATUS_ADDRESS)

/* Each guest defines these two. */
extern const char guest_name[];
void guest_main(void);

/* Records the first error and counts all; says nothing. */
void guest_fail(enum guest_error error, uint64_t where, uint64_t have, uint64_t want);
/* After an error or the end of the work: answers the network for ever (status, reset, ...), with a heart that
 * no longer beats. */
void guest_stop(void) __attribute__((noreturn));
bool guest_quiet(void);

#endif
