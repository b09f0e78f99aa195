/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two notebooks that replicate: a program without a machine that uses the replication registry.
 *
 * A notebook on the secondary side keeps what it receives apart until the checkpoint that it belongs to is
 * complete, and shows only what a checkpoint has made durable. At a failover what came after the last
 * checkpoint is dropped.
 *
 *     cc replication.c $(pkg-config --cflags --libs libperdure) && ./a.out
 *
 * It ends with 0 if all went as it says.
 */
#include <perdure/replication.h>

#include <stdio.h>
#include <string.h>

struct notebook {
    const char *name;
    ReplicationState *rs;
    bool full;         /* this one cannot start */
    char shown[64];    /* what a reader sees */
    char received[64]; /* of the checkpoint that is not complete yet */
};

static bool notebook_start(ReplicationState *rs, enum ReplicationMode mode, Error **errp)
{
    struct notebook *n = rs->opaque;

    if (n->full) {
        error_setg(errp, "notebook %s: no page left; take a new one", n->name);
        return false;
    }
    printf("%s: starts as %s\n", n->name, mode == REPLICATION_MODE_PRIMARY ? "primary" : "secondary");
    n->received[0] = '\0';
    return true;
}

static bool notebook_checkpoint(ReplicationState *rs, Error **errp)
{
    struct notebook *n = rs->opaque;
    size_t shown = strlen(n->shown), received = strlen(n->received);

    if (shown + received >= sizeof(n->shown)) {
        error_setg(errp, "notebook %s: the checkpoint does not fit", n->name);
        return false;
    }
    memcpy(n->shown + shown, n->received, received + 1);
    n->received[0] = '\0';
    return true;
}

static bool notebook_stop(ReplicationState *rs, bool failover, Error **errp)
{
    struct notebook *n = rs->opaque;

    (void)errp;
    printf("%s: %s with \"%s\", drops \"%s\"\n", n->name, failover ? "takes over" : "stops", n->shown,
           n->received);
    n->received[0] = '\0';
    return true;
}

/* No get_error: it has nothing that could fail in the background. */
static ReplicationOps notebook_ops = {
    .start = notebook_start,
    .checkpoint = notebook_checkpoint,
    .stop = notebook_stop,
};

static void notebook_open(struct notebook *n)
{
    n->rs = replication_new(n, &notebook_ops);
}

static void notebook_close(struct notebook *n)
{
    replication_remove(n->rs);
}

static void receive(struct notebook *n, const char *text)
{
    strncat(n->received, text, sizeof(n->received) - strlen(n->received) - 1);
}

int main(void)
{
    struct notebook ada = {.name = "ada"}, bob = {.name = "bob", .full = true};
    Error *err = NULL;
    int status = 1;

    notebook_open(&ada);
    notebook_open(&bob);

    if (replication_start_all(REPLICATION_MODE_SECONDARY, &err))
        goto out; /* bob must fail, and ada be stopped again */
    printf("not started: %s\n", error_get_pretty(err));
    error_free(err);
    err = NULL;

    bob.full = false;
    if (!replication_start_all(REPLICATION_MODE_SECONDARY, &err))
        goto out;
    receive(&ada, "one ");
    receive(&bob, "eins ");
    if (!replication_do_checkpoint_all(&err) || !replication_get_error_all(&err))
        goto out;
    receive(&ada, "two "); /* never completed */
    if (!replication_stop_all(true, &err))
        goto out;
    status = strcmp(ada.shown, "one ") || strcmp(bob.shown, "eins ");
out:
    if (err)
        fprintf(stderr, "%s\n", error_get_pretty(err));
    error_free(err);
    notebook_close(&bob);
    notebook_close(&ada);
    return status;
}
