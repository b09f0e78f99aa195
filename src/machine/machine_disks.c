/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/machine_disks.h"
#include "machine/disk_mark.h"

#include <stdio.h>

static bool mark_one(const struct machine_disk *d, const struct guest_disk_mark *mark, const char *journal,
                     Error **errp)
{
    struct disk_record old, new;
    char path[1200];

    if (!disk_record_path(d->path, path, sizeof(path), errp) || !disk_record_load(path, &old, errp))
        return false;
    if (disk_mark_is_shared(&old, mark)) {
        error_setg(errp, "disk %s: %s is the primary's own image: each side needs one of its own", d->id,
                   d->path);
        return false;
    }
    disk_mark_fill(&new, mark, d->id, journal);
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
