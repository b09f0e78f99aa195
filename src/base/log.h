/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Log: what a person may want to read later. The library never prints: messages go to the sink that the
 * program set, and nowhere when there is none. What a caller must know goes through Error, not here.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <perdure/error.h>

enum log_level { LOG_LEVEL_INFO, LOG_LEVEL_WARN };

/* Called by any thread, several at once; text has no newline and is borrowed. */
typedef void log_sink_fn(enum log_level level, const char *text);

/* NULL: no sink. Any thread, any time. */
void log_set_sink(log_sink_fn *fn);
/* One line each, cut at 1 KiB. */
void log_info(const char *fmt, ...) PERDURE_PRINTF(1, 2);
void log_warn(const char *fmt, ...) PERDURE_PRINTF(1, 2);

#endif
