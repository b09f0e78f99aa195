/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rounds before the first epoch: the guest runs, unprotected and with its output free; every page goes
 * over, then those that changed meanwhile, and again, as long as that gets fewer.
 *
 * Output is held only from the end of the rounds: on a large machine they take many seconds, and nobody gains
 * by holding what no epoch protects yet.
 */
#include "engine/primary.h"
#include <perdure/checkpoint_device.h>

#define ROUNDS_MAX 30
#define FEW_PAGES  512

static void tell_left(struct primary *p, uint64_t left)
{
    task_lock(&p->e->lock);
    p->e->figures.sync_pages_left = left;
    task_unlock(&p->e->lock);
}

static bool sync_round(struct primary *p, Error **errp)
{
    bool more = true;

    while (more) {
        uint32_t crc = 0;

        if (!primary_may_go_on(p) || !primary_request_before_epochs(p, errp) ||
            !primary_feed(p, p->epoch + 1, &p->crc, errp))
            return false;
        staging_reset(p->staging);
        primary_limit_send(p);
        if (!p->g->ops->collect(p->g, p->staging, true, &more, errp) ||
            !primary_send_staging(p, WIRE_SYNC_PAGES, 0, &crc, errp) ||
            !perdure_stream_flush(p->s->out, errp))
            return false;
        tell_left(p, p->g->ops->changed_pages(p->g));
    }
    return true;
}

bool primary_sync(struct primary *p, Error **errp)
{
    uint64_t before = UINT64_MAX, left;

    if (!primary_feed_sync(p, errp) || !p->g->ops->tracking_start(p->g, false, errp))
        return false;
    p->tracking = true;
    for (int round = 0; round < ROUNDS_MAX; round++) {
        if (!sync_round(p, errp))
            return false;
        left = p->g->ops->changed_pages(p->g);
        if (left <= FEW_PAGES || left > before - before / 4)
            break;
        before = left;
    }
    tell_left(p, 0);
    return true;
}
