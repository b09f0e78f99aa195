/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "disk_recorder.h"

#include <stdio.h>

#include "base/task.h"

#define SECTOR    512u
#define DISKS_MAX 8

struct operation {
    unsigned disk;
    enum block_op op;
    uint64_t offset, size;
    uint8_t *data; /* WRITE */
    struct block_request *pending;
    size_t submitted, completed; /* the moments just after; completed 0: not yet */
    int error;
};

struct event {
    enum { SUBMITTED, COMPLETED, MARK } what;
    size_t operation;
    uint64_t promised; /* the last mark, this event's own included */
};

struct recorded_disk {
    Block block;
    DiskRecorder *rec;
    unsigned number;
};

struct DiskRecorder {
    unsigned disk_count;
    struct {
        char id[32];
        uint64_t size;
        uint8_t *initial;
    } disks[DISKS_MAX];

    struct task_mutex lock; /* protects what follows */
    struct operation *operations;
    size_t operation_count;
    struct event *events;
    size_t event_count;
    char text[160];
};

/* --- recording; lock held --- */

static void *grow(void *array, size_t count, size_t each)
{
    /* Doubled at each power of two. */
    if (count & (count - 1) || (count && count < 16))
        return array;
    array = realloc(array, (count ? 2 * count : 16) * each);
    assert(array);
    return array;
}

static void add_event(DiskRecorder *rec, int what, size_t operation, uint64_t promised)
{
    rec->events = grow(rec->events, rec->event_count, sizeof(rec->events[0]));
    if (what != MARK && rec->event_count)
        promised = rec->events[rec->event_count - 1].promised;
    rec->events[rec->event_count++] =
        (struct event){.what = what, .operation = operation, .promised = promised};
}

static void add_operation(DiskRecorder *rec, unsigned disk, struct block_request *r)
{
    struct operation *o;

    rec->operations = grow(rec->operations, rec->operation_count, sizeof(rec->operations[0]));
    o = &rec->operations[rec->operation_count];
    *o = (struct operation){.disk = disk,
                            .op = r->op,
                            .offset = r->offset,
                            .size = r->op == BLOCK_FLUSH ? 0 : r->size,
                            .pending = r};
    if (r->op == BLOCK_WRITE) {
        o->data = malloc(r->size);
        assert(o->data);
        memcpy(o->data, r->data, r->size);
    }
    add_event(rec, SUBMITTED, rec->operation_count++, 0);
    o->submitted = rec->event_count;
}

static void end_operation(DiskRecorder *rec, const struct block_request *r)
{
    size_t i = rec->operation_count;

    while (rec->operations[--i].pending != r)
        assert(i);
    rec->operations[i].pending = NULL;
    rec->operations[i].error = r->error;
    add_event(rec, COMPLETED, i, 0);
    rec->operations[i].completed = rec->event_count;
}

/* --- the node --- */

static void recorded(Block *b, struct block_request *r)
{
    DiskRecorder *rec = ((struct recorded_disk *)b)->rec;

    task_lock(&rec->lock);
    end_operation(rec, r);
    task_unlock(&rec->lock);
    block_complete(r, r->error);
}

static void record(Block *b, struct block_request *r)
{
    struct recorded_disk *d = (struct recorded_disk *)b;

    if (r->op == BLOCK_READ) {
        block_pass(b, r, NULL);
        return;
    }
    task_lock(&d->rec->lock);
    add_operation(d->rec, d->number, r);
    task_unlock(&d->rec->lock);
    block_pass(b, r, recorded);
}

static void close_recorded(Block *b)
{
    free(b);
}

static const struct block_ops recorded_ops = {.name = "recorder", .submit = record, .close = close_recorded};

Block *disk_recorder_add(DiskRecorder *rec, Block *next)
{
    struct recorded_disk *d = calloc(1, sizeof(*d));
    unsigned n = rec->disk_count++;

    assert(d && n < DISKS_MAX);
    block_init_filter(&d->block, &recorded_ops, next);
    d->rec = rec;
    d->number = n;
    memcpy(rec->disks[n].id, next->id, sizeof(next->id));
    rec->disks[n].size = next->size;
    rec->disks[n].initial = malloc(next->size);
    assert(rec->disks[n].initial);
    if (!block_read(next, 0, rec->disks[n].initial, next->size, NULL))
        abort();
    return &d->block;
}

DiskRecorder *disk_recorder_new(void)
{
    DiskRecorder *rec = calloc(1, sizeof(*rec));

    assert(rec);
    task_mutex_init(&rec->lock);
    return rec;
}

void disk_recorder_free(DiskRecorder *rec)
{
    for (unsigned i = 0; i < rec->disk_count; i++)
        free(rec->disks[i].initial);
    for (size_t i = 0; i < rec->operation_count; i++)
        free(rec->operations[i].data);
    free(rec->operations);
    free(rec->events);
    task_mutex_destroy(&rec->lock);
    free(rec);
}

void disk_recorder_mark(DiskRecorder *rec, uint64_t promised)
{
    task_lock(&rec->lock);
    add_event(rec, MARK, 0, promised);
    task_unlock(&rec->lock);
}

size_t disk_recorder_moments(DiskRecorder *rec)
{
    size_t n;

    task_lock(&rec->lock);
    n = rec->event_count;
    task_unlock(&rec->lock);
    return n;
}

uint64_t disk_recorder_promised(DiskRecorder *rec, size_t moment)
{
    return moment ? rec->events[moment - 1].promised : 0;
}

const char *disk_recorder_describe(DiskRecorder *rec, size_t moment)
{
    const struct event *e = moment ? &rec->events[moment - 1] : NULL;
    const struct operation *o = e && e->what != MARK ? &rec->operations[e->operation] : NULL;

    if (o)
        snprintf(rec->text, sizeof(rec->text), "moment %zu of %zu, after: %s: %s of %llu bytes at %llu %s",
                 moment, rec->event_count, rec->disks[o->disk].id, block_op_name(o->op),
                 (unsigned long long)o->size, (unsigned long long)o->offset,
                 e->what == SUBMITTED ? "submitted" : "completed");
    else
        snprintf(rec->text, sizeof(rec->text), "moment %zu of %zu, after: %s", moment, rec->event_count,
                 e ? "a mark" : "nothing");
    return rec->text;
}

/* --- a cut --- */

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static bool changes(const struct operation *o)
{
    return o->op == BLOCK_WRITE || o->op == BLOCK_ZERO;
}

/* What o does to bytes from..to of the disk. */
static void apply_part(const struct operation *o, uint8_t *image, uint64_t from, uint64_t to)
{
    if (from < o->offset)
        from = o->offset;
    if (to > o->offset + o->size)
        to = o->offset + o->size;
    if (o->op == BLOCK_ZERO)
        memset(image + from, 0, to - from);
    else
        memcpy(image + from, o->data + (from - o->offset), to - from);
}

static void apply(const struct operation *o, uint8_t *image)
{
    apply_part(o, image, o->offset, o->offset + o->size);
}

/* One octet, a few, or many: what a header is made of should be hit too. */
static uint64_t some_octets(uint64_t *random)
{
    return next_random(random) % (SECTOR >> next_random(random) % 6);
}

static void apply_some_sectors(const struct operation *o, uint8_t *image, uint64_t *random)
{
    for (uint64_t at = o->offset / SECTOR * SECTOR; at < o->offset + o->size; at += SECTOR) {
        uint64_t luck = next_random(random) % 8, end = at + (luck < 4 ? SECTOR : some_octets(random));

        if (luck < 5 && end > o->offset)
            apply_part(o, image, at, end);
    }
}

/* Whatever had completed at this moment is on the medium. */
static size_t flushed_moment(const DiskRecorder *rec, unsigned disk, size_t moment)
{
    size_t flushed = 0;

    for (size_t i = 0; i < rec->operation_count; i++) {
        const struct operation *o = &rec->operations[i];

        if (o->disk == disk && o->op == BLOCK_FLUSH && o->completed && o->completed <= moment && !o->error &&
            o->submitted > flushed)
            flushed = o->submitted;
    }
    return flushed;
}

static bool is_durable(const struct operation *o, size_t flushed)
{
    return o->completed && o->completed < flushed && !o->error;
}

static void apply_durable(const DiskRecorder *rec, unsigned disk, size_t flushed, uint8_t *image)
{
    for (size_t i = 0; i < flushed; i++) {
        const struct event *e = &rec->events[i];
        const struct operation *o = &rec->operations[e->operation];

        if (e->what == COMPLETED && o->disk == disk && changes(o) && is_durable(o, flushed))
            apply(o, image);
    }
}

/* Those that may be there or not, in the order of their submission; freed by the caller. */
static const struct operation **find_doubtful(const DiskRecorder *rec, unsigned disk, size_t moment,
                                              size_t flushed, size_t *ret_count)
{
    const struct operation **list = calloc(rec->operation_count + 1, sizeof(list[0]));
    size_t n = 0;

    assert(list);
    for (size_t i = 0; i < rec->operation_count; i++) {
        const struct operation *o = &rec->operations[i];

        if (o->disk == disk && changes(o) && o->submitted <= moment && !is_durable(o, flushed))
            list[n++] = o;
    }
    *ret_count = n;
    return list;
}

static void shuffle(const struct operation **list, size_t n, uint64_t *random)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = next_random(random) % i;
        const struct operation *o = list[i - 1];

        list[i - 1] = list[j];
        list[j] = o;
    }
}

static void apply_doubtful(const struct operation **list, size_t n, uint64_t seed, uint64_t random,
                           uint8_t *image)
{
    bool in_any_order = next_random(&random) & 1, torn = next_random(&random) & 1;

    if (seed == 0)
        return;
    if (seed > 1 && in_any_order)
        shuffle(list, n, &random);
    for (size_t i = 0; i < n; i++) {
        if (seed > 1 && torn)
            apply_some_sectors(list[i], image, &random);
        else if (seed == 1 || next_random(&random) & 1)
            apply(list[i], image);
    }
}

struct memory_block *disk_recorder_cut(DiskRecorder *rec, unsigned disk, size_t moment, uint64_t seed)
{
    struct memory_block *m = memory_block_new(rec->disks[disk].id, rec->disks[disk].size);
    size_t flushed = flushed_moment(rec, disk, moment), n;
    const struct operation **doubtful = find_doubtful(rec, disk, moment, flushed, &n);

    memcpy(m->bytes, rec->disks[disk].initial, m->block.size);
    apply_durable(rec, disk, flushed, m->bytes);
    apply_doubtful(doubtful, n, seed, seed << 32 ^ moment << 8 ^ disk, m->bytes);
    free(doubtful);
    return m;
}
