/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/machine_disks.h"
#include "block/raw.h"
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
        if (machine_disk_is_copied(&c->disks[i]) && !mark_one(&c->disks[i], mark, journal, errp))
            return false;
    return true;
}

bool machine_mark_is_final(const struct guest_disk_mark *mark)
{
    return mark->role == GUEST_DISKS_CLEAN || mark->role == GUEST_DISKS_PRIMARY ||
           mark->role == GUEST_DISKS_SUPERSEDED;
}

bool machine_journal_path(const struct machine_config *c, char *buf, size_t size, Error **errp)
{
    char record[1080];

    buf[0] = 0;
    for (int i = 0; i < c->disk_count; i++) {
        if (!machine_disk_is_copied(&c->disks[i]))
            continue;
        if (!disk_record_path(c->disks[i].path, record, sizeof(record), errp))
            return false;
        snprintf(buf, size, "%s-journal", record);
        return true;
    }
    return true;
}

/* --- shared --- */

static enum block_raw_hold raw_hold(enum guest_disk_hold how)
{
    switch (how) {
    case GUEST_DISKS_HELD:
        return BLOCK_RAW_HELD;
    case GUEST_DISKS_OFFERED:
        return BLOCK_RAW_OFFERED;
    default:
        return BLOCK_RAW_LEFT;
    }
}

/* It stands still, so nobody submits. What the guest was not told yet is told where it runs next. */
static void drain(struct device_table *t, Block *image)
{
    loop_lock(t->host->loop);
    block_drain(image);
    loop_unlock(t->host->loop);
}

bool machine_hold_disks(struct device_table *t, enum guest_disk_hold how, Error **errp)
{
    bool ok = true;

    for (int i = 0; ok && i < t->shared_count; i++) {
        if (how != GUEST_DISKS_HELD)
            drain(t, t->shared[i]);
        ok = block_raw_hold(t->shared[i], raw_hold(how), errp);
    }
    return ok;
}

bool machine_settle_disks(struct device_table *t, Error **errp)
{
    for (int i = 0; i < t->shared_count; i++)
        if (!block_raw_settle(t->shared[i], errp))
            return false;
    return true;
}

bool machine_check_shared_disks(const struct device_table *t, Error **errp)
{
    for (int i = 0; i < t->shared_count; i++)
        if (!block_raw_check_elsewhere(t->shared[i], errp))
            return false;
    return true;
}
