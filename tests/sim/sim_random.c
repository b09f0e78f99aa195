/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_random.h"

uint64_t sim_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

struct sim_rng sim_rng_make(uint64_t seed, uint64_t stream)
{
    return (struct sim_rng){sim_mix(seed * 2 + 1) ^ sim_mix(stream + UINT64_C(0x5851f42d4c957f2d))};
}

uint64_t sim_rng_next(struct sim_rng *r)
{
    r->state += UINT64_C(0x9e3779b97f4a7c15);
    return sim_mix(r->state);
}

uint64_t sim_rng_below(struct sim_rng *r, uint64_t n)
{
    return sim_rng_next(r) % n;
}

int64_t sim_rng_range(struct sim_rng *r, int64_t lo, int64_t hi)
{
    return lo + (int64_t)sim_rng_below(r, (uint64_t)(hi - lo) + 1);
}

bool sim_rng_one_in(struct sim_rng *r, uint64_t n)
{
    return sim_rng_below(r, n) == 0;
}
