/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk replay: brings the image of a former standby to the newest whole epoch that its journal holds.
 */
#ifndef CONTROL_DISK_REPLAY_H
#define CONTROL_DISK_REPLAY_H

#include <perdure/error.h>

/* The image of disk id at path; journal: its path, empty: none is needed. The journal stays: it may serve the
 * machine's other disks. On the medium when it returns. */
bool disk_replay(const char *id, const char *path, const char *journal, Error **errp);

#endif
