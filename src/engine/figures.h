/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Figures: what `status` tells about the epochs. Under the engine's lock.
 */
#ifndef ENGINE_FIGURES_H
#define ENGINE_FIGURES_H

#include "base/histogram.h"
#include "engine/engine.h"
#include "guest/page_codec.h"

struct figures {
    struct histogram pause_us, dirty_pages, ack_us, output_held_us, bytes;
    int64_t ended[HISTOGRAM_SAMPLES]; /* when the last epochs were committed, a ring */
    uint64_t epochs, staging_full, verified;
    uint64_t pages[PAGE_KINDS];
    uint64_t sync_pages_left, sync_bytes_left, sync_bytes_total;
    int64_t sync_began, sync_looked; /* the disks': times; 0: never */
};

/* One committed epoch. */
struct epoch_figures {
    int64_t pause_ns, ack_ns;
    int64_t held_ns; /* of its oldest output; 0: there was none */
    uint64_t pages, bytes;
};

void figures_add(struct figures *f, const struct epoch_figures *ep, int64_t now);
/* The disks' sync has so much left. */
void figures_sync(struct figures *f, uint64_t bytes_left, int64_t now);
void figures_fill(const struct figures *f, int64_t now, struct engine_status *ret_status);

#endif
