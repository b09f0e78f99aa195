/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The journal of a backup's disks: made anew for each protection. One that lies there already is removed only
 * if this process knows that nothing in it is needed.
 */
#include "block/disk_target.h"
#include "block/raw.h"
#include "block/replication_group_private.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static void describe(const ReplicationGroup *g, struct journal_identity *ret)
{
    *ret = (struct journal_identity){.generation = g->generation, .disk_count = g->count};
    memcpy(ret->pair, g->pair, sizeof(ret->pair));
    for (uint32_t i = 0; i < g->count; i++) {
        memcpy(ret->disks[i].id, g->images[i]->id, sizeof(ret->disks[i].id));
        ret->disks[i].size = g->images[i]->size;
    }
}

bool disk_target_clear_journal(ReplicationGroup *g, Error **errp)
{
    if (g->options.journal[0] || g->options.open_journal)
        return replication_group_remove_journal(g, errp);
    error_setg(errp, "disks: no journal was given");
    return false;
}

static Block *make_file(ReplicationGroup *g, Error **errp)
{
    const char *path = g->options.journal;

    if (!block_raw_create(path, g->options.journal_size, errp))
        return NULL;
    return block_raw_open(&(struct block_raw_options){.id = "journal", .path = path}, errp);
}

Journal *disk_target_make_journal(ReplicationGroup *g, Error **errp)
{
    struct journal_identity identity;
    Block *b = g->options.open_journal ? g->options.open_journal(g->options.open_journal_opaque, errp)
                                       : make_file(g, errp);

    if (!b)
        return NULL;
    describe(g, &identity);
    g->target.journal_settled = true; /* there is nothing in it yet */
    return journal_create(b, &identity, errp);
}

bool replication_group_remove_journal(ReplicationGroup *g, Error **errp)
{
    const char *path = g->options.journal;

    if (!path[0] || access(path, F_OK))
        return true;
    if (!g->target.journal_settled) {
        error_setg(errp, "disks: the journal %s may hold epochs that the disks lack: replay it, or remove it",
                   path);
        return false;
    }
    if (!unlink(path))
        return true;
    error_setg_errno(errp, errno, "disks: cannot remove the journal %s", path);
    return false;
}
