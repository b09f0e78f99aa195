/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the control sockets are: $XDG_RUNTIME_DIR/perdure/ or /run/perdure/, one NAME.sock a VM process.
 */
#ifndef CONTROL_RUN_DIR_H
#define CONTROL_RUN_DIR_H

#include <perdure/error.h>
#include <stddef.h>

/* A name is 1 to 63 of A-Z a-z 0-9 . _ - and begins with a letter or digit: it becomes a file's name. */
bool run_dir_check_name(const char *name, Error **errp);
/* Path of the socket of name; makes the directory (0700) when create. */
bool run_dir_socket(const char *name, bool create, char *path, size_t size, Error **errp);
/* Where connections for name are handed over to its process by whoever listens for all (NAME.handover). */
bool run_dir_handover(const char *name, bool create, char *path, size_t size, Error **errp);
/* Calls fn for each name that has a socket. */
void run_dir_each(void (*fn)(void *opaque, const char *name), void *opaque);

#endif
