/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated guest's disks: the product's replication group and filters on simulated disks, and a program
 * that uses them.
 *
 * The program keeps a log on the first disk: numbered records of what it knows of its clients, in a ring of
 * sectors. It answers a request only when a flush that was submitted after the request's record was written
 * has completed. Beside it, it writes, zeroes, discards and reads elsewhere, now and then over a write that is
 * still in flight, and flushes none of that by itself.
 *
 * What is in flight is part of the guest's state (as the rings of a virtio disk are), and issued again by
 * whoever takes over.
 */
#ifndef SIM_GUEST_DISK_H
#define SIM_GUEST_DISK_H

#include "block/replication_group.h"
#include "guest/guest.h"
#include "sim_sector.h"
#include "sim_store.h"
#include <perdure/vmstate.h>

#define SIM_SLOTS       7 /* the log's write, a flush, anything */
#define SIM_SLOT_LOG    0
#define SIM_SLOT_FLUSH  1
#define SIM_LOG_SECTORS 32

enum sim_slot_op { SLOT_FREE, SLOT_WRITE, SLOT_ZERO, SLOT_UNMAP, SLOT_READ, SLOT_FLUSH };

struct sim_slot {
    uint64_t op; /* enum sim_slot_op */
    uint64_t disk, sector, count;
    uint64_t tag; /* what it writes: 0 zeroes */
};

/* Part of struct sim_cpu. */
struct sim_disk_state {
    struct sim_slot slots[SIM_SLOTS];
    uint64_t tags;
    struct sim_log_record log; /* the newest, perhaps not yet written */
    uint64_t changed;          /* there is more to be put into the next one */
    uint64_t written;          /* records whose write has completed */
    uint64_t flushing;         /* those that the flush under way will cover */
    uint64_t durable;
    uint64_t recorded[WORLD_CLIENTS]; /* the record that has the client's last request */
};
extern const VMStateDescription sim_disk_vmstate;

struct guest_disks;

void guest_disks_init(void); /* once a process */
/* On the running fiber's host; what is on its store is there. */
struct guest_disks *guest_disks_new(Error **errp);
/* Requests under way are waited for. */
void guest_disks_free(struct guest_disks *d);
bool guest_disks_mark(struct guest_disks *d, const struct guest_disk_mark *mark, uint32_t lineage,
                      Error **errp);

/* Of the one that is shared: whose is it? */
bool guest_disks_hold(struct guest_disks *d, enum guest_disk_hold how, Error **errp);

/* One step of the program. applied, chain: what its log is to say of its clients. */
void guest_disks_step(struct guest_disks *d, struct sim_disk_state *s, struct sim_rng *rng, uint32_t lineage,
                      const uint64_t *applied, const uint64_t *chain);
/* The client's last request is applied: it must get into the log. */
void guest_disks_note(struct sim_disk_state *s, uint32_t client);
/* It is in the log, for good. */
bool guest_disks_safe(const struct sim_disk_state *s, uint32_t client);

/* The guest stands still. */
void guest_disks_paused(struct guest_disks *d, const struct sim_disk_state *s, uint32_t lineage,
                        uint64_t step);
/* Power on: what is on the disks is what the guest has. */
void guest_disks_boot(struct guest_disks *d, uint32_t lineage);
/* After it: the program goes on from its log. certain: as content_check_log(). */
void guest_disks_read_log(struct guest_disks *d, struct sim_disk_state *s, uint64_t *applied, uint64_t *chain,
                          bool certain);
/* From the state s, of that pause: checked; then what is in flight is issued. */
void guest_disks_take_over(struct guest_disks *d, struct sim_disk_state *s, uint32_t from, uint64_t step,
                           uint32_t lineage);
/* The machine is cleared: nothing is in flight any more. */
bool guest_disks_settle(struct guest_disks *d, int64_t until);
void guest_disks_drop(struct guest_disks *d);

#endif
