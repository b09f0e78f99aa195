/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who asks for `perdure top`: a task for each machine of this host, so that one whose process hangs (each
 * request has a timeout) holds up nothing but its own line.
 *
 *     p = top_poll_new(name or NULL, interval, &err);
 *     while (...) {
 *         top_poll_scan(p);                        // machines that are new; those that ended go
 *         n = top_poll_rows(p, rows, TOP_ROWS_MAX);
 *     }
 *     top_poll_free(p);                            // may wait for a request's timeout
 *
 * One caller; the rows are copies.
 */
#ifndef CLI_TOP_POLL_H
#define CLI_TOP_POLL_H

#include "cli/top_model.h"
#include <perdure/error.h>

#define TOP_ROWS_MAX   64
#define TOP_TIMEOUT_NS INT64_C(1000000000)

struct top_poll;

/* name: this machine alone, whether it is there or not; NULL: all of this host. */
struct top_poll *top_poll_new(const char *name, int64_t interval_ns, Error **errp);
void top_poll_scan(struct top_poll *p);
/* By name. */
int top_poll_rows(struct top_poll *p, struct top_row *rows, int most);
void top_poll_free(struct top_poll *p); /* NULL is fine */

#endif
