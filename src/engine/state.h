/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * States: the one table of what may follow what, and the one function that changes it (docs/engine.md shows
 * the table).
 */
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include "engine/engine.h"

struct engine_transition {
    enum engine_role role;
    enum engine_state from;
    enum engine_role new_role;
    enum engine_state to;
    const char *when; /* for the docs and messages */
};

extern const struct engine_transition engine_transitions[];
extern const int engine_transition_count;

bool engine_transition_allowed(enum engine_role role, enum engine_state from, enum engine_role new_role,
                               enum engine_state to);
/* Engine tasks, no lock held. A transition that the table has not is a bug: it is refused with an assertion.
 * why: for people, goes into the event. */
void engine_set_state(Engine *e, enum engine_role role, enum engine_state to, const char *why);

#endif
