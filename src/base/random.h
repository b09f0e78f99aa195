/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random bytes: the kernel's, or the simulator's, whose seed replays a run.
 */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>

typedef void random_source_fn(void *buf, size_t n);

/* NULL: the kernel. Before any task runs. */
void random_set_source(random_source_fn *fn);
/* Fit for keys, unless a source is set. Any thread. */
void random_bytes(void *buf, size_t n);

#endif
