/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_content.h"
#include "sim_history.h"

#include <stdlib.h>
#include <string.h>

#define KEPT     512 /* pauses of a lineage */
#define LINEAGES 64

struct truth {
    uint64_t step; /* 0: none */
    struct content content;
    struct sim_disk_state state;
};

static struct {
    struct truth *truths; /* KEPT, by turns */
    uint64_t count;
} lineages[LINEAGES];

/* --- contents --- */

uint64_t content_sectors(unsigned disk)
{
    return sim_store_of(0)->disks[disk]->size / SIM_SECTOR;
}

void content_new(struct content *c)
{
    *c = (struct content){0};
    for (unsigned i = 0; i < sim_store_disks(); i++) {
        c->tags[i] = calloc(content_sectors(i), sizeof(uint64_t));
        c->flags[i] = calloc(content_sectors(i), 1);
        if (!c->tags[i] || !c->flags[i])
            abort();
    }
}

void content_free(struct content *c)
{
    for (unsigned i = 0; i < SIM_DISKS_MAX; i++) {
        free(c->tags[i]);
        free(c->flags[i]);
    }
    *c = (struct content){0};
}

void content_read(struct content *c, const struct sim_store *s)
{
    for (unsigned i = 0; i < sim_store_disks(); i++)
        for (uint64_t n = 0; n < content_sectors(i); n++)
            c->tags[i][n] = sector_tag(s->disks[i]->view + n * SIM_SECTOR, i, n, NULL);
}

static void copy(struct content *to, const struct content *from)
{
    for (unsigned i = 0; i < sim_store_disks(); i++) {
        memcpy(to->tags[i], from->tags[i], content_sectors(i) * sizeof(uint64_t));
        memcpy(to->flags[i], from->flags[i], content_sectors(i));
    }
}

/* --- the truth --- */

static struct truth *newest(uint32_t lineage)
{
    uint64_t n = lineages[lineage].count;

    return n ? &lineages[lineage].truths[(n - 1) % KEPT] : NULL;
}

static struct truth *add(uint32_t lineage)
{
    struct truth *t;

    if (lineage >= LINEAGES)
        sim_fail("too many executions");
    if (!lineages[lineage].truths)
        lineages[lineage].truths = calloc(KEPT, sizeof(struct truth));
    if (!lineages[lineage].truths)
        abort();
    t = &lineages[lineage].truths[lineages[lineage].count++ % KEPT];
    if (!t->content.tags[0])
        content_new(&t->content);
    return t;
}

void content_paused(uint32_t lineage, uint64_t step, const struct content *truth,
                    const struct sim_disk_state *state)
{
    struct truth *t = newest(lineage);

    if (!t || t->step != step)
        t = add(lineage);
    t->step = step;
    t->state = *state;
    copy(&t->content, truth);
}

static const struct truth *find(uint32_t lineage, uint64_t step)
{
    for (uint64_t i = 0; i < KEPT && i < lineages[lineage].count; i++)
        if (lineages[lineage].truths[i].step == step)
            return &lineages[lineage].truths[i];
    return NULL;
}

void content_moved(uint32_t lineage, uint64_t from, uint64_t to)
{
    const struct truth *t = find(lineage, from);

    if (!t)
        sim_fail("nothing is known of the disks at step %llu of lineage %u", (unsigned long long)from,
                 lineage);
    content_paused(lineage, to, &t->content, &t->state);
}

/* --- comparing --- */

struct mismatch {
    unsigned disk;
    uint64_t sector, is, should;
    const char *why;
};

static bool writes(const struct sim_slot *w)
{
    return w->op == SLOT_WRITE || w->op == SLOT_ZERO || w->op == SLOT_UNMAP;
}

static bool covers(const struct sim_slot *w, unsigned disk, uint64_t sector)
{
    return writes(w) && w->disk == disk && sector >= w->sector && sector - w->sector < w->count;
}

static bool is_in_flight(const struct sim_disk_state *s, unsigned disk, uint64_t sector, uint64_t tag)
{
    for (int i = 0; i < SIM_SLOTS; i++)
        if (covers(&s->slots[i], disk, sector) && s->slots[i].tag == tag)
            return true;
    return false;
}

/* Each sector by itself. */
static bool sectors_match(const struct truth *t, const struct content *is, struct mismatch *ret)
{
    for (unsigned i = 0; i < sim_store_disks(); i++)
        for (uint64_t n = 0; n < content_sectors(i); n++) {
            uint64_t tag = is->tags[i][n];

            if (tag == t->content.tags[i][n] || (t->content.flags[i][n] & CONTENT_WILD) ||
                is_in_flight(&t->state, i, n, tag))
                continue;
            *ret = (struct mismatch){i, n, tag, t->content.tags[i][n], "another content"};
            return false;
        }
    return true;
}

/* A write in flight is there in all of its sectors or in none, where no other one is in its way. */
static bool is_whole(const struct truth *t, const struct content *is, const struct sim_slot *w,
                     struct mismatch *ret)
{
    bool there = false, missing = false;

    for (uint64_t n = w->sector; n < w->sector + w->count; n++) {
        uint64_t before = t->content.tags[w->disk][n], tag = is->tags[w->disk][n];

        if (t->content.flags[w->disk][n] || before == w->tag)
            continue;
        there |= tag == w->tag;
        missing |= tag != w->tag;
        if (there && missing) {
            *ret = (struct mismatch){(unsigned)w->disk, n, tag, w->tag, "half of a write in flight"};
            return false;
        }
    }
    return true;
}

static bool matches(const struct truth *t, const struct content *is, struct mismatch *ret)
{
    if (!sectors_match(t, is, ret))
        return false;
    for (int i = 0; i < SIM_SLOTS; i++)
        if (writes(&t->state.slots[i]) && !is_whole(t, is, &t->state.slots[i], ret))
            return false;
    return true;
}

void content_check_takeover(uint32_t lineage, uint64_t step, const struct sim_store *s)
{
    const struct truth *t = find(lineage, step);
    struct content is;
    struct mismatch m;

    if (!t)
        sim_fail("a takeover at step %llu of lineage %u, of whose disks nothing is known",
                 (unsigned long long)step, lineage);
    content_new(&is);
    content_read(&is, s);
    if (!matches(t, &is, &m))
        sim_fail("a takeover at step %llu of lineage %u finds %s: sector %llu of disk %u has write %llx "
                 "instead of %llx",
                 (unsigned long long)step, lineage, m.why, (unsigned long long)m.sector, m.disk,
                 (unsigned long long)m.is, (unsigned long long)m.should);
    content_free(&is);
    /* Where the guest ran last, what it has not flushed may be lost with the power, as ever. */
    for (unsigned i = 0; i < sim_store_disks() && !s->ran; i++)
        if (!medium_is_durable(s->disks[i]))
            sim_fail("a takeover runs on disk %u before all of it is on the medium", i);
}

static bool is_some_pause(uint32_t lineage, const struct content *is, struct mismatch *ret)
{
    for (uint64_t i = 0; i < KEPT && i < lineages[lineage].count; i++)
        if (matches(&lineages[lineage].truths[i], is, ret))
            return true;
    return false;
}

/* After a swap its first epoch is still the last one of the lineage before. */
void content_check_whole(const struct sim_store *s)
{
    uint32_t before = history_parent(s->lineage);
    struct mismatch m = {.why = ""};
    struct content is;
    bool found;

    content_new(&is);
    content_read(&is, s);
    found = (before && is_some_pause(before, &is, &m)) || is_some_pause(s->lineage, &is, &m);
    if (!found && lineages[s->lineage].count <= KEPT && lineages[before].count <= KEPT)
        sim_fail(
            "the disks of a standby that came back are no whole epoch of lineage %u (%s: sector %llu of disk "
            "%u has write %llx)",
            s->lineage, m.why, (unsigned long long)m.sector, m.disk, (unsigned long long)m.is);
    content_free(&is);
}

/* --- the log --- */

static void read_record(const struct sim_store *s, uint64_t number, struct sim_log_record *ret)
{
    uint64_t sector = number % SIM_LOG_SECTORS;

    sector_tag(s->disks[0]->view + sector * SIM_SECTOR, 0, sector, ret);
}

/* All up to ret->flushed were on the medium once. */
static void find_flushed(const struct sim_store *s, struct sim_log_record *ret)
{
    *ret = (struct sim_log_record){0};
    for (uint64_t i = 0; i < SIM_LOG_SECTORS; i++) {
        struct sim_log_record r;

        read_record(s, i, &r);
        if (r.number && (r.flushed > ret->flushed || !ret->number))
            *ret = r;
    }
}

static bool is_next(const struct sim_log_record *a, const struct sim_log_record *b)
{
    return b->number == a->number + 1 && b->previous == sim_log_digest(a);
}

/* From what is certain on, as far as it goes without a gap. */
static void find_last(const struct sim_store *s, uint64_t flushed, struct sim_log_record *ret)
{
    struct sim_log_record r;

    *ret = (struct sim_log_record){0};
    if (flushed)
        read_record(s, flushed, ret);
    if (ret->number != flushed)
        sim_fail("record %llu of the log is lost: %llu is in its place", (unsigned long long)flushed,
                 (unsigned long long)ret->number);
    for (read_record(s, ret->number + 1, &r); is_next(ret, &r); read_record(s, ret->number + 1, &r))
        *ret = r;
}

void content_read_log(const struct sim_store *s, struct sim_log_record *ret)
{
    struct sim_log_record r;

    find_flushed(s, &r);
    find_last(s, r.flushed, ret);
    for (uint64_t n = ret->number; n && n + SIM_LOG_SECTORS / 2 > ret->number; n--) {
        read_record(s, n, &r);
        if (r.number != n)
            sim_fail("record %llu of the log is lost, and %llu is there", (unsigned long long)n,
                     (unsigned long long)ret->number);
    }
}

void content_check_log(const struct sim_store *s, struct sim_log_record *ret)
{
    content_read_log(s, ret);
    for (uint32_t i = 0; i < WORLD_CLIENTS; i++)
        if (ret->applied[i] < world_answered(i))
            sim_fail("client %u's request %llu was answered and is not on the disk: the log ends with %llu",
                     i, (unsigned long long)world_answered(i), (unsigned long long)ret->applied[i]);
}
