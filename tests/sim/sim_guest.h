/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest without a processor: a fiber that writes pages and disks (sim_guest_disk.h), answers requests, talks to
 * its console and sometimes asks to be reset or switched off. Every step follows from its state and its input
 * alone. RAM, staging, output buffer, console gate, replicated disks and the registries under it are the
 * product's own.
 */
#ifndef SIM_GUEST_H
#define SIM_GUEST_H

#include "guest/guest.h"
#include "net/console_gate.h"
#include "net/net.h"
#include "sim_guest_disk.h"
#include "sim_observer.h"
#include "sim_world.h"

#define SIM_GUEST_PAGES 40

/* What a real machine would have in its devices and processors; saved field by field. */
struct sim_cpu {
    uint64_t step, rng;
    uint64_t frames, console; /* numbers of the last output */
    uint64_t applied[WORLD_CLIENTS], chain[WORLD_CLIENTS];
    uint64_t owed[WORLD_CLIENTS]; /* an answer, when the request is safe on the disk */
    uint64_t resets;
    struct sim_disk_state disk;
    uint32_t request; /* enum guest_request */
    uint32_t lineage;
    uint32_t waiting; /* bytes of tx that the port had no room for yet: all or none */
    struct sim_frame tx;
};

typedef struct SimGuest SimGuest;

/* Implementations of checkpoint devices, once a process. */
void sim_guest_init(uint64_t seed);
/* On the running fiber's host, not running; its devices are in the host's registries. */
SimGuest *sim_guest_new(Error **errp);
void sim_guest_free(SimGuest *g);
Guest *sim_guest_guest(SimGuest *g);
/* Power on: for the first, which no factory makes. */
void sim_guest_power_on(SimGuest *g);
/* Power on, as the program starts again from what is on the disks. certain: nothing that was told to a client may
 * be missing there. */
void sim_guest_boot(SimGuest *g, bool certain);
/* The next steps make the guest ask for this. */
void sim_guest_wish(SimGuest *g, enum guest_request what);
const struct sim_cpu *sim_guest_cpu(const SimGuest *g);
/* Part of its memory is at the source of its migration. */
bool sim_guest_lacks(const SimGuest *g);
/* May it run now, if nobody paused it? */
bool sim_guest_runs(const SimGuest *g);
/* The nth next call of an operation that can fail fails with this text. again: and the one after it, with
 * "later" before it: whoever reports that one has lost the first error (invariant 9). */
void sim_guest_fail(SimGuest *g, unsigned nth, bool again, const char *text);
/* A later failure has nothing more to hide. */
void sim_guest_fail_no_more(SimGuest *g);
/* Asked while no engine listens: a reset is carried out at once, an end is told to fn. */
void sim_guest_on_end(SimGuest *g, void (*fn)(void *opaque), void *opaque);
/* A standby's. */
struct guest_factory *sim_guest_factory(void);

#endif
