/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/report.h"
#include "base/task.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void append(struct report *r, const char *fmt, ...) PERDURE_PRINTF(2, 3);

static void append_v(struct report *r, const char *fmt, va_list ap)
{
    size_t n = strlen(r->text);

    vsnprintf(r->text + n, sizeof(r->text) - n, fmt, ap);
}

static void append(struct report *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    append_v(r, fmt, ap);
    va_end(ap);
}

static void begin_line(struct report *r, const char *what)
{
    append(r, "%s%s: ", r->text[0] ? "\n" : "", what);
}

static double ms(int64_t ns)
{
    return (double)ns / (double)NS_PER_MS;
}

void report_begin(struct report *r, const char *change, const char *why, int64_t detected,
                  uint64_t generation, uint64_t epoch, int64_t last_ack)
{
    *r = (struct report){.t0 = detected};
    report_note(r, "change", "%s", change);
    if (last_ack)
        report_note(r, "last-ack", "%.1f ms, generation %" PRIu64 " epoch %" PRIu64, ms(last_ack - detected),
                    generation, epoch);
    else
        report_note(r, "last-ack", "none");
    report_note(r, "detection", "+0.0 ms %s", why);
}

void report_line(struct report *r, const char *what, const char *fmt, ...)
{
    va_list ap;

    begin_line(r, what);
    append(r, "+%.1f ms ", ms(clock_now() - r->t0));
    va_start(ap, fmt);
    append_v(r, fmt, ap);
    va_end(ap);
}

void report_note(struct report *r, const char *what, const char *fmt, ...)
{
    va_list ap;

    begin_line(r, what);
    va_start(ap, fmt);
    append_v(r, fmt, ap);
    va_end(ap);
}
