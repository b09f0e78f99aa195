/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/disk_judge.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/task.h"
#include "engine/arbiter.h"

#include <stdio.h>
#include <string.h>

#define CLAIM_LIMIT (10 * NS_PER_S)

static void refuse(struct disk_court *c, const struct judged_disk *d, const char *why, const char *what_to_do)
{
    size_t n = strlen(c->reasons);

    snprintf(c->reasons + n, sizeof(c->reasons) - n, "%sdisk %s: %s %s; %s", n ? "\n" : "", d->id, d->path,
             why, what_to_do);
}

void disk_court_object(struct disk_court *c, Error *err)
{
    size_t n = strlen(c->reasons);

    snprintf(c->reasons + n, sizeof(c->reasons) - n, "%s%s", n ? "\n" : "", error_get_pretty(err));
    error_free(err);
}

static bool store(struct disk_court *c, struct judged_disk *d, enum disk_role role)
{
    Error *err = NULL;

    d->record.role = role;
    if (d->store(d, &err))
        return true;
    disk_court_object(c, err);
    return false;
}

/* --- a former primary's disk: whose turn is it? --- */

static enum arbiter_answer claim(const struct disk_record *r, Error **errp)
{
    struct arbiter_claim question = {
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
    answer = arbiter_claim(a, &question, clock_now() + CLAIM_LIMIT, errp);
    arbiter_free(a);
    return answer;
}

static void unknown(struct disk_court *c, const struct judged_disk *d, Error *err)
{
    char why[2048];

    snprintf(why, sizeof(why),
             "was the primary's when it was last used, and arbiter %s cannot say whether the other "
             "side went on (%s)",
             d->record.arbiter, error_get_pretty(err));
    refuse(c, d, why,
           c->standby ? "if it did: --force-stale overwrites this copy"
                      : "if it did not: --force-stale runs this copy");
    error_free(err);
}

/* Leaves the record as what it has become. */
static void settle_primary(struct disk_court *c, struct judged_disk *d)
{
    Error *err = NULL;

    switch (claim(&d->record, &err)) {
    case ARBITER_GRANTED:
        store(c, d, DISK_CLEAN);
        break;
    case ARBITER_DENIED:
        store(c, d, DISK_SUPERSEDED);
        break;
    default:
        unknown(c, d, err);
    }
}

/* --- the table of disk_record.h --- */

static void judge_run(struct disk_court *c, struct judged_disk *d)
{
    switch (d->record.role) {
    case DISK_STANDBY:
        refuse(c, d, "is a standby's: its guest runs, or ran, on the other side",
               "`perdure failover` takes over; if the other side is gone for good: --force-stale");
        break;
    case DISK_SYNC_TARGET:
        refuse(c, d, "is half overwritten by a sync that did not end",
               "start it as a standby again; --force-stale runs what is there");
        break;
    case DISK_SUPERSEDED:
        refuse(c, d, "is older than the copy with which the other side went on",
               "start it as a standby; if that copy is lost: --force-stale");
        break;
    default:
        break;
    }
}

static void judge_standby(struct disk_court *c, struct judged_disk *d)
{
    if (d->record.role == DISK_CLEAN)
        refuse(c, d, "is the newest copy of a protected machine",
               "--force-stale lets a primary overwrite it");
}

static void force(struct disk_court *c, struct judged_disk *d)
{
    Error *err = NULL;

    if (c->standby || d->record.role == DISK_NO_RECORD)
        return;
    if (d->record.role == DISK_STANDBY && !d->replay(d, &err)) {
        disk_court_object(c, err);
        return;
    }
    log_warn("disk %s: %s was %s; run because of --force-stale", d->id, d->path,
             disk_role_name(d->record.role));
    store(c, d, DISK_CLEAN);
}

void disk_judge(struct disk_court *c, struct judged_disk *d)
{
    if (c->force) {
        force(c, d);
        return;
    }
    if (d->record.role == DISK_PRIMARY && !fault_point("disks.run_without_asking"))
        settle_primary(c, d);
    if (c->standby)
        judge_standby(c, d);
    else
        judge_run(c, d);
}

void disk_judge_shared(struct disk_court *c, const struct judged_disk *d)
{
    char why[128];

    if (c->force || d->record.role == DISK_NO_RECORD || d->record.role == DISK_CLEAN)
        return;
    snprintf(why, sizeof(why),
             "is a copy (%s), by the record beside it, and not what a guest shares (shared=on)",
             disk_role_name(d->record.role));
    refuse(c, d, why, "if it is its image all the same: --force-stale");
}

bool disk_settle(struct judged_disk *d, Error **errp)
{
    if (d->record.role == DISK_STANDBY && !d->replay(d, errp))
        return false;
    if (!d->record.journal[0])
        return true;
    d->record.journal[0] = 0;
    return d->store(d, errp);
}
