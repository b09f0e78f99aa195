/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Report: what happened at a change of role, and when, one line "what: value" each. Times are milliseconds
 * after the detection. Written by the session's task; engine_status() has the last complete one.
 */
#ifndef ENGINE_REPORT_H
#define ENGINE_REPORT_H

#include <perdure/error.h>
#include <stdint.h>

struct report {
    int64_t t0; /* detection */
    char text[2048];
};

/* Begins anew. last_ack: when the last epoch was acknowledged; 0: none. */
void report_begin(struct report *r, const char *change, const char *why, int64_t detected,
                  uint64_t generation, uint64_t epoch, int64_t last_ack);
/* "what: +N.N ms ..." */
void report_line(struct report *r, const char *what, const char *fmt, ...) PERDURE_PRINTF(3, 4);
/* The same without the time. */
void report_note(struct report *r, const char *what, const char *fmt, ...) PERDURE_PRINTF(3, 4);

#endif
