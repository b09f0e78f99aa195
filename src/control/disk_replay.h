/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk replay: brings the image of a former standby to the newest whole epoch that its journal holds.
 */
#ifndef CONTROL_DISK_REPLAY_H
#define CONTROL_DISK_REPLAY_H

#include "block/block.h"

/* image: the disk's raw node (its id is looked up in the journal); borrowed. journal: its path, as the record names
 * it; empty: all of it is in place. The journal stays: it may serve the machine's other disks. On the medium when it
 * returns. */
bool disk_replay(Block *image, const char *journal, Error **errp);
/* The same with the journal open: takes file, name is for messages. */
bool disk_replay_from(Block *image, Block *file, const char *name, Error **errp);

#endif
