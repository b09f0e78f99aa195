/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shared: a disk that every machine sees, in a migration. It has no content: the question is whose it is
 * (guest_ops.hold_disks). Two never hold it, and nobody takes it back from one who lives.
 *
 * Protected guests have none; here every guest has one, and what a protection does to it says nothing.
 */
#ifndef SIM_SHARED_H
#define SIM_SHARED_H

#include "guest/guest.h"
#include "sim_runtime.h"

struct sim_shared {
    SimHost *host;
    enum guest_disk_hold hold;
    bool was_offered;
    struct sim_shared *taker; /* holds what was offered here */
    struct sim_shared *next;
};

/* Nobody has one. */
void sim_shared_init(void);
/* Of a guest of the running fiber's host: LEFT. */
void sim_shared_open(struct sim_shared *d);
void sim_shared_close(struct sim_shared *d);
bool sim_shared_hold(struct sim_shared *d, enum guest_disk_hold how, Error **errp);
/* Of a guest that takes a step. */
void sim_shared_check(const struct sim_shared *d);

#endif
