/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/options.h"
#include "cli/config_file.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit size_units[] = {
    {"K", 1024}, {"M", 1024 * 1024}, {"G", 1024 * 1024 * 1024}, {"", 1}, {NULL, 0}};
static const struct unit duration_units[] = {{"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {NULL, 0}};

static bool parse_with_unit(const char *text, const struct unit *units, const char *wanted, int64_t *ret,
                            Error **errp)
{
    char *end;
    long long n;

    errno = 0;
    n = strtoll(text, &end, 10);
    if (isdigit((unsigned char)text[0]) && !errno) {
        for (const struct unit *u = units; u->name; u++) {
            if (!strcmp(end, u->name) && n <= INT64_MAX / u->factor) {
                *ret = n * u->factor;
                return true;
            }
        }
    }
    error_setg(errp, "'%s' is not %s", text, wanted);
    return false;
}

bool parse_size(const char *text, int64_t *ret, Error **errp)
{
    return parse_with_unit(text, size_units, "a size: a number and K, M or G (512M)", ret, errp);
}

bool parse_duration(const char *text, int64_t *ret_ns, Error **errp)
{
    return parse_with_unit(text, duration_units, "a duration: a number and us, ms or s (10ms)", ret_ns, errp);
}

bool parse_on_off(const char *what, const char *text, bool *ret, Error **errp)
{
    if (strcmp(text, "on") && strcmp(text, "off")) {
        error_setg(errp, "%s: '%s' is neither on nor off", what, text);
        return false;
    }
    *ret = !strcmp(text, "on");
    return true;
}

static bool is_positional(const struct option_spec *spec)
{
    return isupper((unsigned char)spec->name[0]) || spec->name[0] == '[';
}

static bool take_value(const struct option_spec *spec, const char *value, Error **errp)
{
    static const struct unit plain[] = {{"", 1}, {NULL, 0}};
    const struct option_each *each = spec->target;

    switch (spec->type) {
    case OPTION_STRING:
        if (strlen(value) < spec->size) {
            memcpy(spec->target, value, strlen(value) + 1);
            return true;
        }
        error_setg(errp, "longer than %zu bytes", spec->size - 1);
        return false;
    case OPTION_INT:
        return parse_with_unit(value, plain, "a whole number", spec->target, errp);
    case OPTION_SIZE:
        return parse_size(value, spec->target, errp);
    case OPTION_DURATION:
        return parse_duration(value, spec->target, errp);
    case OPTION_EACH:
        return each->take(each->opaque, value, errp);
    case OPTION_FLAG:
        break;
    }
    *(bool *)spec->target = true;
    return true;
}

static const struct option_spec *find_option(const struct option_spec *specs, const char *name, size_t length)
{
    for (; specs->name; specs++) {
        if (!is_positional(specs) && strlen(specs->name) == length && !memcmp(specs->name, name, length))
            return specs;
    }
    return NULL;
}

/* One "--name[=value] [value]"; *i is moved past what it used. */
static bool parse_option(const struct option_spec *specs, int argc, char **argv, int *i, Error **errp)
{
    const char *name = argv[*i] + 2, *value = strchr(name, '=');
    size_t length = value ? (size_t)(value - name) : strlen(name);
    const struct option_spec *spec = find_option(specs, name, length);

    if (!spec) {
        error_setg(errp, "unknown option --%.*s; see perdure %s --help", (int)length, name, argv[0]);
        return false;
    }
    if (value) {
        value++;
        if (spec->type == OPTION_FLAG) {
            error_setg(errp, "--%s takes no value", spec->name);
            return false;
        }
    } else if (spec->type != OPTION_FLAG) {
        if (*i + 1 >= argc) {
            error_setg(errp, "--%s needs a value: %s", spec->name, spec->value);
            return false;
        }
        value = argv[++*i];
    }
    if (take_value(spec, value, errp))
        return true;
    error_prepend(errp, "--%s: ", spec->name);
    return false;
}

static const struct option_spec *next_positional(const struct option_spec *specs)
{
    while (specs->name && !is_positional(specs))
        specs++;
    return specs;
}

bool options_parse(const struct option_spec *specs, int argc, char **argv, Error **errp)
{
    const struct option_spec *positional = next_positional(specs);

    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--", 2) && argv[i][2]) {
            if (!parse_option(specs, argc, argv, &i, errp))
                return false;
        } else if (!positional->name) {
            error_setg(errp, "unexpected argument '%s'; see perdure %s --help", argv[i], argv[0]);
            return false;
        } else {
            if (!take_value(positional, argv[i], errp)) {
                error_prepend(errp, "%s: ", positional->name);
                return false;
            }
            positional = next_positional(positional + 1);
        }
    }
    if (positional->name && positional->name[0] != '[') {
        error_setg(errp, "%s is missing (%s); see perdure %s --help", positional->name, positional->help,
                   argv[0]);
        return false;
    }
    return true;
}

void options_help(const char *command, const char *what, const struct option_spec *specs)
{
    printf("Usage: perdure %s", command);
    for (const struct option_spec *s = specs; s->name; s++) {
        if (is_positional(s))
            printf(" %s", s->name);
    }
    printf(" [OPTION]...\n%s\n\n", what);
    for (const struct option_spec *s = specs; s->name; s++) {
        char head[80];
        snprintf(head, sizeof(head), "%s%s%s%s", is_positional(s) ? "" : "--", s->name, s->value ? " " : "",
                 s->value ? s->value : "");
        printf("  %-26s %s\n", head, s->help);
    }
}

int options_begin(const char *what, const struct option_spec *specs, int argc, char **argv)
{
    Error *err = NULL;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            options_help(argv[0], what, specs);
            return 0;
        }
    }
    if (options_parse(specs, argc, argv, &err))
        return -1;
    fprintf(stderr, "perdure %s: %s\n", argv[0], error_get_pretty(err));
    error_free(err);
    return 2;
}

/* What argv says of an option that is looked at before the others; NULL: nothing. */
static const char *find_value(int argc, char **argv, const char *name)
{
    size_t n = strlen(name);

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) || strncmp(argv[i] + 2, name, n))
            continue;
        if (argv[i][2 + n] == '=')
            return argv[i] + 3 + n;
        if (!argv[i][2 + n] && i + 1 < argc)
            return argv[i + 1];
    }
    return NULL;
}

static bool take_config_line(void *specs, const char *key, const char *value, Error **errp)
{
    char option[64];
    char *argv[] = {"run", option, (char *)value};
    int i = 1;

    if (!strcmp(key, "config") || (size_t)snprintf(option, sizeof(option), "--%s", key) >= sizeof(option) ||
        strchr(key, '=')) {
        error_setg(errp, "'%s' is no option that a file can have", key);
        return false;
    }
    if (!parse_option(specs, value ? 3 : 2, argv, &i, errp))
        return false;
    if (value && i == 1) {
        error_setg(errp, "'%s' takes no value", key);
        return false;
    }
    return true;
}

int options_begin_with_config(const char *what, const struct option_spec *specs, int argc, char **argv)
{
    const char *path = find_value(argc, argv, "config"), *name = find_value(argc, argv, "name");
    Error *err = NULL;

    if (!path || config_file_read(path, name, take_config_line, (void *)specs, NULL, &err))
        return options_begin(what, specs, argc, argv);
    fprintf(stderr, "perdure %s: --config: %s\n", argv[0], error_get_pretty(err));
    error_free(err);
    return 2;
}

static bool take_suboption(const char *option, char *item, const struct suboption *subs, uint32_t *seen,
                           Error **errp)
{
    char *value = strchr(item, '=');

    if (!value || value == item) {
        error_setg(errp, "'%s' is not key=value", item);
        return false;
    }
    *value++ = '\0';
    for (int i = 0; subs[i].key; i++) {
        if (strcmp(subs[i].key, item))
            continue;
        if (*seen & 1u << i || strlen(value) >= subs[i].size) {
            error_setg(errp, "%s= %s", item, *seen & 1u << i ? "is there twice" : "is too long");
            return false;
        }
        *seen |= 1u << i;
        memcpy(subs[i].target, value, strlen(value) + 1);
        return true;
    }
    error_setg(errp, "unknown key '%s' of %s", item, option);
    return false;
}

bool suboptions_parse(const char *option, const char *text, const struct suboption *subs, Error **errp)
{
    char *copy = strdup(text), *save = NULL;
    uint32_t seen = 0;
    bool ok = copy != NULL;

    for (char *item = ok ? strtok_r(copy, ",", &save) : NULL; ok && item; item = strtok_r(NULL, ",", &save))
        ok = take_suboption(option, item, subs, &seen, errp);
    free(copy);
    return ok;
}
