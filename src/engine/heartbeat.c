/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/heartbeat.h"
#include "engine/link.h"
#include "engine/wire.h"
#include "stream/vmstream.h"

#define BEATS 5 /* a timeout */

/* false: the link is down. */
static bool rest(struct link *l)
{
    int64_t until = clock_now() + l->timeout / BEATS;
    bool down;

    task_lock(&l->lock);
    while (!l->down && task_wait_until(&l->changed, &l->lock, until))
        ;
    down = l->down;
    task_unlock(&l->lock);
    return !down;
}

static bool expect(VMStream *in, enum wire_record want, uint64_t *id, Error **errp)
{
    uint16_t type;

    if (!wire_next(in, &type, id, errp))
        return false;
    if (type != want)
        wire_unexpected(in, type, "waiting for a heartbeat");
    return wire_done(in, errp);
}

static void ping(struct link *l, VMStream *in, VMStream *out, Error **errp)
{
    uint64_t id;

    for (uint64_t n = 1; rest(l); n++)
        if (!wire_send(out, WIRE_PING, n, errp) || !expect(in, WIRE_PONG, &id, errp))
            return;
}

static void pong(VMStream *in, VMStream *out, Error **errp)
{
    uint64_t id;

    while (expect(in, WIRE_PING, &id, errp) && wire_send(out, WIRE_PONG, id, errp))
        ;
}

void heartbeat_run(void *arg)
{
    struct link *l = arg;
    VMStream *in = vmstream_new_reader(l->beat), *out = vmstream_new_writer(l->beat);
    Error *err = NULL;

    if (!in || !out)
        error_setg(&err, "out of memory");
    else if (l->pings)
        ping(l, in, out, &err);
    else
        pong(in, out, &err);
    link_down(l, err ? error_get_pretty(err) : "the connection was closed here");
    error_free(err);
    perdure_stream_close(in);
    perdure_stream_close(out);
}
