/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated network between machines: Channels and a transport for the engine, over pipes that have
 * latency, jitter, bandwidth and a bounded window, as TCP has.
 *
 * A cut direction holds back what is on its way until it is healed (TCP sends again), and what would
 * acknowledge the other direction, so that a sender fills its window and waits. A power cut loses what had
 * not left the machine; the death of a process alone ends its connections in order. Addresses are "sim:N", N
 * the number of the machine.
 */
#ifndef SIM_LINK_H
#define SIM_LINK_H

#include "engine/engine.h"
#include "sim_runtime.h"

/* Draws the network's figures from the seed. */
void sim_link_init(uint64_t seed);

/* --- faults; machines by number --- */
void sim_link_cut(unsigned from, unsigned to);
void sim_link_heal(unsigned from, unsigned to);
bool sim_link_is_cut(unsigned from, unsigned to);
/* Every connection between the two breaks, with some of what was on its way. */
void sim_link_reset(unsigned a, unsigned b);
/* crash(h) is called when h has sent `bytes` more bytes: it must kill h. */
void sim_link_crash_after(SimHost *h, uint64_t bytes, void (*crash)(SimHost *h));
/* From now on h sends in small pieces: a tap that looks for a place to crash at is not late. */
void sim_link_send_finely(SimHost *h);
enum sim_death {
    DEATH_POWER,   /* what has not left the machine is lost, and its peers hear nothing */
    DEATH_SILENT,  /* every byte written so far arrives, and its peers hear nothing: the crash at a byte */
    DEATH_PROCESS, /* its connections end */
};
/* h is dead, or about to be. */
void sim_link_host_died(SimHost *h, enum sim_death how);

/* One a life of a machine; it listens at once. */
struct transport *sim_transport_new(SimHost *h);
void sim_transport_free(struct transport *t);

/* Sees every byte as it is sent, and again as it is read. */
struct sim_link_tap {
    void (*bytes)(SimHost *from, SimHost *to, uint64_t connection, bool read, const uint8_t *data, size_t n);
};
void sim_link_set_tap(const struct sim_link_tap *tap);

#endif
