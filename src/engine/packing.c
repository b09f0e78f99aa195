/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/packing.h"
#include "base/task.h"

#define WINDOW     (400 * NS_PER_MS)    /* older figures count half, and half again */
#define ENOUGH     (20 * NS_PER_MS)     /* to judge by */
#define SLOW_BELOW (UINT64_C(96) << 20) /* bytes a second: LZ4 packs several times as much */

void packing_sent(struct packing *k, uint64_t bytes, int64_t ns, int64_t waited_ns)
{
    double rate;

    k->bytes += bytes;
    k->ns += ns;
    k->waited += waited_ns;
    if (k->ns < ENOUGH)
        return;
    rate = (double)k->bytes * NS_PER_S / (double)k->ns;
    /* Once pages are packed there is less to wait for: only a link that is hardly waited for at all is quick then. */
    k->slow = rate < SLOW_BELOW && k->waited > (k->slow ? k->ns / 8 : k->ns / 2);
    if (k->ns <= WINDOW)
        return;
    k->bytes /= 2;
    k->ns /= 2;
    k->waited /= 2;
}

bool packing_is_on(const struct packing *k)
{
    return k->how == ENGINE_PACK_ON || (k->how == ENGINE_PACK_AUTO && k->slow);
}
