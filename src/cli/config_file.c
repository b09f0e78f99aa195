/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/config_file.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_MAX 4096

struct reader {
    const char *name;
    config_file_line *fn;
    void *opaque;
    bool in_section, here, matched; /* past the first section; this one is ours; one was */
};

/* Without the spaces at both ends; changes text. */
static char *trim(char *text)
{
    char *end;

    while (isspace((unsigned char)*text))
        text++;
    end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        end--;
    *end = 0;
    return text;
}

static bool put_name(const char *value, const char *name, char *buf, Error **errp)
{
    size_t n = 0;

    while (*value) {
        bool is_name = value[0] == '%' && value[1] == 'n';
        const char *from = is_name ? name : value;
        size_t length = is_name ? strlen(name) : 1;

        if (n + length >= VALUE_MAX) {
            error_setg(errp, "a value of more than %d bytes", VALUE_MAX - 1);
            return false;
        }
        memcpy(buf + n, from, length);
        n += length;
        value += is_name ? 2 : 1;
    }
    buf[n] = 0;
    return true;
}

static bool take_section(struct reader *r, char *text, Error **errp)
{
    size_t n = strlen(text);

    if (n < 3 || text[n - 1] != ']') {
        error_setg(errp, "'%s' is not [NAME] or [PATTERN]", text);
        return false;
    }
    text[n - 1] = 0;
    r->in_section = true;
    r->here = !r->matched && r->name && !fnmatch(text + 1, r->name, 0);
    r->matched |= r->here;
    return true;
}

static bool take_line(struct reader *r, char *text, Error **errp)
{
    char value[VALUE_MAX], *rest;

    text = trim(text);
    if (!*text || *text == '#')
        return true;
    if (*text == '[')
        return take_section(r, text, errp);
    if (r->in_section && !r->here)
        return true;
    rest = text + strcspn(text, " \t");
    if (!*rest)
        return r->fn(r->opaque, text, NULL, errp);
    *rest++ = 0;
    return put_name(trim(rest), r->name ? r->name : "", value, errp) && r->fn(r->opaque, text, value, errp);
}

bool config_file_read(const char *path, const char *name, config_file_line *fn, void *opaque,
                      bool *ret_section, Error **errp)
{
    struct reader r = {.name = name, .fn = fn, .opaque = opaque};
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t size = 0;
    bool ok = true;

    if (!f) {
        error_setg_errno(errp, errno, "%s", path);
        return false;
    }
    for (int number = 1; ok && getline(&line, &size, f) >= 0; number++) {
        ok = take_line(&r, line, errp);
        if (!ok)
            error_prepend(errp, "%s:%d: ", path, number);
    }
    if (ok && ferror(f)) {
        error_setg_errno(errp, errno, "%s", path);
        ok = false;
    }
    free(line);
    fclose(f);
    if (ret_section)
        *ret_section = r.matched;
    return ok;
}
