/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replication filter: the node of a writable disk's chain that makes it a member of a replication group
 * (replication_group.h says what it does in each state). Without replication a request passes with one look
 * at the group's state.
 */
#ifndef BLOCK_REPLICATION_FILTER_H
#define BLOCK_REPLICATION_FILTER_H

#include "block/replication_group.h"

/* Takes next on success. Members are numbered in the order of their making; ids differ; read-only disks are
 * refused. Made before replication starts, drained and closed when it is over. The group waits for its disks
 * also while the machine stands still: next must not need the machine's loop for that
 * (block_ops.carry_out). */
Block *replication_filter_new(ReplicationGroup *group, Block *next, Error **errp);

#endif
