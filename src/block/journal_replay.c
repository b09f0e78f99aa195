/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replay: from the newest mark on, the epoch with the next number, wherever it is, until there is none. Then
 * a look over both segments for a head that knows better: it says that something was durable which was not
 * found. All that once without giving anything away, so that a damaged journal does not touch the disks,
 * which may hold more than it does.
 */
#include "base/crc32c.h"
#include "base/fault.h"
#include "block/journal_private.h"

#include <stdlib.h>

struct replay {
    Journal *j;
    bool (*fn)(void *opaque, const struct epoch_writes *w, Error **errp); /* NULL: look only */
    void *opaque;
    uint64_t next;        /* the number that is looked for */
    uint64_t last_epoch;  /* the one before it */
    uint64_t position[2]; /* in each segment */
    bool found;           /* something, in this round */
};

static bool read_mark(Journal *j, struct journal_mark *ret, Error **errp)
{
    bool found = false;

    for (uint64_t i = 0; i < 2; i++) {
        struct journal_mark m;

        if (!block_read(j->block, JOURNAL_MARK_OFFSET(i), j->buffer, JOURNAL_BLOCK, errp))
            return false;
        if (!journal_mark_decode(j->buffer, j->header.id, &m) || (found && m.turn < ret->turn))
            continue;
        *ret = m;
        found = true;
    }
    if (!found)
        error_setg(errp, "%s: both marks of the journal are damaged", j->block->id);
    return found;
}

/* The epoch at the segment's position; *ret_whole false: there is none. Of its body only the size is known to
 * be possible. */
static bool read_head(struct replay *r, unsigned segment, struct journal_head *ret, bool *ret_whole,
                      Error **errp)
{
    Journal *j = r->j;
    uint64_t left = j->header.segment_size - r->position[segment];
    uint64_t offset = JOURNAL_SEGMENT_OFFSET(&j->header, segment) + r->position[segment];

    *ret_whole = false;
    if (!left)
        return true;
    if (!block_read(j->block, offset, j->buffer, JOURNAL_HEAD_SIZE, errp))
        return false;
    *ret_whole =
        journal_head_decode(j->buffer, j->header.id, ret) && journal_epoch_size(ret->body_size) <= left;
    return true;
}

static bool deliver(struct replay *r, const struct journal_head *head, const uint8_t *body, Error **errp)
{
    struct epoch_writes *w = journal_body_decode(&r->j->header.identity, head, body, errp);
    bool ok;

    if (!w || head->epoch <= r->last_epoch) {
        if (w)
            error_setg(errp, "it comes after epoch %llu", (unsigned long long)r->last_epoch);
        error_prepend(errp, "%s: epoch %llu is not what a journal may hold: ", r->j->block->id,
                      (unsigned long long)head->epoch);
        epoch_writes_free(w);
        return false;
    }
    ok = !r->fn || r->fn(r->opaque, w, errp);
    epoch_writes_free(w);
    return ok;
}

/* *ret_whole: it was, and has been delivered. */
static bool take_body(struct replay *r, unsigned segment, const struct journal_head *head, bool *ret_whole,
                      Error **errp)
{
    uint64_t offset =
        JOURNAL_SEGMENT_OFFSET(&r->j->header, segment) + r->position[segment] + JOURNAL_HEAD_SIZE;
    uint8_t *body = malloc(head->body_size ? head->body_size : 1);
    bool ok = false;

    *ret_whole = false;
    if (!body)
        error_setg(errp, "%s: out of memory for an epoch of %llu bytes", r->j->block->id,
                   (unsigned long long)head->body_size);
    else if (block_read(r->j->block, offset, body, head->body_size, errp)) {
        *ret_whole =
            crc32c(0, body, head->body_size) == head->body_crc || fault_point("journal.accept_torn_epoch");
        ok = !*ret_whole || deliver(r, head, body, errp);
    }
    free(body);
    return ok;
}

/* On from the segment's position, over what is not needed any more and what is next. */
static bool walk(struct replay *r, unsigned segment, Error **errp)
{
    struct journal_head head;
    bool whole;

    for (;;) {
        if (!read_head(r, segment, &head, &whole, errp))
            return false;
        if (!whole || head.number > r->next)
            return true;
        if (head.number == r->next) {
            if (!take_body(r, segment, &head, &whole, errp))
                return false;
            if (!whole)
                return true;
            r->next++;
            r->last_epoch = head.epoch;
            r->found = true;
        }
        r->position[segment] += journal_epoch_size(head.body_size);
    }
}

/* n bytes of the buffer. */
static bool knows_better(const Journal *j, size_t n, uint64_t next)
{
    struct journal_head head;

    for (size_t at = 0; at < n; at += JOURNAL_BLOCK)
        if (journal_head_decode(j->buffer + at, j->header.id, &head) && head.durable >= next)
            return true;
    return false;
}

static bool check_end(Journal *j, uint64_t next, uint64_t last_epoch, Error **errp)
{
    uint64_t offset = JOURNAL_SEGMENT_OFFSET(&j->header, 0), end = JOURNAL_SEGMENT_OFFSET(&j->header, 2);

    while (offset < end) {
        size_t n = end - offset < JOURNAL_BUFFER ? end - offset : JOURNAL_BUFFER;

        if (!block_read(j->block, offset, j->buffer, n, errp))
            return false;
        if (knows_better(j, n, next)) {
            error_setg(errp,
                       "%s: the journal is damaged: what follows epoch %llu was durable and is not whole",
                       j->block->id, (unsigned long long)last_epoch);
            return false;
        }
        offset += n;
    }
    return true;
}

/* Every epoch from the mark on. */
static bool walk_all(struct replay *r, const struct journal_mark *mark, Error **errp)
{
    r->next = mark->number + 1;
    r->last_epoch = mark->epoch;
    r->position[0] = r->position[1] = 0;
    do {
        r->found = false;
        if (!walk(r, 0, errp) || !walk(r, 1, errp))
            return false;
    } while (r->found);
    return true;
}

bool journal_replay(Journal *j, bool (*fn)(void *opaque, const struct epoch_writes *w, Error **errp),
                    void *opaque, uint64_t *ret_last, Error **errp)
{
    struct replay look = {.j = j}, give = {.j = j, .fn = fn, .opaque = opaque};
    struct journal_mark mark = {0};

    if (!read_mark(j, &mark, errp) || !walk_all(&look, &mark, errp) ||
        !check_end(j, look.next, look.last_epoch, errp) || !walk_all(&give, &mark, errp))
        return false;
    *ret_last = give.last_epoch;
    return true;
}
