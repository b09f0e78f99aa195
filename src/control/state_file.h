/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * State files: the whole of a stopped machine in a file (--save-on-exit, --restore), in the stream's format
 * (docs/wire-format.md).
 */
#ifndef CONTROL_STATE_FILE_H
#define CONTROL_STATE_FILE_H

#include "machine/machine.h"

/* The file appears under its name only when it is whole and on disk. */
bool state_file_save(Machine *m, const char *path, Error **errp);
/* host: what each id of the file is on this host. */
Machine *state_file_restore(const char *path, const struct machine_config *host, Error **errp);

#endif
