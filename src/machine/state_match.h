/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * State match: are two bodies of a section the same state, but for clocks that go on by themselves? A backup
 * loads the first epoch and saves it again: what KVM's own timers did in between (count down, expire and
 * pend) is no difference.
 */
#ifndef MACHINE_STATE_MATCH_H
#define MACHINE_STATE_MATCH_H

#include <stdbool.h>
#include <stddef.h>

/* Bodies of the section as they were in the stream, checked by a load before. Sections it does not know never
 * match. */
bool state_match(const char *section, const void *sent, const void *loaded, size_t size);

#endif
