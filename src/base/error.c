/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <perdure/error.h>

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Error {
    char *text;
    int errnum;
};

/* An error about a lack of memory must not itself need memory. */
static Error out_of_memory = {.text = (char *)"out of memory", .errnum = 12 /* ENOMEM */};

static Error *error_new(int errnum, const char *fmt, va_list ap)
{
    Error *err = malloc(sizeof(*err));
    char *text = NULL;

    if (!err || vasprintf(&text, fmt, ap) < 0) {
        free(err);
        return &out_of_memory;
    }
    *err = (Error){.text = text, .errnum = errnum};
    return err;
}

void error_setg(Error **errp, const char *fmt, ...)
{
    va_list ap;

    if (!errp)
        return;
    assert(!*errp);
    va_start(ap, fmt);
    *errp = error_new(0, fmt, ap);
    va_end(ap);
}

void error_setg_errno(Error **errp, int errnum, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    if (!errp)
        return;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    error_setg(errp, "%s: %s", text ? text : fmt, strerrordesc_np(errnum) ?: "unknown error");
    if (*errp != &out_of_memory)
        (*errp)->errnum = errnum;
    free(text);
}

void error_propagate(Error **errp, Error *err)
{
    if (!err)
        return;
    if (errp && !*errp)
        *errp = err;
    else
        error_free(err);
}

void error_prepend(Error **errp, const char *fmt, ...)
{
    char *head, *text;
    va_list ap;
    int n;

    if (!errp || !*errp || *errp == &out_of_memory)
        return;
    va_start(ap, fmt);
    n = vasprintf(&head, fmt, ap);
    va_end(ap);
    if (n < 0)
        return; /* the error itself is worth more than its context */
    if (asprintf(&text, "%s%s", head, (*errp)->text) >= 0) {
        free((*errp)->text);
        (*errp)->text = text;
    }
    free(head);
}

const char *error_get_pretty(const Error *err)
{
    return err->text;
}

int error_get_errno(const Error *err)
{
    return err->errnum;
}

Error *error_copy(const Error *err)
{
    Error *copy = NULL;

    error_setg(&copy, "%s", err->text);
    if (copy != &out_of_memory)
        copy->errnum = err->errnum;
    return copy;
}

void error_free(Error *err)
{
    if (!err || err == &out_of_memory)
        return;
    free(err->text);
    free(err);
}
