/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/histogram.h"

#include <stdlib.h>
#include <string.h>

void histogram_add(struct histogram *h, uint64_t sample)
{
    h->samples[h->count++ % HISTOGRAM_SAMPLES] = sample;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

void histogram_summarize(const struct histogram *h, struct histogram_summary *ret_summary)
{
    size_t n = h->count < HISTOGRAM_SAMPLES ? h->count : HISTOGRAM_SAMPLES;
    uint64_t sorted[HISTOGRAM_SAMPLES];
    double sum = 0;

    *ret_summary = (struct histogram_summary){0};
    if (!n)
        return;
    memcpy(sorted, h->samples, n * sizeof(sorted[0]));
    qsort(sorted, n, sizeof(sorted[0]), compare);
    for (size_t i = 0; i < n; i++)
        sum += (double)sorted[i];
    *ret_summary = (struct histogram_summary){
        .p50 = sorted[(n * 50 + 99) / 100 - 1],
        .p99 = sorted[(n * 99 + 99) / 100 - 1],
        .max = sorted[n - 1],
        .mean = (uint64_t)(sum / (double)n),
    };
}
