/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest_disk_mark becomes in a disk's record, wherever the record is kept.
 */
#ifndef MACHINE_DISK_MARK_H
#define MACHINE_DISK_MARK_H

#include "block/disk_record.h"
#include "guest/guest.h"

/* old is what the primary of this very pair has written: its image, seen from two hosts. */
bool disk_mark_is_shared(const struct disk_record *old, const struct guest_disk_mark *mark);
/* journal: where a standby's lies. */
void disk_mark_fill(struct disk_record *ret, const struct guest_disk_mark *mark, const char *disk,
                    const char *journal);

#endif
