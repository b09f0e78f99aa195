/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Histogram: percentiles of the last 1024 samples, for status. Adding costs one store; the work is done when
 * somebody asks. Threads: the owner's lock.
 */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_SAMPLES 1024

/* All zero is an empty one. */
struct histogram {
    uint64_t samples[HISTOGRAM_SAMPLES];
    uint64_t count; /* ever added */
};

/* Nearest rank; all zero when there are no samples. */
struct histogram_summary {
    uint64_t p50, p99, max, mean;
};

void histogram_add(struct histogram *h, uint64_t sample);
void histogram_summarize(const struct histogram *h, struct histogram_summary *ret_summary);

#endif
