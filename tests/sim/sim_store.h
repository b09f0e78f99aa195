/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Store: what lies on the storage of a machine, and is there again when it is started anew: its disks, the
 * record beside each (the product's own text), and the journal of a standby.
 */
#ifndef SIM_STORE_H
#define SIM_STORE_H

#include "block/disk_record.h"
#include "sim_disk.h"
#include "sim_link.h"

#define SIM_DISKS_MAX    2
#define SIM_JOURNAL_PATH "journal" /* as records name it */

struct sim_record {
    char text[1024], old[1024];
    size_t size, old_size; /* 0: there is none */
    bool settling;         /* a power cut may bring the old one back */
};

struct sim_store {
    unsigned machine;
    struct sim_medium *disks[SIM_DISKS_MAX];
    struct sim_medium *journal;
    struct sim_record records[SIM_DISKS_MAX];
    /* For the checkers: the execution whose content the disks have. 0: none */
    uint32_t lineage;
    bool troubled; /* something failed here, and it may not be known yet; until the next sync */
    bool ran;      /* here, and they are its disks; else it was elsewhere, and they follow it, or once did */
};

/* The same disks on every machine, by seed. */
void sim_store_init(uint64_t seed);
unsigned sim_store_disks(void);
const char *sim_store_disk_id(unsigned i);
/* Of the running fiber's host. */
struct sim_store *sim_store_here(void);
struct sim_store *sim_store_of(unsigned machine);
void sim_store_crash(unsigned machine, enum sim_death how);
/* One of the next requests for something that the machine stores will fail. */
void sim_store_let_fail(unsigned machine, struct sim_rng *rng);
/* What was planned so and did not happen yet, will not, on any machine. */
void sim_store_fail_no_more(void);
/* Called when it does, on its host. */
void sim_store_on_failure(void (*fn)(struct sim_store *s));

Block *sim_store_open_disk(struct sim_store *s, unsigned i);
/* What replication_group_options.open_journal wants; opaque is the store. What it had is still in it. */
Block *sim_store_open_journal(void *store, Error **errp);
bool sim_store_load_record(struct sim_store *s, unsigned i, struct disk_record *ret, Error **errp);
/* Takes a while; a crash leaves the old one or the new one. */
bool sim_store_put_record(struct sim_store *s, unsigned i, const struct disk_record *r, Error **errp);
/* The guest goes on from that lineage here, in a new one, which a standby follows that was there at the beginning (a
 * swap). */
void sim_store_followed(const struct sim_store *here, uint32_t from, uint32_t to);
/* For those who look at it from outside. */
void sim_store_peek_record(const struct sim_store *s, unsigned i, struct disk_record *ret);

#endif
