/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Error: what went wrong, for a person and for a machine.
 *
 * A function that can fail takes `Error **errp` as its last parameter and returns false (NULL, a negative
 * number). errp may be NULL: the caller does not care. A function leaves *errp untouched on success and sets
 * it exactly once on failure; nobody reads *errp before he knows that the call failed. The text says what, on
 * which object, and what to do; no trailing newline or dot.
 *
 *     Error *err = NULL;
 *     if (!thing_open(path, &err)) {
 *         error_prepend(&err, "disk %s: ", id);
 *         error_propagate(errp, err);             // hands err to the caller, or frees it
 *         return false;
 *     }
 */
#ifndef PERDURE_ERROR_H
#define PERDURE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>

typedef struct Error Error;

#define PERDURE_PRINTF(f, a) __attribute__((format(printf, f, a)))

void error_setg(Error **errp, const char *fmt, ...) PERDURE_PRINTF(2, 3);
/* Appends ": " and the text of errnum (a positive errno), which error_get_errno() then returns. */
void error_setg_errno(Error **errp, int errnum, const char *fmt, ...) PERDURE_PRINTF(3, 4);
/* Takes err (may be NULL: nothing happens). Keeps the first error: if *errp is set already, err is freed. */
void error_propagate(Error **errp, Error *err);
/* Puts text before the message of *errp; nothing happens if errp or *errp is NULL. */
void error_prepend(Error **errp, const char *fmt, ...) PERDURE_PRINTF(2, 3);
/* The message, borrowed: valid until err is freed. */
const char *error_get_pretty(const Error *err);
/* The positive errno given to error_setg_errno(), or 0. */
int error_get_errno(const Error *err);
Error *error_copy(const Error *err);
/* NULL is fine. */
void error_free(Error *err);

#endif
