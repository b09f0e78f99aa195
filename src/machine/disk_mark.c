/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/disk_mark.h"

#include <stdio.h>
#include <string.h>

static enum disk_role role_of(enum guest_disk_role r)
{
    switch (r) {
    case GUEST_DISKS_CLEAN:
        return DISK_CLEAN;
    case GUEST_DISKS_PRIMARY:
        return DISK_PRIMARY;
    case GUEST_DISKS_STANDBY:
        return DISK_STANDBY;
    case GUEST_DISKS_SYNC_TARGET:
        return DISK_SYNC_TARGET;
    default:
        return DISK_SUPERSEDED;
    }
}

bool disk_mark_is_shared(const struct disk_record *old, const struct guest_disk_mark *mark)
{
    return mark->role == GUEST_DISKS_SYNC_TARGET && old->role == DISK_PRIMARY &&
           !strcmp(old->pair, mark->pair) && old->generation == mark->generation;
}

void disk_mark_fill(struct disk_record *r, const struct guest_disk_mark *mark, const char *disk,
                    const char *journal)
{
    *r = (struct disk_record){
        .role = role_of(mark->role), .generation = mark->generation, .epoch = mark->epoch};
    snprintf(r->vm, sizeof(r->vm), "%s", mark->vm);
    snprintf(r->disk, sizeof(r->disk), "%s", disk);
    snprintf(r->pair, sizeof(r->pair), "%s", mark->pair);
    snprintf(r->arbiter, sizeof(r->arbiter), "%s", mark->arbiter);
    snprintf(r->peer, sizeof(r->peer), "%s", mark->peer);
    if (r->role == DISK_STANDBY)
        snprintf(r->journal, sizeof(r->journal), "%s", journal);
}
