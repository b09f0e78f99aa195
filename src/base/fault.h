/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault points: places that a test can make fail. They are always compiled in; while nothing is armed each
 * costs one relaxed load.
 *
 *     if (fault_point("journal-fsync")) {
 *         errno = EIO;
 *         return -1;
 *     }
 *
 * A test arms the first, second, third, ... hit in turn until fault_fired() stays false: then every failure
 * of that point was tried.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* For fault_point() only. */
extern int fault_armed_count;
bool fault_check(const char *name);

/* true: fail here. Any thread. */
static inline bool fault_point(const char *name)
{
    return __atomic_load_n(&fault_armed_count, __ATOMIC_RELAXED) && fault_check(name);
}

/* The nth hit from now (1 is the next) fails, once; 0: every hit fails. Arming a name again replaces what it
 * had. At most 16 names. */
void fault_arm(const char *name, uint64_t nth);
/* Did the point fail since it was armed? */
bool fault_fired(const char *name);
void fault_disarm_all(void);

#endif
