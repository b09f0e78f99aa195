/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Heartbeat: the task that keeps a link's second connection busy, so that a peer that is only slow (a large
 * epoch on a thin line, a long pause) is not taken for a dead one.
 */
#ifndef ENGINE_HEARTBEAT_H
#define ENGINE_HEARTBEAT_H

/* The task's function; arg is the struct link. Ends when the link is down, or takes it down. */
void heartbeat_run(void *arg);

#endif
