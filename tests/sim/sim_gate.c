/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_gate.h"
#include "sim_content.h"

#include "control/disk_judge.h"
#include "control/disk_replay.h"

struct disk {
    struct judged_disk judged;
    struct sim_store *store;
    unsigned number;
};

static bool store_record(struct judged_disk *j, Error **errp)
{
    struct disk *d = (struct disk *)j;

    return sim_store_put_record(d->store, d->number, &j->record, errp);
}

static bool replay(struct judged_disk *j, Error **errp)
{
    struct disk *d = (struct disk *)j;

    if (!j->record.journal[0])
        return true;
    return disk_replay_from(j->image, sim_store_open_journal(d->store, errp), j->record.journal, errp);
}

static bool open_disk(struct disk *d, struct sim_store *s, unsigned i, Error **errp)
{
    *d = (struct disk){.store = s, .number = i};
    d->judged = (struct judged_disk){
        .id = sim_store_disk_id(i), .path = "the store", .store = store_record, .replay = replay};
    if (!sim_store_load_record(s, i, &d->judged.record, errp))
        return false;
    d->judged.image = sim_store_open_disk(s, i);
    return true;
}

static void judge(struct disk_court *court, struct sim_store *s, unsigned i)
{
    Error *err = NULL;
    struct disk d;

    if (!open_disk(&d, s, i, &err)) {
        disk_court_object(court, err);
        return;
    }
    disk_judge(court, &d.judged);
    block_close(d.judged.image);
}

static bool settle(struct sim_store *s, unsigned i, Error **errp)
{
    struct disk d;
    bool ok;

    if (!open_disk(&d, s, i, errp))
        return false;
    ok = disk_settle(&d.judged, errp);
    block_close(d.judged.image);
    return ok;
}

static bool all_standby(struct sim_store *s)
{
    struct disk_record r;

    for (unsigned i = 0; i < sim_store_disks(); i++)
        if (!sim_store_load_record(s, i, &r, NULL) || r.role != DISK_STANDBY)
            return false;
    return true;
}

static bool pass(struct sim_store *s, bool standby, bool force, Error **errp)
{
    struct disk_court court = {.standby = standby, .force = force};

    for (unsigned i = 0; i < sim_store_disks(); i++)
        judge(&court, s, i);
    if (court.reasons[0])
        error_setg(errp, "%s", court.reasons);
    return !court.reasons[0];
}

bool sim_gate(struct sim_store *s, bool standby, bool force, Error **errp)
{
    bool was_standby = all_standby(s);

    if (!pass(s, standby, force, errp))
        return false;
    for (unsigned i = 0; standby && i < sim_store_disks(); i++)
        if (!settle(s, i, errp))
            return false;
    if (was_standby && (standby || force))
        content_check_whole(s);
    return true;
}
