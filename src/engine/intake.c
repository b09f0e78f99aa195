/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An epoch on the backup: received whole into memory, checked in every way that does not touch the guest,
 * acked, applied. The first one is also loaded and read back before its ack.
 */
#include "engine/backup.h"
#include "engine/state.h"
#include "base/crc32c.h"
#include "base/fault.h"
#include "guest/page_codec.h"
#include <perdure/replication.h>
#include <perdure/replication_feed.h>
#include <perdure/savevm.h>

#include <inttypes.h>

#define SLACK       (64u << 20) /* of an epoch's size beyond RAM: devices, heads of pages */
#define MESSAGE_MAX (2u << 20)  /* of a feed, with its frames */

bool intake_open(struct backup *b, Error **errp)
{
    b->pages = perdure_stream_open_memory(0);
    b->devices = perdure_stream_open_memory(0);
    b->last_devices = perdure_stream_open_memory(0);
    b->message = perdure_stream_open_memory(0);
    b->reply = perdure_stream_open_memory(0);
    if (b->pages && b->devices && b->last_devices && b->message && b->reply)
        return true;
    error_setg(errp, "out of memory");
    return false;
}

void intake_close(struct backup *b)
{
    perdure_stream_close(b->pages);
    perdure_stream_close(b->devices);
    perdure_stream_close(b->last_devices);
    perdure_stream_close(b->message);
    perdure_stream_close(b->reply);
}

static size_t memory_size(const VMStream *f)
{
    size_t size;

    perdure_stream_memory(f, &size);
    return size;
}

static GuestMemory *ram(struct backup *b)
{
    return b->e->guest->memory;
}

/* --- coming in --- */

bool intake_sync_pages(struct backup *b, Error **errp)
{
    if (!b->replicating || b->standby) {
        error_setg(errp, "the primary sent pages out of turn");
        return false;
    }
    page_decode_all(b->s->in, ram(b));
    return wire_done(b->s->in, errp);
}

/* The epoch's checksum goes on over what f holds from there. */
static void count_crc(struct backup *b, const VMStream *f, size_t from)
{
    size_t size;
    const uint8_t *frames = perdure_stream_memory(f, &size);

    b->crc = crc32c(b->crc, frames + from, size - from);
}

/* Appends the record to one of the epoch's streams. */
static bool append(struct backup *b, VMStream *to, VMStream *other, Error **errp)
{
    size_t limit = (size_t)(ram(b)->size + ram(b)->size / 8 + SLACK) - memory_size(other),
           before = memory_size(to);

    vmstream_copy_record(b->s->in, to, limit);
    if (perdure_stream_error(b->s->in, errp) || perdure_stream_error(to, errp))
        return false;
    count_crc(b, to, before);
    successor_pass(b, to, before);
    return true;
}

static bool decode_pages(VMStream *f, GuestMemory *m)
{
    uint16_t type;
    uint64_t id;

    while (perdure_stream_next(f, &type, &id) && page_decode_all(f, m) >= 0)
        perdure_stream_done(f);
    return !perdure_stream_error(f, NULL);
}

/* A planted bug: pages go to RAM as they come. */
static void apply_too_early(struct backup *b)
{
    VMStream *f = vmstream_reopen_memory(b->pages);

    if (f)
        decode_pages(f, ram(b));
    perdure_stream_close(f);
}

bool intake_pages(struct backup *b, uint64_t epoch, Error **errp)
{
    if (!b->replicating || epoch != b->epoch + 1) {
        error_setg(errp, "pages of epoch %" PRIu64 " came after epoch %" PRIu64, epoch, b->epoch);
        return false;
    }
    if (!append(b, b->pages, b->devices, errp))
        return false;
    if (fault_point("engine.apply_half_epoch"))
        apply_too_early(b);
    return true;
}

bool intake_device(struct backup *b, Error **errp)
{
    if (!b->replicating) {
        error_setg(errp, "the primary sent device state out of turn");
        return false;
    }
    return append(b, b->devices, b->pages, errp);
}

static bool send_reply(struct backup *b, Error **errp)
{
    if (!memory_size(b->reply))
        return true;
    perdure_stream_append(b->s->out, b->reply);
    return perdure_stream_flush(b->s->out, errp);
}

/* A message counts with its epoch's checkpoint; until then its component keeps it. */
bool intake_feed(struct backup *b, uint64_t epoch, Error **errp)
{
    VMStream *f;
    uint16_t type;
    uint64_t id;
    bool ok = false;

    if (!b->replicating || b->loaded || epoch != b->epoch + 1) {
        error_setg(errp, "a message of epoch %" PRIu64 " came after epoch %" PRIu64, epoch, b->epoch);
        return false;
    }
    perdure_stream_rewind(b->message);
    perdure_stream_rewind(b->reply);
    vmstream_copy_record(b->s->in, b->message, MESSAGE_MAX);
    if (perdure_stream_error(b->s->in, errp) || perdure_stream_error(b->message, errp))
        return false;
    count_crc(b, b->message, 0);
    successor_pass(b, b->message, 0);
    f = vmstream_reopen_memory(b->message);
    if (!f)
        error_setg(errp, "out of memory");
    else if (!perdure_stream_next(f, &type, &id))
        perdure_stream_error(f, errp);
    else
        ok = replication_feeds_receive(f, b->reply, WIRE_FEED_REPLY, errp) && send_reply(b, errp);
    perdure_stream_close(f);
    return ok;
}

/* --- checks --- */

/* A successor's first one is whatever its predecessor holds. */
static bool is_due(const struct backup *b, const struct wire_end *end)
{
    if (backup_is_successor(b) && !b->epoch)
        return end->epoch > 0 && end->epoch < UINT64_MAX;
    return end->epoch == b->epoch + 1;
}

static bool check_end(struct backup *b, const struct wire_end *end, Error **errp)
{
    if (!b->replicating || end->generation != b->s->hello.generation || !is_due(b, end))
        error_setg(errp,
                   "epoch %" PRIu64 " of generation %" PRIu64 " came after epoch %" PRIu64 " of %" PRIu64,
                   end->epoch, end->generation, b->epoch, b->s->hello.generation);
    else if (!(end->flags & WIRE_END_FIRST) != (b->epoch > 0))
        error_setg(errp, "epoch %" PRIu64 " makes a wrong claim to be the first", end->epoch);
    else if (end->crc != b->crc)
        error_setg(errp, "epoch %" PRIu64 " has checksum %08x, the primary computed %08x", end->epoch, b->crc,
                   end->crc);
    else
        return true;
    return false;
}

static bool check_pages(struct backup *b, const struct wire_end *end, Error **errp)
{
    VMStream *f = vmstream_reopen_memory(b->pages);
    uint64_t count = 0, id;
    uint16_t type;
    bool ok = false;

    if (!f) {
        error_setg(errp, "out of memory");
        return false;
    }
    while (perdure_stream_next(f, &type, &id)) {
        int64_t n = page_check_all(f, ram(b)->page_count);

        if (n < 0)
            break;
        count += (uint64_t)n;
        perdure_stream_done(f);
    }
    if (perdure_stream_error(f, errp))
        error_prepend(errp, "epoch %" PRIu64 ": ", end->epoch);
    else if (count != end->pages)
        error_setg(errp, "epoch %" PRIu64 " has %" PRIu64 " pages, the primary counted %" PRIu64, end->epoch,
                   count, end->pages);
    else
        ok = true;
    perdure_stream_close(f);
    return ok;
}

static bool with_devices(const VMStream *devices, bool (*fn)(VMStream *f, Error **errp), Error **errp)
{
    VMStream *f = vmstream_reopen_memory(devices);
    bool ok;

    if (!f) {
        error_setg(errp, "out of memory");
        return false;
    }
    ok = fn(f, errp);
    perdure_stream_close(f);
    return ok;
}

static bool has_hash(struct backup *b, const struct wire_end *end)
{
    bool known = b->s->swapped && end->epoch == 1 && !end->pages;

    return (known ? b->hash : guest_memory_hash(ram(b))) == end->hash;
}

static bool check_hash(struct backup *b, const struct wire_end *end, Error **errp)
{
    if (!(end->flags & WIRE_END_HASHED) || has_hash(b, end))
        return true;
    error_setg(errp, "verification failed: after epoch %" PRIu64 " memory differs from the primary's",
               end->epoch);
    return false;
}

/* --- taking effect --- */

static bool apply(struct backup *b, Error **errp)
{
    VMStream *f = vmstream_reopen_memory(b->pages), *devices = b->devices;
    bool ok;

    successor_lock(b);
    ok = f && decode_pages(f, ram(b));
    successor_unlock(b, b->pages);
    if (!ok)
        error_setg(errp, "epoch %" PRIu64 " was checked and could not be applied", b->epoch);
    perdure_stream_close(f);
    b->devices = b->last_devices;
    b->last_devices = devices;
    perdure_stream_rewind(b->devices);
    perdure_stream_rewind(b->pages);
    b->crc = 0;
    return ok;
}

/* Before its ack: the state goes into the real machine, and comes out of it as it went in. */
static bool prove_first(struct backup *b, const struct wire_end *end, Error **errp)
{
    return apply(b, errp) && check_hash(b, end, errp) &&
           with_devices(b->last_devices, perdure_loadvm_devices, errp) &&
           compare_devices(b->e->guest, b->last_devices, errp);
}

static bool send_ack(struct backup *b, const struct wire_end *end, uint32_t crc, Error **errp)
{
    struct wire_ack ack = {.generation = end->generation, .epoch = end->epoch, .crc = crc};

    if (engine_wishes(b->e).handover)
        ack.flags |= WIRE_ACK_HANDOVER;
    return successor_tell(b, errp) && wire_send_ack(b->s->out, &ack, errp);
}

static void count(struct backup *b, const struct wire_end *end)
{
    Engine *e = b->e;

    b->s->last_ack = clock_now();
    task_lock(&e->lock);
    e->epoch = end->epoch;
    e->figures.verified += (end->flags & WIRE_END_HASHED) != 0;
    task_unlock(&e->lock);
}

/* From here on the epoch counts: the ack may fail, the application may not. */
static bool accept_first(struct backup *b, const struct wire_end *end, Error **errp)
{
    if (!prove_first(b, end, errp)) {
        b->end = SESSION_FAILED; /* as in accept_next(): after a swap this side could claim */
        return false;
    }
    if (!session_mark_disks(b->s, GUEST_DISKS_STANDBY, errp))
        return false;
    if (backup_is_successor(b))
        succeed_await(b); /* and does not take over before that */
    else if (!b->standby)
        backup_become_standby(b, "the first epoch is loaded and compared");
    count(b, end);
    return send_ack(b, end, end->crc, errp);
}

static bool accept_next(struct backup *b, const struct wire_end *end, Error **errp)
{
    uint32_t crc = b->crc;
    Error *ack_err = NULL;
    bool acked, ok;

    successor_pass_end(b, end);
    acked = send_ack(b, end, crc, &ack_err);
    count(b, end);
    ok = apply(b, errp) && check_hash(b, end, errp);
    if (!ok)
        b->end = SESSION_FAILED; /* nobody runs what is known to be wrong, also if the link is gone by now */
    if (ok && !acked) {
        error_propagate(errp, ack_err);
        return false;
    }
    error_free(ack_err);
    return ok;
}

bool intake_end(struct backup *b, uint64_t epoch, Error **errp)
{
    struct wire_end end = {.epoch = epoch};

    if (!wire_get_end(b->s->in, &end, errp) || !check_end(b, &end, errp) || !check_pages(b, &end, errp) ||
        !with_devices(b->devices, perdure_loadvm_devices_check, errp) || !replication_get_error_all(errp) ||
        !replication_do_checkpoint_all(errp))
        return false;
    b->epoch = epoch;
    b->last_was_swap = (end.flags & WIRE_END_SWAP) != 0;
    b->last_request = end.request;
    if (!(end.flags & WIRE_END_FIRST ? accept_first(b, &end, errp) : accept_next(b, &end, errp)))
        return false;
    successor_step(b);
    return true;
}
