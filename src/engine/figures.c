/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/figures.h"
#include "base/task.h"

#include <string.h>

static uint64_t in_us(int64_t ns)
{
    return ns > 0 ? (uint64_t)(ns / NS_PER_US) : 0;
}

void figures_add(struct figures *f, const struct epoch_figures *ep, int64_t now)
{
    histogram_add(&f->pause_us, in_us(ep->pause_ns));
    histogram_add(&f->ack_us, in_us(ep->ack_ns));
    histogram_add(&f->dirty_pages, ep->pages);
    histogram_add(&f->bytes, ep->bytes);
    if (ep->held_ns)
        histogram_add(&f->output_held_us, in_us(ep->held_ns));
    f->ended[f->epochs++ % HISTOGRAM_SAMPLES] = now;
}

static uint64_t rate(const struct figures *f, int64_t now)
{
    uint64_t n = f->epochs < HISTOGRAM_SAMPLES ? f->epochs : HISTOGRAM_SAMPLES, count = 0;

    for (uint64_t i = 0; i < n; i++)
        count += now - f->ended[i] <= NS_PER_S;
    return count;
}

static void fill(struct engine_summary *ret, const struct histogram *h)
{
    struct histogram_summary s;

    histogram_summarize(h, &s);
    *ret = (struct engine_summary){.p50 = s.p50, .p99 = s.p99, .max = s.max};
}

void figures_sync(struct figures *f, uint64_t bytes_left, int64_t now)
{
    if (!f->sync_began) {
        f->sync_began = now;
        f->sync_bytes_total = bytes_left;
    }
    f->sync_bytes_left = bytes_left;
    f->sync_looked = now;
}

static uint64_t sync_rate(const struct figures *f)
{
    double seconds = (double)(f->sync_looked - f->sync_began) / NS_PER_S;

    return seconds > 0 ? (uint64_t)((double)(f->sync_bytes_total - f->sync_bytes_left) / seconds) : 0;
}

void figures_fill(const struct figures *f, int64_t now, struct engine_status *ret_status)
{
    struct histogram_summary bytes;

    fill(&ret_status->pause_us, &f->pause_us);
    fill(&ret_status->dirty_pages, &f->dirty_pages);
    fill(&ret_status->ack_us, &f->ack_us);
    fill(&ret_status->output_held_us, &f->output_held_us);
    histogram_summarize(&f->bytes, &bytes);
    ret_status->bytes_per_epoch = bytes.mean;
    ret_status->rate_hz = rate(f, now);
    ret_status->epochs = f->epochs;
    ret_status->staging_full = f->staging_full;
    ret_status->verified = f->verified;
    memcpy(ret_status->pages, f->pages, sizeof(ret_status->pages));
    ret_status->sync_bytes_left = f->sync_bytes_left;
    ret_status->sync_bytes_total = f->sync_bytes_total;
    ret_status->sync_bytes_per_s = sync_rate(f);
    ret_status->sync_pages_left = f->sync_pages_left;
}
