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
 *     struct disk_record r;
 *     char path[DISK_RECORD_PATH_SIZE];
 *
 *     if (!disk_record_path("/srv/web.img", path, sizeof(path), errp) || !disk_record_load(path, &r, errp))
 *         return false;                          // damaged is not the same as none
 *     r.role = DISK_PRIMARY;
 *     return disk_record_store(path, &r, errp);
 *
 * The file is text: a first line "perdure-disk-record 1", then "name value" lines, then "crc32c XXXXXXXX"
 * over all before it; there is exactly one way to write a record. Written to a new file, synced, renamed over
 * the old one, the directory synced: a crash leaves the old record or the new one. A damaged record is
 * refused by name, never taken for none.
 *
 * docs/disk-format.md has every line. One writer at a time (who holds the image's lock); any thread.
 */
#ifndef BLOCK_DISK_RECORD_H
#define BLOCK_DISK_RECORD_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

enum disk_role { DISK_NO_RECORD, DISK_CLEAN, DISK_PRIMARY, DISK_STANDBY, DISK_SYNC_TARGET, DISK_SUPERSEDED };
/* As in the table; "none" for DISK_NO_RECORD. */
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

/* --- the file --- */

#define DISK_RECORD_PATH_SIZE 4200
#define DISK_RECORD_DEVICES   "/var/lib/perdure/disks"

/* Where image's record lies: beside the file itself, also if image is a symbolic link to it. For a block
 * device, beside which nothing lasts, in DISK_RECORD_DEVICES, by the device's name as it was given (its
 * directory's links are followed, its own is not: /dev/vg/web stays that, whatever number it has after the
 * next boot). The same device by another name has another record: name it always in the same way. */
bool disk_record_path(const char *image, char *buf, size_t size, Error **errp);
/* *ret_record has role DISK_NO_RECORD if there is no file. */
bool disk_record_load(const char *path, struct disk_record *ret_record, Error **errp);
/* r has a role. Durable when it returns. */
bool disk_record_store(const char *path, const struct disk_record *r, Error **errp);

/* --- its text, for who keeps records elsewhere --- */

#define DISK_RECORD_TEXT_SIZE 16384 /* enough for any record, with a NUL */

/* The length of the text, without its NUL. r has a role. */
size_t disk_record_format(const struct disk_record *r, char buf[DISK_RECORD_TEXT_SIZE]);
/* n bytes, from anywhere. where: for messages. */
bool disk_record_parse(const char *text, size_t n, const char *where, struct disk_record *ret_record,
                       Error **errp);

#endif
