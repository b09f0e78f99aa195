/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/disk_gate.h"
#include "base/log.h"
#include "base/task.h"
#include "block/disk_record.h"
#include "block/raw.h"
#include "control/disk_replay.h"
#include "engine/arbiter.h"
#include "machine/machine_disks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CLAIM_LIMIT (10 * NS_PER_S)

struct gate {
    bool standby, force;
    char reasons[4096]; /* one a line */
};

struct disk {
    const struct machine_disk *config;
    Block *image; /* open, and so locked: nobody else has this disk while it is judged */
    char record_path[1200];
    struct disk_record record;
};

static void refuse(struct gate *g, const struct disk *d, const char *why, const char *what_to_do)
{
    size_t n = strlen(g->reasons);

    snprintf(g->reasons + n, sizeof(g->reasons) - n, "%sdisk %s: %s %s; %s", n ? "\n" : "", d->config->id,
             d->config->path, why, what_to_do);
}

static void take_error(struct gate *g, Error *err)
{
    size_t n = strlen(g->reasons);

    snprintf(g->reasons + n, sizeof(g->reasons) - n, "%s%s", n ? "\n" : "", error_get_pretty(err));
    error_free(err);
}

static bool store(struct gate *g, struct disk *d, enum disk_role role)
{
    Error *err = NULL;

    d->record.role = role;
    if (disk_record_store(d->record_path, &d->record, &err))
        return true;
    take_error(g, err);
    return false;
}

/* --- a former primary's disk: whose turn is it? --- */

static enum arbiter_answer claim(const struct disk_record *r, Error **errp)
{
    struct arbiter_claim c = {
        .pair = r->pair,
        .generation = r->generation,
        .side = ARBITER_PRIMARY,
        .vm = r->vm,
        .peer = r->peer,
        .returning = true,
    };
    Arbiter *a = arbiter_new(r->arbiter, errp);
    enum arbiter_answer answer;

    if (!a)
        return ARBITER_UNKNOWN;
    answer = arbiter_claim(a, &c, clock_now() + CLAIM_LIMIT, errp);
    arbiter_free(a);
    return answer;
}

static void unknown(struct gate *g, const struct disk *d, Error *err)
{
    char why[2048];

    snprintf(why, sizeof(why),
             "was the primary's when it was last used, and arbiter %s cannot say whether the other "
             "side went on (%s)",
             d->record.arbiter, error_get_pretty(err));
    refuse(g, d, why,
           g->standby ? "if it did: --force-stale overwrites this copy"
                      : "if it did not: --force-stale runs this copy");
    error_free(err);
}

/* Leaves the record as what it has become. */
static void settle_primary(struct gate *g, struct disk *d)
{
    Error *err = NULL;

    switch (claim(&d->record, &err)) {
    case ARBITER_GRANTED:
        store(g, d, DISK_CLEAN);
        break;
    case ARBITER_DENIED:
        store(g, d, DISK_SUPERSEDED);
        break;
    default:
        unknown(g, d, err);
    }
}

/* --- the table of disk_record.h --- */

static void judge_run(struct gate *g, struct disk *d)
{
    switch (d->record.role) {
    case DISK_STANDBY:
        refuse(g, d, "is a standby's: its guest runs, or ran, on the other side",
               "`perdure failover` takes over; if the other side is gone for good: --force-stale");
        break;
    case DISK_SYNC_TARGET:
        refuse(g, d, "is half overwritten by a sync that did not end",
               "start it as a standby again; --force-stale runs what is there");
        break;
    case DISK_SUPERSEDED:
        refuse(g, d, "is older than the copy with which the other side went on",
               "start it as a standby; if that copy is lost: --force-stale");
        break;
    default:
        break;
    }
}

static void judge_standby(struct gate *g, struct disk *d)
{
    if (d->record.role == DISK_CLEAN)
        refuse(g, d, "is the newest copy of a protected machine",
               "--force-stale lets a primary overwrite it");
}

static void force(struct gate *g, struct disk *d)
{
    Error *err = NULL;

    if (g->standby || d->record.role == DISK_NO_RECORD)
        return;
    if (d->record.role == DISK_STANDBY && !disk_replay(d->image, d->record.journal, &err)) {
        take_error(g, err);
        return;
    }
    log_warn("disk %s: %s was %s; run because of --force-stale", d->config->id, d->config->path,
             disk_role_name(d->record.role));
    store(g, d, DISK_CLEAN);
}

static void judge(struct gate *g, struct disk *d)
{
    if (g->force) {
        force(g, d);
        return;
    }
    if (d->record.role == DISK_PRIMARY)
        settle_primary(g, d);
    if (g->standby)
        judge_standby(g, d);
    else
        judge_run(g, d);
}

/* The image first: it may be that of a machine that lives, and a claim for that one, by us, would leave its backup
 * denied. */
static bool open_disk(struct disk *d, const struct machine_disk *config, Error **errp)
{
    *d = (struct disk){.config = config};
    d->image = block_raw_open(&(struct block_raw_options){.id = config->id, .path = config->path}, errp);
    if (d->image && disk_record_path(config->path, d->record_path, sizeof(d->record_path), errp) &&
        disk_record_load(d->record_path, &d->record, errp))
        return true;
    block_close(d->image);
    return false;
}

static void check(struct gate *g, const struct machine_disk *config)
{
    Error *err = NULL;
    struct disk d;

    if (!open_disk(&d, config, &err)) {
        take_error(g, err);
        return;
    }
    judge(g, &d);
    block_close(d.image);
}

static bool pass(const struct machine_config *c, bool standby, bool force_stale, Error **errp)
{
    struct gate g = {.standby = standby, .force = force_stale};

    for (int i = 0; i < c->disk_count; i++)
        if (!c->disks[i].readonly)
            check(&g, &c->disks[i]);
    if (g.reasons[0])
        error_setg(errp, "%s", g.reasons);
    return !g.reasons[0];
}

bool disk_gate_run(const struct machine_config *c, bool force_stale, Error **errp)
{
    return pass(c, false, force_stale, errp);
}

/* A standby's disk gets what its journal holds (a primary that never comes leaves a whole epoch), and then names
 * none. */
static bool settle_disk(const struct machine_disk *config, Error **errp)
{
    struct disk d;
    bool ok;

    if (!open_disk(&d, config, errp))
        return false;
    ok = d.record.role != DISK_STANDBY || disk_replay(d.image, d.record.journal, errp);
    if (ok && d.record.journal[0]) {
        d.record.journal[0] = 0;
        ok = disk_record_store(d.record_path, &d.record, errp);
    }
    block_close(d.image);
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
        if (!c->disks[i].readonly && !settle_disk(&c->disks[i], errp))
            return false;
    return machine_journal_path(c, path, sizeof(path), errp) && remove_journal(path, errp);
}

bool disk_gate_standby(const struct machine_config *c, bool force_stale, Error **errp)
{
    return pass(c, true, force_stale, errp) && settle_journal(c, errp);
}
