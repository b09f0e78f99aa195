/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disks of a machine under protection: their marks beside the images (block/disk_record.h), and where the
 * journal of a backup lies: beside the first writable disk's record.
 */
#ifndef MACHINE_MACHINE_DISKS_H
#define MACHINE_MACHINE_DISKS_H

#include "guest/guest.h"
#include "machine/machine_config.h"

/* guest_ops.mark_disks. */
bool machine_mark_disks(const struct machine_config *c, const struct guest_disk_mark *mark, Error **errp);
/* No record names a journal after it. */
bool machine_mark_is_final(const struct guest_disk_mark *mark);
/* Empty: no disk can be written. */
bool machine_journal_path(const struct machine_config *c, char *buf, size_t size, Error **errp);

#endif
