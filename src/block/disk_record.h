/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disk record: what a disk is to its pair, durable, in a file beside the image: "web.img.perdure". It is what
 * stops a second copy when power comes back on a dead host and its service manager starts the guest again.
 *
 *     | role        | the image is                                   | `run`           | `standby`            |
 *     |-------------|------------------------------------------------|-----------------|----------------------|
 *     | (no record) | a disk that was never replicated               | yes             | yes                  |
 *     | clean       | the newest copy: by agreement, or the arbiter  | yes             | refused              |
 *     | primary     | the newest copy unless the backup took over    | claims first    | after a denied claim |
 *     | standby     | a whole epoch; its journal may hold more       | refused         | yes                  |
 *     | sync-target | no disk: half of one                           | refused         | yes                  |
 *     | superseded  | older than another copy                        | refused         | yes                  |
 *
 * `--force-stale` is the only way round. (A person who starts a standby on a disk wants it overwritten; only
 * a disk that may be the one newest copy is refused.)
 *
 * The file is text: a first line "perdure-disk-record 1", then "name value" lines, then "crc32c XXXXXXXX"
 * over all before it. Written to a new file, synced, renamed over the old one, the directory synced. A
 * damaged record is refused by name, never taken for none. For a block device, beside which nothing can lie,
 * the record is /var/lib/perdure/disks/<the path, escaped>.perdure; the caller chooses by disk_record_path().
 *
 * docs/disk-format.md has every line.
 */
#ifndef BLOCK_DISK_RECORD_H
#define BLOCK_DISK_RECORD_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

enum disk_role { DISK_NO_RECORD, DISK_CLEAN, DISK_PRIMARY, DISK_STANDBY, DISK_SYNC_TARGET, DISK_SUPERSEDED };
const char *disk_role_name(enum disk_role r);

struct disk_record {
    enum disk_role role;
    char vm[64], disk[32]; /* names */
    char pair[40];
    uint64_t generation;
    uint64_t epoch;     /* when the role was taken; the journal knows better */
    char arbiter[1100]; /* as `protect` gave it */
    char peer[256];
    char journal[1100]; /* standby: its path; empty: none */
};

/* Where image's record lies. */
bool disk_record_path(const char *image, char *buf, size_t size, Error **errp);
/* *ret_record has role DISK_NO_RECORD if there is no file. */
bool disk_record_load(const char *path, struct disk_record *ret_record, Error **errp);
/* Durable when it returns. */
bool disk_record_store(const char *path, const struct disk_record *r, Error **errp);

#endif
