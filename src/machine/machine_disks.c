/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/machine_disks.h"
#include "block/disk_record.h"

#include <inttypes.h>
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

/* A record that the primary of this very pair has written: its image, seen from two hosts. */
static bool is_shared(const struct disk_record *old, const struct guest_disk_mark *mark)
{
    return mark->role == GUEST_DISKS_SYNC_TARGET && old->role == DISK_PRIMARY &&
           !strcmp(old->pair, mark->pair) && old->generation == mark->generation;
}

static void fill(struct disk_record *r, const struct guest_disk_mark *mark, const char *disk,
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

static bool mark_one(const struct machine_disk *d, const struct guest_disk_mark *mark, const char *journal,
                     Error **errp)
{
    struct disk_record old, new;
    char path[1200];

    if (!disk_record_path(d->path, path, sizeof(path), errp) || !disk_record_load(path, &old, errp))
        return false;
    if (is_shared(&old, mark)) {
        error_setg(errp, "disk %s: %s is the primary's own image: each side needs one of its own", d->id,
                   d->path);
        return false;
    }
    fill(&new, mark, d->id, journal);
    return disk_record_store(path, &new, errp);
}

bool machine_mark_disks(const struct machine_config *c, const struct guest_disk_mark *mark, Error **errp)
{
    char journal[1100];

    if (!machine_journal_path(c, journal, sizeof(journal), errp))
        return false;
    for (int i = 0; i < c->disk_count; i++)
        if (!c->disks[i].readonly && !mark_one(&c->disks[i], mark, journal, errp))
            return false;
    return true;
}

bool machine_mark_is_final(const struct guest_disk_mark *mark)
{
    return mark->role == GUEST_DISKS_CLEAN || mark->role == GUEST_DISKS_SUPERSEDED;
}

bool machine_journal_path(const struct machine_config *c, char *buf, size_t size, Error **errp)
{
    char record[1080];

    buf[0] = 0;
    for (int i = 0; i < c->disk_count; i++) {
        if (c->disks[i].readonly)
            continue;
        if (!disk_record_path(c->disks[i].path, record, sizeof(record), errp))
            return false;
        snprintf(buf, size, "%s-journal", record);
        return true;
    }
    return true;
}
