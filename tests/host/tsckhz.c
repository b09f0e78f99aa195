// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Prints how many kHz this machine's TSC counts, to the MHz.
 *
 * An emulated host counts with the TSC of this machine, but measures it by its own slow clocks, each a little
 * differently.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

struct moment {
    uint64_t tsc, ns;
};

/* The pair of readings that lay closest together. */
static struct moment now(void)
{
    struct moment best = {0, 0};
    uint64_t width = UINT64_MAX;

    for (int i = 0; i < 100; i++) {
        struct timespec t;
        uint64_t before = __rdtsc();
        clock_gettime(CLOCK_MONOTONIC_RAW, &t);
        uint64_t after = __rdtsc();

        if (after - before >= width)
            continue;
        width = after - before;
        best = (struct moment){before + width / 2, t.tv_sec * UINT64_C(1000000000) + t.tv_nsec};
    }
    return best;
}

int main(void)
{
    struct moment begin = now(), end;

    usleep(100000);
    end = now();
    uint64_t khz = (end.tsc - begin.tsc) * 1000000 / (end.ns - begin.ns);
    printf("%llu\n", (unsigned long long)((khz + 500) / 1000 * 1000));
}
