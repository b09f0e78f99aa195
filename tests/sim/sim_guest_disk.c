/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_guest_disk.h"
#include "sim_shared.h"
#include "sim_content.h"

#include "block/replication_filter.h"
#include "machine/disk_mark.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRITE_MAX   12 /* sectors */
#define QUEUE_LIMIT (24u << 10)
#define BACKLOG     (16u << 10)
#define LOG_AHEAD   8 /* records that are not durable */

/* The host's side of a slot. */
struct request {
    struct block_request block;
    struct guest_disks *disks;
    bool done;
    int error;
    bool touched; /* READ: something was written there meanwhile */
    uint8_t data[WRITE_MAX * SIM_SECTOR];
};

struct guest_disks {
    struct sim_store *store;
    ReplicationGroup *group;
    unsigned count;
    Block *top[SIM_DISKS_MAX];
    struct request requests[SIM_SLOTS];
    struct content truth; /* as the guest knows it */
    struct sim_shared shared;
};

static const VMStateField slot_fields[] = {
    VMSTATE_U64(struct sim_slot, op, 1),     VMSTATE_U64(struct sim_slot, disk, 1),
    VMSTATE_U64(struct sim_slot, sector, 1), VMSTATE_U64(struct sim_slot, count, 1),
    VMSTATE_U64(struct sim_slot, tag, 1),    VMSTATE_END,
};
static const VMStateDescription slot_vmstate = {
    .name = "sim-slot", .version = 1, .minimum_version = 1, .fields = slot_fields};
static const VMStateField log_fields[] = {
    VMSTATE_U64(struct sim_log_record, number, 1),
    VMSTATE_U64(struct sim_log_record, flushed, 1),
    VMSTATE_U64(struct sim_log_record, previous, 1),
    VMSTATE_U64_ARRAY(struct sim_log_record, applied, WORLD_CLIENTS, 1),
    VMSTATE_U64_ARRAY(struct sim_log_record, chain, WORLD_CLIENTS, 1),
    VMSTATE_END,
};
static const VMStateDescription log_vmstate = {
    .name = "sim-log", .version = 1, .minimum_version = 1, .fields = log_fields};
static const VMStateField disk_fields[] = {
    VMSTATE_STRUCT_ARRAY(struct sim_disk_state, slots, SIM_SLOTS, &slot_vmstate, 1),
    VMSTATE_U64(struct sim_disk_state, tags, 1),
    VMSTATE_STRUCT(struct sim_disk_state, log, &log_vmstate, 1),
    VMSTATE_U64(struct sim_disk_state, changed, 1),
    VMSTATE_U64(struct sim_disk_state, written, 1),
    VMSTATE_U64(struct sim_disk_state, flushing, 1),
    VMSTATE_U64(struct sim_disk_state, durable, 1),
    VMSTATE_U64_ARRAY(struct sim_disk_state, recorded, WORLD_CLIENTS, 1),
    VMSTATE_END,
};
const VMStateDescription sim_disk_vmstate = {
    .name = "sim-disk", .version = 1, .minimum_version = 1, .fields = disk_fields};

static bool writes(const struct sim_slot *w)
{
    return w->op == SLOT_WRITE || w->op == SLOT_ZERO || w->op == SLOT_UNMAP;
}

static bool overlap(const struct sim_slot *a, const struct sim_slot *b)
{
    return a->disk == b->disk && a->sector < b->sector + b->count && b->sector < a->sector + a->count;
}

/* A write in flight covers the sector. */
static bool is_covered(const struct sim_disk_state *s, uint64_t disk, uint64_t sector)
{
    struct sim_slot here = {.disk = disk, .sector = sector, .count = 1};

    for (int i = 0; i < SIM_SLOTS; i++)
        if (writes(&s->slots[i]) && overlap(&s->slots[i], &here))
            return true;
    return false;
}

/* --- issuing --- */

static void on_done(struct block_request *r)
{
    struct request *q = r->opaque;

    q->error = r->error;
    q->done = true;
}

/* A write that overlaps others in flight: which of them the disk has in the end, only it knows. */
static void note_overlaps(struct guest_disks *d, const struct sim_disk_state *s, int slot)
{
    const struct sim_slot *w = &s->slots[slot];

    for (int i = 0; i < SIM_SLOTS; i++) {
        const struct sim_slot *other = &s->slots[i];

        if (i == slot || !other->op || other->op == SLOT_FLUSH || !overlap(other, w))
            continue;
        if (other->op == SLOT_READ)
            d->requests[i].touched = true;
        else
            for (uint64_t n = w->sector; n < w->sector + w->count; n++)
                if (n >= other->sector && n < other->sector + other->count)
                    d->truth.flags[w->disk][n] |= CONTENT_LOOSE;
    }
}

static void fill(struct request *q, const struct sim_slot *w, const struct sim_log_record *log)
{
    for (uint64_t i = 0; i < w->count; i++)
        sector_make(q->data + i * SIM_SECTOR, (unsigned)w->disk, w->sector + i, w->tag, log);
}

static void issue(struct guest_disks *d, const struct sim_disk_state *s, int slot)
{
    static const enum block_op ops[] = {[SLOT_WRITE] = BLOCK_WRITE,
                                        [SLOT_ZERO] = BLOCK_ZERO,
                                        [SLOT_UNMAP] = BLOCK_ZERO,
                                        [SLOT_READ] = BLOCK_READ,
                                        [SLOT_FLUSH] = BLOCK_FLUSH};
    const struct sim_slot *w = &s->slots[slot];
    struct request *q = &d->requests[slot];

    q->done = q->touched = false;
    q->block = (struct block_request){.op = ops[w->op], .unmap = w->op == SLOT_UNMAP, .done = on_done};
    q->block.opaque = q;
    q->block.data = q->data;
    q->block.offset = w->sector * SIM_SECTOR;
    q->block.size = w->count * SIM_SECTOR;
    if (w->op == SLOT_WRITE)
        fill(q, w, slot == SIM_SLOT_LOG ? &s->log : NULL);
    if (writes(w))
        note_overlaps(d, s, slot);
    for (uint64_t n = 0; w->op == SLOT_READ && n < w->count; n++)
        q->touched |= is_covered(s, w->disk, w->sector + n);
    block_submit(d->top[w->disk], &q->block);
}

static void start(struct guest_disks *d, struct sim_disk_state *s, int slot, struct sim_slot w,
                  uint32_t lineage)
{
    s->tags++;
    if (w.op == SLOT_WRITE)
        w.tag = (uint64_t)lineage << 40 | s->tags;
    s->slots[slot] = w;
    issue(d, s, slot);
}

/* --- completion, as the guest sees it --- */

/* Nobody else is in the sector's way: it is what is there. */
static void settle(struct guest_disks *d, const struct sim_slot *w, uint64_t n, bool ok)
{
    const uint8_t *view = d->store->disks[w->disk]->view + n * SIM_SECTOR;
    uint64_t tag = sector_tag(view, (unsigned)w->disk, n, NULL);

    if (ok && !d->truth.flags[w->disk][n] && tag != w->tag)
        sim_fail("sector %llu of disk %llu has write %llx, and %llx has completed", (unsigned long long)n,
                 (unsigned long long)w->disk, (unsigned long long)tag, (unsigned long long)w->tag);
    d->truth.tags[w->disk][n] = tag;
    d->truth.flags[w->disk][n] = 0;
}

/* Others are still in the way. */
static void end_covered(struct guest_disks *d, const struct sim_slot *w, uint64_t n, bool ok)
{
    uint8_t *flags = &d->truth.flags[w->disk][n];

    if (!ok || *flags & CONTENT_ENDED)
        *flags |= CONTENT_WILD;
    else if (*flags & CONTENT_LOOSE)
        *flags |= CONTENT_ENDED;
    if (ok)
        d->truth.tags[w->disk][n] = w->tag;
}

static void end_write(struct guest_disks *d, const struct sim_disk_state *s, const struct sim_slot *w,
                      bool ok)
{
    for (uint64_t n = w->sector; n < w->sector + w->count; n++) {
        if (!ok && d->store->disks[w->disk]->doubtful[n])
            d->store->disks[w->disk]->doubtful[n]--;
        if (!is_covered(s, w->disk, n))
            settle(d, w, n, ok);
        else
            end_covered(d, w, n, ok);
    }
}

static void end_read(struct guest_disks *d, const struct sim_slot *w, const struct request *q)
{
    for (uint64_t i = 0; i < w->count; i++) {
        uint64_t n = w->sector + i, tag = sector_tag(q->data + i * SIM_SECTOR, (unsigned)w->disk, n, NULL);

        if (!q->touched && !d->truth.flags[w->disk][n] && tag != d->truth.tags[w->disk][n])
            sim_fail("the guest reads write %llx in sector %llu of disk %llu, and wrote %llx",
                     (unsigned long long)tag, (unsigned long long)n, (unsigned long long)w->disk,
                     (unsigned long long)d->truth.tags[w->disk][n]);
    }
}

static void end_slot(struct guest_disks *d, struct sim_disk_state *s, int slot)
{
    struct sim_slot w = s->slots[slot];
    const struct request *q = &d->requests[slot];

    s->slots[slot] = (struct sim_slot){0};
    if (q->error && !sim_disk_has_failed())
        sim_fail("a request of the guest ends with error %d", q->error);
    if (writes(&w))
        end_write(d, s, &w, !q->error);
    else if (w.op == SLOT_READ && !q->error)
        end_read(d, &w, q);
    else if (w.op == SLOT_FLUSH && !q->error)
        s->durable = s->flushing;
    if (slot == SIM_SLOT_LOG && !q->error)
        s->written = s->log.number;
}

/* --- the program --- */

void guest_disks_note(struct sim_disk_state *s, uint32_t client)
{
    s->changed = 1;
    s->recorded[client] = s->log.number + 1;
}

bool guest_disks_safe(const struct sim_disk_state *s, uint32_t client)
{
    return s->recorded[client] <= s->durable;
}

/* One that failed is written again, as it was. */
static void write_record(struct guest_disks *d, struct sim_disk_state *s, uint32_t lineage,
                         const uint64_t *applied, const uint64_t *chain)
{
    struct sim_log_record r = {.number = s->log.number + 1, .flushed = s->durable};

    if (s->written == s->log.number) {
        r.previous = sim_log_digest(&s->log);
        memcpy(r.applied, applied, sizeof(r.applied));
        memcpy(r.chain, chain, sizeof(r.chain));
        s->log = r;
        s->changed = 0;
    }
    start(d, s, SIM_SLOT_LOG,
          (struct sim_slot){.op = SLOT_WRITE, .sector = s->log.number % SIM_LOG_SECTORS, .count = 1},
          lineage);
}

static void keep_log(struct guest_disks *d, struct sim_disk_state *s, uint32_t lineage,
                     const uint64_t *applied, const uint64_t *chain)
{
    bool due = s->written < s->log.number || (s->changed && s->log.number < s->durable + LOG_AHEAD);

    if (due && !s->slots[SIM_SLOT_LOG].op)
        write_record(d, s, lineage, applied, chain);
    if (s->written > s->durable && !s->slots[SIM_SLOT_FLUSH].op) {
        s->flushing = s->written;
        start(d, s, SIM_SLOT_FLUSH, (struct sim_slot){.op = SLOT_FLUSH}, lineage);
    }
}

/* Anywhere but in the log; half of it in a few sectors, so that much overlaps. */
static struct sim_slot choose(struct guest_disks *d, struct sim_rng *rng)
{
    static const enum sim_slot_op ops[] = {SLOT_WRITE, SLOT_WRITE, SLOT_WRITE, SLOT_WRITE,
                                           SLOT_ZERO,  SLOT_UNMAP, SLOT_READ,  SLOT_READ};
    struct sim_slot w = {.op = ops[sim_rng_below(rng, 8)], .disk = sim_rng_below(rng, d->count)};
    uint64_t first = w.disk ? 0 : SIM_LOG_SECTORS, room;

    w.count = 1 + sim_rng_below(rng, WRITE_MAX);
    room = content_sectors((unsigned)w.disk) - first - w.count;
    w.sector = first + sim_rng_below(rng, sim_rng_one_in(rng, 2) && room > 8 ? 8 : room);
    return w;
}

static void do_anything(struct guest_disks *d, struct sim_disk_state *s, struct sim_rng *rng,
                        uint32_t lineage)
{
    int slot = SIM_SLOT_FLUSH + 1 + (int)sim_rng_below(rng, SIM_SLOTS - SIM_SLOT_FLUSH - 1);

    if (!s->slots[slot].op)
        start(d, s, slot, choose(d, rng), lineage);
}

void guest_disks_step(struct guest_disks *d, struct sim_disk_state *s, struct sim_rng *rng, uint32_t lineage,
                      const uint64_t *applied, const uint64_t *chain)
{
    sim_shared_check(&d->shared);
    for (int i = 0; i < SIM_SLOTS; i++)
        if (s->slots[i].op && d->requests[i].done)
            end_slot(d, s, i);
    keep_log(d, s, lineage, applied, chain);
    if (sim_rng_one_in(rng, 5))
        do_anything(d, s, rng, lineage);
}

/* --- life --- */

void guest_disks_init(void)
{
    replication_group_register();
    sim_shared_init();
}

static void open_disks(struct guest_disks *d, Error **errp)
{
    for (unsigned i = 0; i < sim_store_disks(); i++) {
        d->top[i] = replication_filter_new(d->group, sim_store_open_disk(d->store, i), errp);
        if (!d->top[i])
            sim_fail("a disk cannot be replicated");
        d->count++;
    }
}

struct guest_disks *guest_disks_new(Error **errp)
{
    struct guest_disks *d = calloc(1, sizeof(*d));
    struct replication_group_options o = {.queue_limit = QUEUE_LIMIT, .backlog_limit = BACKLOG};

    if (!d)
        abort();
    d->store = sim_store_here();
    o.open_journal = sim_store_open_journal;
    o.open_journal_opaque = d->store;
    d->group = replication_group_new(&o, errp);
    if (!d->group)
        return NULL;
    open_disks(d, errp);
    sim_shared_open(&d->shared);
    content_new(&d->truth);
    return d;
}

void guest_disks_free(struct guest_disks *d)
{
    if (!d)
        return;
    for (unsigned i = 0; i < d->count; i++) {
        block_drain(d->top[i]);
        block_close(d->top[i]);
    }
    replication_group_free(d->group);
    content_free(&d->truth);
    sim_shared_close(&d->shared);
    free(d);
}

static bool mark_one(struct guest_disks *d, unsigned i, const struct guest_disk_mark *mark, Error **errp)
{
    struct disk_record old, new;

    if (!sim_store_load_record(d->store, i, &old, errp))
        return false;
    if (disk_mark_is_shared(&old, mark))
        sim_fail("a standby finds the record of its own primary");
    disk_mark_fill(&new, mark, sim_store_disk_id(i), SIM_JOURNAL_PATH);
    return sim_store_put_record(d->store, i, &new, errp);
}

bool guest_disks_mark(struct guest_disks *d, const struct guest_disk_mark *mark, uint32_t lineage,
                      Error **errp)
{
    replication_group_set_pair(d->group, mark->pair, mark->generation);
    if (mark->role == GUEST_DISKS_SYNC_TARGET)
        d->store->ran = d->store->troubled = false;
    if (mark->role == GUEST_DISKS_STANDBY)
        d->store->lineage = lineage;
    if (mark->role ==
        GUEST_DISKS_PRIMARY) /* also before it runs here, after a swap: it has all, and may be asked for */
        d->store->ran = true;
    for (unsigned i = 0; i < d->count; i++)
        if (!mark_one(d, i, mark, errp))
            return false;
    return true;
}

/* --- pauses and takeovers --- */

void guest_disks_paused(struct guest_disks *d, const struct sim_disk_state *s, uint32_t lineage,
                        uint64_t step)
{
    for (unsigned i = 0; i < d->count; i++)
        for (uint64_t n = 0; n < content_sectors(i); n++)
            if (d->store->disks[i]->doubtful[n])
                d->truth.flags[i][n] |= CONTENT_WILD;
    content_paused(lineage, step, &d->truth, s);
}

static void adopt(struct guest_disks *d, uint32_t lineage)
{
    for (unsigned i = 0; i < d->count; i++)
        memset(d->truth.flags[i], 0, content_sectors(i));
    content_read(&d->truth, d->store);
    d->store->lineage = lineage;
    d->store->ran = true;
}

void guest_disks_boot(struct guest_disks *d, uint32_t lineage)
{
    adopt(d, lineage);
    sim_shared_hold(&d->shared, GUEST_DISKS_HELD, NULL);
}

bool guest_disks_hold(struct guest_disks *d, enum guest_disk_hold how, Error **errp)
{
    return sim_shared_hold(&d->shared, how, errp);
}

/* What the last life has not flushed may be there: it is flushed before anybody is told of it. */
void guest_disks_read_log(struct guest_disks *d, struct sim_disk_state *s, uint64_t *applied, uint64_t *chain,
                          bool certain)
{
    if (certain)
        content_check_log(d->store, &s->log);
    else
        content_read_log(d->store, &s->log);
    s->written = s->log.number;
    s->durable = s->log.flushed;
    memcpy(applied, s->log.applied, sizeof(s->log.applied));
    memcpy(chain, s->log.chain, sizeof(s->log.chain));
    for (uint32_t i = 0; i < WORLD_CLIENTS; i++)
        s->recorded[i] = s->log.number;
}

/* What is in flight goes out in the order in which it did the first time. */
static void issue_all(struct guest_disks *d, const struct sim_disk_state *s)
{
    for (int i = 0; i < SIM_SLOTS; i++)
        if (s->slots[i].op)
            issue(d, s, i);
}

void guest_disks_take_over(struct guest_disks *d, struct sim_disk_state *s, uint32_t from, uint64_t step,
                           uint32_t lineage)
{
    struct sim_log_record last;

    content_check_takeover(from, step, d->store);
    content_check_log(d->store, &last);
    adopt(d, lineage);
    sim_store_followed(d->store, from, lineage);
    issue_all(d, s);
}

bool guest_disks_settle(struct guest_disks *d, int64_t until)
{
    return replication_group_settle(d->group, until);
}

void guest_disks_drop(struct guest_disks *d)
{
    for (unsigned i = 0; i < d->count; i++) {
        block_drain(d->top[i]);
        memset(d->store->disks[i]->doubtful, 0, content_sectors(i));
    }
}
