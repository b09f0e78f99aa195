/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Successor: a backup moves to another host, and protection goes on meanwhile. The backup (B) brings a further standby,
 * its successor (S), to what it holds itself; then the primary (A) lets the one go and takes the other.
 *
 *     A                               B                                         S
 *     epochs ... ACK  <------------>  connects, HELLO (kind 6), CONFIG  ----->  builds its machine: SYNCING
 *                                     START, SYNC_PAGES, FEED (copies)  ----->  applied at once
 *       what epochs change meanwhile is sent again, until that is little; then, between two epochs:
 *                                     the rest, devices, END (FIRST)    ----->  loaded and compared
 *                                                                      <------  ACK
 *     FEED, PAGES, ... END  ------->  checked, passed on as it came     ----->  checked
 *     MOVED, ACK  <-----------------                                   <------  ACK
 *     connects, HELLO (kind 7)  ---------------------------------------------->  waits for SUCCEED
 *     LET_GO  --------------------->  never claims from here on: SUCCEED ----->  may claim from here on: STANDBY
 *                                                                      <------  SUCCEEDED
 *       <----------------------------------------------------------------------  SUCCEEDED
 *     the running epoch goes on with S; B's disks are superseded, and it listens for another primary
 *
 * The right to claim is one thing that is handed over by B's own word: B and S never have it both, and are the same side
 * for the arbiter. Whatever fails before LET_GO leaves B the backup. Between LET_GO and SUCCEEDED it takes two failures at
 * once to leave nobody: A's death, and the end of the link between B and S.
 *
 * The source of all of it is B's memory, which stands still between epochs: A has nothing to do for it, and its guest does not
 * wait but for the one epoch that S is brought up to date in.
 *
 * Tasks: one brings S up to date, until that is nearly so; the session's own does the rest. The lock is for RAM, which one reads
 * while the other applies epochs, and for what has changed in it.
 */
#ifndef ENGINE_SUCCESSOR_H
#define ENGINE_SUCCESSOR_H

#include "engine/session.h"

struct backup;
struct successor;

/* The session's task, STANDBY: begins. asked: by the primary, who is told if it fails. False: it cannot begin. */
bool successor_begin(struct backup *b, const char *to, bool asked, Error **errp);
/* Around the application of an epoch, whose pages are in the memory stream. Nothing happens without a successor. */
void successor_lock(struct backup *b);
void successor_unlock(struct backup *b, const VMStream *pages);
/* A record of the running epoch has come: the frames of f from there. */
void successor_pass(struct backup *b, const VMStream *f, size_t from);
/* The epoch is complete and checked. Returns when the successor holds it, too, or has failed. */
void successor_pass_end(struct backup *b, const struct wire_end *end);
/* Just before an ACK: what the primary is to know. */
bool successor_tell(struct backup *b, Error **errp);
/* Between two epochs: begins what the user asked for, goes on, or cleans up. */
void successor_step(struct backup *b);

/* Records of the primary. */
bool successor_on_move(struct backup *b, Error **errp);
bool successor_on_let_go(struct backup *b, Error **errp);
bool successor_on_stay(struct backup *b, Error **errp);

/* Always, in the end, and before this side takes over: there will be no successor. Does not wait for a host that does not answer. */
void successor_stop(struct backup *b);
/* The last of it; may wait. Before the engine is freed. */
void successor_reap(Engine *e);

#endif
