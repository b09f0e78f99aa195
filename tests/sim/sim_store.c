/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_store.h"

#include <stdio.h>
#include <string.h>

static struct sim_store stores[SIM_MACHINES];
static unsigned disk_count;
static struct sim_rng rng;
static void (*on_failure)(struct sim_store *s);

static void request_failed(void)
{
    sim_store_here()->troubled = true;
    if (on_failure)
        on_failure(sim_store_here());
}

void sim_store_on_failure(void (*fn)(struct sim_store *s))
{
    on_failure = fn;
}

void sim_store_init(uint64_t seed)
{
    uint64_t sizes[SIM_DISKS_MAX], journal;

    rng = sim_rng_make(seed, 12);
    sim_disk_init(seed);
    sim_disk_on_failure(request_failed);
    disk_count = 1 + (unsigned)sim_rng_below(&rng, SIM_DISKS_MAX);
    sizes[0] = SIM_SECTOR * (uint64_t)sim_rng_range(&rng, 100, 180); /* one chunk or two */
    sizes[1] = SIM_SECTOR * (uint64_t)sim_rng_range(&rng, 20, 140);
    journal = (uint64_t)sim_rng_range(&rng, 192, 512) << 10;
    for (unsigned i = 0; i < SIM_MACHINES - 1; i++) {
        stores[i].machine = i;
        stores[i].journal = medium_new(journal);
        for (unsigned j = 0; j < disk_count; j++)
            stores[i].disks[j] = medium_new(sizes[j]);
    }
}

unsigned sim_store_disks(void)
{
    return disk_count;
}

const char *sim_store_disk_id(unsigned i)
{
    return i ? "data" : "root";
}

struct sim_store *sim_store_of(unsigned machine)
{
    return &stores[machine];
}

struct sim_store *sim_store_here(void)
{
    return &stores[sim_host_machine(sim_host_current())];
}

Block *sim_store_open_disk(struct sim_store *s, unsigned i)
{
    return sim_disk_open(sim_store_disk_id(i), s->disks[i]);
}

Block *sim_store_open_journal(void *store, Error **errp)
{
    struct sim_store *s = store;

    (void)errp;
    return sim_disk_open("journal", s->journal);
}

/* --- records --- */

bool sim_store_load_record(struct sim_store *s, unsigned i, struct disk_record *ret, Error **errp)
{
    if (s->records[i].size)
        return disk_record_parse(s->records[i].text, s->records[i].size, "the store", ret, errp);
    *ret = (struct disk_record){.role = DISK_NO_RECORD};
    return true;
}

bool sim_store_put_record(struct sim_store *s, unsigned i, const struct disk_record *r, Error **errp)
{
    struct sim_record *rec = &s->records[i];
    char text[DISK_RECORD_TEXT_SIZE];
    size_t n = disk_record_format(r, text);

    (void)errp;
    if (n > sizeof(rec->text))
        sim_fail("a record of %zu bytes", n);
    sim_disk_pause(); /* the new file is written and synced */
    memcpy(rec->old, rec->text, rec->size);
    rec->old_size = rec->size;
    memcpy(rec->text, text, n);
    rec->size = n;
    rec->settling = true;
    sim_disk_pause(); /* its directory */
    rec->settling = false;
    sim_trace("record of %s: %s", sim_store_disk_id(i), disk_role_name(r->role));
    return true;
}

void sim_store_peek_record(const struct sim_store *s, unsigned i, struct disk_record *ret)
{
    if (!sim_store_load_record((struct sim_store *)s, i, ret, NULL))
        sim_fail("a record is damaged");
}

void sim_store_followed(const struct sim_store *here, uint32_t from, uint32_t to)
{
    struct disk_record mine, r;

    sim_store_peek_record(here, 0, &mine);
    for (unsigned i = 0; i < SIM_MACHINES; i++) {
        struct sim_store *s = &stores[i];

        sim_store_peek_record(s, 0, &r);
        if (s != here && s->lineage == from && r.role == DISK_STANDBY && r.generation == mine.generation &&
            !strcmp(r.pair, mine.pair))
            s->lineage = to;
    }
}

/* --- failures --- */

static void crash_record(struct sim_record *rec, bool power)
{
    if (rec->settling && power && sim_rng_one_in(&rng, 2)) {
        memcpy(rec->text, rec->old, rec->old_size);
        rec->size = rec->old_size;
    }
    rec->settling = false;
}

static void crash_medium(struct sim_medium *m, bool power)
{
    if (power)
        medium_power_cut(m, &rng);
    else
        medium_process_death(m, &rng);
}

void sim_store_crash(unsigned machine, enum sim_death how)
{
    struct sim_store *s = &stores[machine];
    bool power = how != DEATH_PROCESS;

    crash_medium(s->journal, power);
    for (unsigned i = 0; i < disk_count; i++) {
        crash_medium(s->disks[i], power);
        crash_record(&s->records[i], power);
    }
}

void sim_store_let_fail(unsigned machine, struct sim_rng *r)
{
    static const enum block_op ops[] = {BLOCK_WRITE, BLOCK_WRITE, BLOCK_ZERO, BLOCK_FLUSH, BLOCK_READ};
    struct sim_store *s = &stores[machine];
    unsigned which = (unsigned)sim_rng_below(r, disk_count + 1);
    struct sim_medium *m = which < disk_count ? s->disks[which] : s->journal;

    m->fail_in[ops[sim_rng_below(r, 5)]] = 1 + (unsigned)sim_rng_below(r, 20);
}

void sim_store_fail_no_more(void)
{
    for (unsigned i = 0; i < SIM_MACHINES - 1; i++) {
        memset(stores[i].journal->fail_in, 0, sizeof(stores[i].journal->fail_in));
        for (unsigned j = 0; j < disk_count; j++)
            memset(stores[i].disks[j]->fail_in, 0, sizeof(stores[i].disks[j]->fail_in));
    }
}
