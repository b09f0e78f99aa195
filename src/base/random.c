/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/random.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

static random_source_fn *source;

void random_set_source(random_source_fn *fn)
{
    source = fn;
}

void random_bytes(void *buf, size_t n)
{
    uint8_t *p = buf;

    if (source) {
        source(buf, n);
        return;
    }
    while (n) {
        ssize_t r = getrandom(p, n, 0);

        if (r < 0 && errno != EINTR)
            abort(); /* a kernel without getrandom: no name or key made without it can be trusted */
        if (r > 0) {
            p += r;
            n -= (size_t)r;
        }
    }
}
