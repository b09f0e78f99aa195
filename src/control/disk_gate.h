/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk gate: may this process have these disks? Asked before the machine opens its images. It reads the records beside
 * the images (block/disk_record.h has the table), claims at the arbiter where a disk is that of a former
 * primary, and brings a former standby's disk to its last whole epoch when it is forced.
 *
 *     if (!disk_gate_run(&config, force_stale, &err)) ...       // every reason, one a line
 *
 * Each image is open, and so locked, while it is judged: a disk that somebody uses is refused before anything is
 * asked or written. Only a standby's shared one is not, since its guest runs on it: of that only the record is read.
 *
 * What it learns it leaves in the records: a granted claim makes a disk clean, a denied one superseded.
 */
#ifndef CONTROL_DISK_GATE_H
#define CONTROL_DISK_GATE_H

#include "machine/machine.h"

/* To run a machine on them. force_stale: the user says that nothing newer runs anywhere. */
bool disk_gate_run(const struct machine_config *c, bool force_stale, Error **errp);
/* To overwrite them, as a standby. force_stale: also the one newest copy. */
bool disk_gate_standby(const struct machine_config *c, bool force_stale, Error **errp);

#endif
