/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Options of a command: a table of what it takes, a parser, and the --help text made from the same table.
 *
 *     struct option_spec specs[] = {
 *         {"name", "NAME", OPTION_STRING, name, sizeof(name), "the VM's name (required)"},
 *         {"memory", "SIZE", OPTION_SIZE, &memory, 0, "RAM: 512M, 1G (default 256M)"},
 *         {0},
 *     };
 *
 * --name VALUE and --name=VALUE; what is no option is a positional argument, in order.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

enum option_type {
    OPTION_STRING,   /* char[size] */
    OPTION_INT,      /* int64_t */
    OPTION_SIZE,     /* int64_t, bytes: K M G, powers of 1024 */
    OPTION_DURATION, /* int64_t, ns: a unit is required: us ms s */
    OPTION_FLAG,     /* bool, takes no value */
    OPTION_EACH,     /* struct option_each: called for each occurrence */
};

struct option_each {
    bool (*take)(void *opaque, const char *value, Error **errp);
    void *opaque;
};

struct option_spec {
    const char *name;  /* "memory"; a positional argument has a name in capitals: "NAME";
                        * one that may be left out "[NAME]" */
    const char *value; /* what --help calls its value; NULL for a flag */
    enum option_type type;
    void *target;
    size_t size; /* OPTION_STRING: of the target */
    const char *help;
};

/* argv[0] is the command. specs end with a NULL name; positional arguments come in the order of the table,
 * those that may be left out last. */
bool options_parse(const struct option_spec *specs, int argc, char **argv, Error **errp);
void options_help(const char *command, const char *what, const struct option_spec *specs);
/* The most common frame of a command: prints help (returns 0) or the usage error (2); -1: go on. */
int options_begin(const char *what, const struct option_spec *specs, int argc, char **argv);

/* The same of a command that has --config FILE and --name: the file's lines (config_file.h) come first, what
 * argv says replaces them, or comes in addition where an option may be there several times. */
int options_begin_with_config(const char *what, const struct option_spec *specs, int argc, char **argv);

/* "key=value,key=value": takes the value of key out of text (which is changed); a key twice or unknown to
 * keys is an error. */
struct suboption {
    const char *key;
    char *target;
    size_t size;
};
bool suboptions_parse(const char *option, const char *text, const struct suboption *subs, Error **errp);
bool parse_on_off(const char *what, const char *text, bool *ret, Error **errp);
bool parse_size(const char *text, int64_t *ret, Error **errp);
bool parse_duration(const char *text, int64_t *ret_ns, Error **errp);

#endif
