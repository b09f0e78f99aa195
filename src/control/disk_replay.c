/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/disk_replay.h"
#include "base/log.h"
#include "block/journal_writer.h"
#include "block/raw.h"

#include <inttypes.h>
#include <string.h>

struct replay {
    Block *images[JOURNAL_DISKS_MAX]; /* one of them; the others' writes are passed over */
    uint32_t count;
};

static bool on_epoch(void *opaque, const struct epoch_writes *w, Error **errp)
{
    struct replay *r = opaque;

    return epoch_writes_apply(w, r->images, r->count, true, errp);
}

static bool find_disk(struct replay *r, const struct journal_identity *identity, Block *image,
                      const char *journal, Error **errp)
{
    r->count = identity->disk_count;
    for (uint32_t i = 0; i < r->count; i++) {
        if (strcmp(identity->disks[i].id, image->id))
            continue;
        if (identity->disks[i].size != image->size) {
            error_setg(errp, "journal %s is of a disk %s of %" PRIu64 " bytes, the image has %" PRIu64,
                       journal, image->id, identity->disks[i].size, image->size);
            return false;
        }
        r->images[i] = image;
        return true;
    }
    error_setg(errp, "journal %s knows no disk '%s'", journal, image->id);
    return false;
}

static bool replay(Journal *j, Block *image, const char *path, Error **errp)
{
    struct replay r = {.count = 0};
    uint64_t last;

    if (!find_disk(&r, journal_get_identity(j), image, path, errp) ||
        !journal_replay(j, on_epoch, &r, &last, errp) || !block_flush(image, errp))
        return false;
    log_info("disk %s: brought to epoch %" PRIu64 " by journal %s", image->id, last, path);
    return true;
}

bool disk_replay_from(Block *image, Block *file, const char *name, Error **errp)
{
    Journal *j = journal_open(file, errp);
    bool ok = j && replay(j, image, name, errp);

    if (!j)
        error_prepend(errp, "disk %s: its record says that a journal completes it: ", image->id);
    journal_close(j);
    return ok;
}

bool disk_replay(Block *image, const char *journal, Error **errp)
{
    Block *file;

    if (!journal[0])
        return true;
    file =
        block_raw_open(&(struct block_raw_options){.id = "journal", .path = journal, .readonly = true}, errp);
    if (file)
        return disk_replay_from(image, file, journal, errp);
    error_prepend(errp, "disk %s: its record says that a journal completes it: ", image->id);
    return false;
}
