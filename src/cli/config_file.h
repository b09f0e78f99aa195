/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Configuration files: options of a command, one a line, without the dashes (docs/man/perdure.conf.5).
 *
 *     # of every machine
 *     psk /etc/perdure/pair.key
 *
 *     [db-*]
 *     disk id=root,path=/srv/%n.img
 *     net id=net0,bridge=br0
 *
 * Lines before the first section are everybody's. Of the sections the first whose pattern (fnmatch) matches
 * the machine's name counts. %n in a value is that name.
 */
#ifndef CLI_CONFIG_FILE_H
#define CLI_CONFIG_FILE_H

#include <perdure/error.h>

/* value NULL: the line had none. Both are only valid during the call. */
typedef bool config_file_line(void *opaque, const char *key, const char *value, Error **errp);

/* Calls fn for each line that concerns name; stops at the first error, which names file and line.
 * *ret_section (NULL: nobody cares): a section matched. */
bool config_file_read(const char *path, const char *name, config_file_line *fn, void *opaque,
                      bool *ret_section, Error **errp);

#endif
