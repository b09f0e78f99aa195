/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/disk_gate.h"
#include "block/raw.h"
#include "control/disk_judge.h"
#include "control/disk_replay.h"
#include "machine/machine_disks.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

struct disk {
    struct judged_disk judged;
    char record_path[1200];
};

static bool store(struct judged_disk *d, Error **errp)
{
    return disk_record_store(((struct disk *)d)->record_path, &d->record, errp);
}

static bool replay(struct judged_disk *d, Error **errp)
{
    return disk_replay(d->image, d->record.journal, errp);
}

/* The image first: it may be that of a machine that lives, and a claim for that one, by us, would leave its backup
 * denied. */
static bool open_disk(struct disk *d, const struct machine_disk *config, bool elsewhere, Error **errp)
{
    struct judged_disk *j = &d->judged;

    *d = (struct disk){.judged = {.id = config->id, .path = config->path, .store = store, .replay = replay}};
    j->image = block_raw_open(
        &(struct block_raw_options){.id = config->id, .path = config->path, .elsewhere = elsewhere}, errp);
    if (j->image && disk_record_path(config->path, d->record_path, sizeof(d->record_path), errp) &&
        disk_record_load(d->record_path, &j->record, errp))
        return true;
    block_close(j->image);
    return false;
}

static void check(struct disk_court *court, const struct machine_disk *config)
{
    bool elsewhere = court->standby && config->shared; /* the guest runs there, on this very image */
    Error *err = NULL;
    struct disk d;

    if (!open_disk(&d, config, elsewhere, &err)) {
        disk_court_object(court, err);
        return;
    }
    if (elsewhere)
        disk_judge_shared(court, &d.judged);
    else
        disk_judge(court, &d.judged);
    block_close(d.judged.image);
}

static bool pass(const struct machine_config *c, bool standby, bool force_stale, Error **errp)
{
    struct disk_court court = {.standby = standby, .force = force_stale};

    for (int i = 0; i < c->disk_count; i++)
        if (!c->disks[i].readonly)
            check(&court, &c->disks[i]);
    if (court.reasons[0])
        error_setg(errp, "%s", court.reasons);
    return !court.reasons[0];
}

bool disk_gate_run(const struct machine_config *c, bool force_stale, Error **errp)
{
    return pass(c, false, force_stale, errp);
}

static bool settle_disk(const struct machine_disk *config, Error **errp)
{
    struct disk d;
    bool ok;

    if (!open_disk(&d, config, false, errp))
        return false;
    ok = disk_settle(&d.judged, errp);
    block_close(d.judged.image);
    return ok;
}

/* No record names it any more. Opened first: it is locked by whoever uses it. */
static bool remove_journal(const char *path, Error **errp)
{
    Block *file;
    bool ok;

    if (!path[0] || (access(path, F_OK) < 0 && errno == ENOENT))
        return true;
    file = block_raw_open(&(struct block_raw_options){.id = "journal", .path = path}, errp);
    if (!file)
        return false;
    ok = unlink(path) == 0;
    if (!ok)
        error_setg_errno(errp, errno, "cannot remove the old journal %s", path);
    block_close(file);
    return ok;
}

/* The disks will be overwritten from here, and a new journal made. */
static bool settle_journal(const struct machine_config *c, Error **errp)
{
    char path[1100];

    for (int i = 0; i < c->disk_count; i++)
        if (machine_disk_is_copied(&c->disks[i]) && !settle_disk(&c->disks[i], errp))
            return false;
    return machine_journal_path(c, path, sizeof(path), errp) && remove_journal(path, errp);
}

bool disk_gate_standby(const struct machine_config *c, bool force_stale, Error **errp)
{
    return pass(c, true, force_stale, errp) && settle_journal(c, errp);
}
