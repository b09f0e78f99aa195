/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_shared.h"

static struct sim_shared *all; /* the newest first; also of hosts that died */

void sim_shared_init(void)
{
    all = NULL;
}

void sim_shared_open(struct sim_shared *d)
{
    *d = (struct sim_shared){.host = sim_host_current(), .hold = GUEST_DISKS_LEFT, .next = all};
    all = d;
}

/* It keeps nobody from it any more. */
static void let_go(const struct sim_shared *d)
{
    for (struct sim_shared *x = all; x; x = x->next)
        if (x->taker == d)
            x->taker = NULL;
}

void sim_shared_close(struct sim_shared *d)
{
    struct sim_shared **at = &all;

    while (*at && *at != d)
        at = &(*at)->next;
    if (*at)
        *at = d->next;
    let_go(d);
}

static bool lives(const struct sim_shared *d)
{
    return sim_host_state(d->host) != SIM_HOST_DEAD;
}

static bool is_on_offer(const struct sim_shared *d)
{
    return d->hold == GUEST_DISKS_OFFERED && lives(d) && !(d->taker && lives(d->taker));
}

/* From who offered it last; a backup that takes over finds nobody. */
static void take(struct sim_shared *d)
{
    for (struct sim_shared *x = all; x; x = x->next) {
        if (x == d || !is_on_offer(x))
            continue;
        x->taker = d;
        return;
    }
}

bool sim_shared_hold(struct sim_shared *d, enum guest_disk_hold how, Error **errp)
{
    if (how == d->hold)
        return true;
    if (how == GUEST_DISKS_OFFERED && d->hold != GUEST_DISKS_HELD)
        sim_fail("a disk is offered by one who does not hold it");
    if (how == GUEST_DISKS_HELD && d->taker && lives(d->taker)) {
        error_setg(errp, "the shared disk is in use on %s", sim_host_name(d->taker->host));
        return false;
    }
    if (how == GUEST_DISKS_HELD && d->hold == GUEST_DISKS_LEFT)
        take(d);
    if (how != GUEST_DISKS_HELD)
        let_go(d);
    sim_trace("shared disk: %s", how == GUEST_DISKS_HELD      ? "held"
                                 : how == GUEST_DISKS_OFFERED ? "offered"
                                                              : "left");
    d->was_offered |= how == GUEST_DISKS_OFFERED;
    d->hold = how;
    return true;
}

void sim_shared_check(const struct sim_shared *d)
{
    if (d->hold == GUEST_DISKS_OFFERED || (d->hold == GUEST_DISKS_LEFT && d->was_offered))
        sim_fail("a guest runs whose shared disk is not its own");
}
