/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/fault.h"
#include "block/journal_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static Journal *journal_new(Block *b, Error **errp)
{
    Journal *j = calloc(1, sizeof(*j));

    if (j)
        j->buffer = malloc(JOURNAL_BUFFER);
    if (j && j->buffer) {
        j->block = b;
        return j;
    }
    error_setg(errp, "%s: out of memory", b->id);
    free(j);
    block_close(b);
    return NULL;
}

void journal_close(Journal *j)
{
    if (!j)
        return;
    block_close(j->block);
    free(j->buffer);
    free(j);
}

const struct journal_identity *journal_get_identity(const Journal *j)
{
    return &j->header.identity;
}

/* --- create and open --- */

/* What is there already is no journal any more before the new one begins to be one. */
static bool write_beginning(Journal *j, Error **errp)
{
    const size_t size = 3 * JOURNAL_BLOCK;

    if (!block_zero(j->block, 0, size, false, errp) || !block_flush(j->block, errp))
        return false;
    memset(j->buffer, 0, size);
    journal_header_encode(&j->header, j->buffer);
    journal_mark_encode(&j->mark, j->header.id, j->buffer + JOURNAL_MARK_OFFSET(0));
    return block_write(j->block, 0, j->buffer, size, errp) && block_flush(j->block, errp);
}

Journal *journal_create(Block *b, const struct journal_identity *identity, Error **errp)
{
    Journal *j = journal_new(b, errp);

    if (!j)
        return NULL;
    j->writable = true;
    if (journal_header_init(&j->header, identity, b->size, b->id, errp) && write_beginning(j, errp))
        return j;
    journal_close(j);
    return NULL;
}

Journal *journal_open(Block *b, Error **errp)
{
    Journal *j = journal_new(b, errp);

    if (!j)
        return NULL;
    if (b->size < JOURNAL_BLOCK)
        error_setg(errp, "%s: this is no journal", b->id);
    else if (block_read(b, 0, j->buffer, JOURNAL_BLOCK, errp) &&
             journal_header_decode(j->buffer, b->size, b->id, &j->header, errp))
        return j;
    journal_close(j);
    return NULL;
}

/* --- one epoch --- */

struct output {
    Journal *j;
    uint64_t offset; /* of the buffer's first octet */
    size_t fill;
};

static bool output_flush(struct output *o, Error **errp)
{
    if (!block_write(o->j->block, o->offset, o->j->buffer, o->fill, errp))
        return false;
    o->offset += o->fill;
    o->fill = 0;
    return true;
}

static bool output_put(void *opaque, const void *data, size_t n, Error **errp)
{
    struct output *o = opaque;

    while (n) {
        size_t part = n < JOURNAL_BUFFER - o->fill ? n : JOURNAL_BUFFER - o->fill;

        memcpy(o->j->buffer + o->fill, data, part);
        o->fill += part;
        data = (const uint8_t *)data + part;
        n -= part;
        if (o->fill == JOURNAL_BUFFER && !output_flush(o, errp))
            return false;
    }
    return true;
}

/* Up to a multiple of JOURNAL_BLOCK. */
static bool output_end(struct output *o, Error **errp)
{
    size_t end = (o->fill + JOURNAL_BLOCK - 1) / JOURNAL_BLOCK * JOURNAL_BLOCK;

    memset(o->j->buffer + o->fill, 0, end - o->fill);
    o->fill = end;
    return !end || output_flush(o, errp);
}

static bool write_epoch(Journal *j, const struct epoch_writes *w, const struct journal_head *head,
                        Error **errp)
{
    struct output o = {
        .j = j, .offset = JOURNAL_SEGMENT_OFFSET(&j->header, j->current) + j->segments[j->current].used};
    uint8_t octets[JOURNAL_HEAD_SIZE];

    journal_head_encode(head, j->header.id, octets);
    return output_put(&o, octets, sizeof(octets), errp) && journal_body_encode(w, output_put, &o, errp) &&
           output_end(&o, errp);
}

/* --- segments --- */

/* Writes the mark; one flush makes it durable, and all of the segment that is full. Only then may the other
 * one be overwritten: a crash finds that segment's epochs, or a mark that says they are not needed. */
static bool begin_segment(Journal *j, Error **errp)
{
    struct journal_mark mark = {
        .turn = j->mark.turn + 1, .number = j->released_number, .epoch = j->released_epoch};

    memset(j->buffer, 0, JOURNAL_BLOCK);
    journal_mark_encode(&mark, j->header.id, j->buffer);
    if (!block_write(j->block, JOURNAL_MARK_OFFSET(mark.turn), j->buffer, JOURNAL_BLOCK, errp))
        return false;
    if (!fault_point("journal.no_sync_at_mark") && !block_flush(j->block, errp))
        return false;
    j->mark = mark;
    j->durable = j->number;
    j->current = !j->current;
    j->segments[j->current] = (struct journal_segment){0};
    return true;
}

static bool may_begin_segment(const Journal *j)
{
    return j->segments[!j->current].number <= j->released_number ||
           fault_point("journal.reuse_before_release");
}

/* Room for size bytes in the current segment. */
static bool make_room(Journal *j, uint64_t size, bool *ret_full, Error **errp)
{
    if (size <= j->header.segment_size - j->segments[j->current].used)
        return true;
    *ret_full = !may_begin_segment(j);
    return !*ret_full && begin_segment(j, errp);
}

static bool check_epoch(const Journal *j, const struct epoch_writes *w, uint64_t size, Error **errp)
{
    if (w->epoch <= j->epoch) {
        error_setg(errp, "epoch %llu comes after %llu", (unsigned long long)w->epoch,
                   (unsigned long long)j->epoch);
        return false;
    }
    for (const struct disk_write *d = w->first; d; d = d->next)
        if (!journal_write_check(&j->header.identity, d, errp))
            return false;
    if (size <= j->header.segment_size)
        return true;
    error_setg(errp, "epoch %llu takes %llu bytes and a segment has %llu; a larger journal is needed",
               (unsigned long long)w->epoch, (unsigned long long)size,
               (unsigned long long)j->header.segment_size);
    return false;
}

bool journal_append(Journal *j, const struct epoch_writes *w, bool *ret_full, Error **errp)
{
    struct journal_head head = {.number = j->number + 1,
                                .epoch = w->epoch,
                                .body_size = journal_body_size(w),
                                .count = w->count,
                                .body_crc = journal_body_crc(w)};
    uint64_t size = journal_epoch_size(head.body_size);
    struct journal_segment *s;

    assert(j->writable);
    *ret_full = false;
    if (!check_epoch(j, w, size, errp)) {
        error_prepend(errp, "%s: ", j->block->id);
        return false;
    }
    if (!make_room(j, size, ret_full, errp))
        return false;
    head.durable = j->durable;
    if (!write_epoch(j, w, &head, errp))
        return false;
    s = &j->segments[j->current];
    *s = (struct journal_segment){.used = s->used + size, .number = head.number, .epoch = w->epoch};
    j->number = head.number;
    j->epoch = w->epoch;
    return true;
}

bool journal_sync(Journal *j, Error **errp)
{
    if (j->durable == j->number)
        return true;
    if (!block_flush(j->block, errp))
        return false;
    j->durable = j->number;
    return true;
}

/* By whole segments: an epoch too many that is replayed does no harm. */
void journal_release(Journal *j, uint64_t epoch)
{
    for (int i = 0; i < 2; i++) {
        const struct journal_segment *s = &j->segments[i];

        if (s->epoch <= epoch && s->number > j->released_number) {
            j->released_number = s->number;
            j->released_epoch = s->epoch;
        }
    }
}
