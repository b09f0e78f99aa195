/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * RAM as a component of the savevm list, "ram": how a state file, and later a migration, gets its pages.
 *
 * Continuous checkpoints do not come this way (they move RAM by epochs, and walk only the devices).
 *
 * Stopped (the default): each pass writes the next pages that exist in the memory file; what does not exist
 * is zero. Live: change tracking of the Guest is on from setup to cleanup, each pass writes pages that
 * changed, and complete, with the guest paused, the last of them. Loading clears RAM first; blocks of other
 * sizes than here are refused by size.
 *
 * Postcopy, of a live save: from begin on each pass copies nothing but tells which pages changed and will come later; they
 * are missing at the destination from then on (missing.h). When the guest stands still for good the last of these passes is
 * sent, then push: the guest may run there, and passes put the pages that it lacks, beginning behind the last one that
 * was asked for, while another task answers questions with put.
 *
 * Lanes (stream/lanes.h), of a live save that is loaded as it comes: pages of a pass go over whichever stream is free, the main one or
 * a lane. Each PART and END counts as a part; one of few pages is not shared. Postcopy does without them.
 *
 * START: u8 1, u32 blocks, for each u64 guest physical address, u64 bytes. PART and END: u8 2, then pages as
 * of page_codec.h; or u8 3, then runs of missing pages, u64 first, u64 count; or u8 4, then pages, and there are shares, of pages as well;
 * to the end of the record (docs/wire-format.md).
 *
 * Order of calls: register when the machine is made, before its devices (so that it is loaded before them);
 * set_live and set_lanes while no save or load is under way; unregister before the machine goes. Threads: those of the savevm
 * walks, and the lanes'.
 */
#ifndef GUEST_RAM_STATE_H
#define GUEST_RAM_STATE_H

#include "guest/guest.h"
#include "stream/lanes.h"

/* g is borrowed until unregistered. false: there is RAM on the list already. */
bool ram_state_register(Guest *g, Error **errp);
/* Nothing happens if g is not registered. */
void ram_state_unregister(Guest *g);
/* Of the saves after this call. */
void ram_state_set_live(Guest *g, bool live);
/* Of the next save or load, which starts them; borrowed until that is cleaned up, or in postcopy begins to tell, or to be told, what is
 * missing. NULL: none. */
void ram_state_set_lanes(Guest *g, Lanes *lanes);
/* Of a live save under way: pages are packed from now on, or not. */
void ram_state_set_packing(Guest *g, bool on);
/* Of a live save under way: a pass writes at most so many, or a few: for a slow link. */
void ram_state_set_part(Guest *g, uint64_t bytes);

/* --- postcopy, the source: between setup and cleanup --- */

bool ram_postcopy_begin(Guest *g, Error **errp);
/* How many pages the last pass told. */
uint64_t ram_postcopy_told(Guest *g);
void ram_postcopy_push(Guest *g);
/* One page into the open record f, at the destination's wish; any one task beside the walks. */
bool ram_postcopy_put(Guest *g, VMStream *f, uint64_t page, Error **errp);

/* --- the destination: between load_setup and load_cleanup --- */

/* NULL: all of its RAM is here. */
MissingPages *ram_postcopy_missing(Guest *g);
/* Puts what is missing into the open record f: what resume_prepare of the source reads. */
void ram_postcopy_put_missing(Guest *g, VMStream *f);

#endif
