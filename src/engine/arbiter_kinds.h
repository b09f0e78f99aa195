/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kinds of arbiters, for arbiter.c: one file each. rest is what follows the kind's name in the
 * specification.
 */
#ifndef ENGINE_ARBITER_KINDS_H
#define ENGINE_ARBITER_KINDS_H

#include "engine/arbiter.h"

Arbiter *arbiter_manual_new(const char *rest, Error **errp);
Arbiter *arbiter_file_new(const char *dir, Error **errp);
Arbiter *arbiter_command_new(const char *path, Error **errp);
/* Kills the command of a claim under way, and lets no other one start. */
void arbiter_command_kill(void);

#endif
