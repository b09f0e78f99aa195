/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disks of a machine and the other host. Those that are copied: their marks beside the images (block/disk_record.h),
 * and where the journal of a backup lies: beside the first one's record. Those whose image both hosts see: whose they are.
 */
#ifndef MACHINE_MACHINE_DISKS_H
#define MACHINE_MACHINE_DISKS_H

#include "guest/guest.h"
#include "machine/device_table.h"

/* guest_ops.mark_disks. */
bool machine_mark_disks(const struct machine_config *c, const struct guest_disk_mark *mark, Error **errp);
/* No record names a journal after it. */
bool machine_mark_is_final(const struct guest_disk_mark *mark);
/* Empty: no disk is copied. */
bool machine_journal_path(const struct machine_config *c, char *buf, size_t size, Error **errp);

/* guest_ops.hold_disks and settle_disks, for the shared ones of t. */
bool machine_hold_disks(struct device_table *t, enum guest_disk_hold how, Error **errp);
bool machine_settle_disks(struct device_table *t, Error **errp);
/* Of a machine that may come: are they those over there? */
bool machine_check_shared_disks(const struct device_table *t, Error **errp);

#endif
