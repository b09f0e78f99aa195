/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <stdio.h>

static log_sink_fn *sink;

void log_set_sink(log_sink_fn *fn)
{
    __atomic_store_n(&sink, fn, __ATOMIC_RELEASE);
}

static void PERDURE_PRINTF(2, 0) log_message(enum log_level level, const char *fmt, va_list ap)
{
    log_sink_fn *fn = __atomic_load_n(&sink, __ATOMIC_ACQUIRE);
    char text[1024];

    if (!fn)
        return;
    vsnprintf(text, sizeof(text), fmt, ap);
    fn(level, text);
}

void log_info(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_message(LOG_LEVEL_INFO, fmt, ap);
    va_end(ap);
}

void log_warn(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_message(LOG_LEVEL_WARN, fmt, ap);
    va_end(ap);
}
