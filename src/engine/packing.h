/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Packing: are a migration's pages to be packed? It pays where the link is what is waited for, and is slower than one
 * processor packs; on a quick link it only takes longer.
 *
 *     struct packing k = {.how = ENGINE_PACK_AUTO};
 *
 *     packing_sent(&k, bytes, ns, waited_ns);    // a part: so much in so much time, of which the link was waited for
 *     if (packing_is_on(&k)) ...
 *
 * Numbers only: no clock, no lock, one caller.
 */
#ifndef ENGINE_PACKING_H
#define ENGINE_PACKING_H

#include "engine/engine.h"

struct packing {
    enum engine_packing how;
    /* private */
    uint64_t bytes; /* measured of late ... */
    int64_t ns;     /* ... in so much time, ... */
    int64_t waited; /* ... so much of it waiting */
    bool slow;      /* the link is, by these */
};

void packing_sent(struct packing *k, uint64_t bytes, int64_t ns, int64_t waited_ns);
bool packing_is_on(const struct packing *k);

#endif
