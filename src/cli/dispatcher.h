/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dispatcher: `perdure standby --any`: one port of a host for all its machines. It reads for which machine a
 * connection is, and hands the connection to that machine's process; if there is none it starts one, provided
 * the configuration file has a section for that name. It proves nothing and holds no key: that is the
 * process's affair, which also lives on when the dispatcher ends. A machine that was started by `perdure run
 * --listen shared` is reached in the same way.
 *
 * What a stranger can do here: make processes start for names that the file has (at most 64 at a time), which
 * end when no primary has come for a while (standby --idle).
 */
#ifndef CLI_DISPATCHER_H
#define CLI_DISPATCHER_H

#include <perdure/error.h>

/* Until the process ends. False: it could not begin, or cannot go on. */
bool dispatcher_run(const char *listen, const char *config, Error **errp);

#endif
