/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The world outside: clients that number their requests and resend them, and the observer of everything that
 * leaves a host.
 *
 * A frame from a client reaches the guest's port on every host (the worst that a network can do); what comes
 * out of any host is checked against the guest's history before the clients see it. The answer to request k
 * carries the chain of all requests up to k: a guest that forgot an answered request, or applied one twice,
 * is found by the next answer.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "net/net.h"
#include "sim_runtime.h"

#define WORLD_CLIENTS 2

enum frame_kind { FRAME_REQUEST = 1, FRAME_ANSWER, FRAME_GAP, FRAME_BEACON, FRAME_ANNOUNCE };

/* All that there is on this network; no virtio header. */
struct sim_frame {
    uint32_t kind;
    uint32_t client;
    uint64_t request; /* number; GAP: the one that the guest expects */
    uint64_t chain;
    uint64_t number; /* of what this guest sent */
    uint64_t step;
    uint32_t lineage;
    uint32_t padding;
};

/* The console's bytes travel with what the observer needs. */
struct sim_console_record {
    uint64_t number, step;
    uint32_t lineage;
    uint32_t padding;
};

/* The chain after request k of a client. */
uint64_t world_chain(uint64_t chain, uint32_t client, uint64_t k);

/* The cable of a host's NIC. */
NetPort *world_port_new(SimHost *h);
/* The cable of its console. */
void world_console(void *host, const void *buf, size_t n);

/* Starts the clients as fibers of h. */
void world_start(SimHost *h, uint64_t seed);
/* Clients send nothing new any more. */
void world_stop(void);
/* The client's last request that it has an answer to. */
uint64_t world_answered(uint32_t client);
/* Requests answered so far, of each client's own count the smallest. */
uint64_t world_progress(void);

#endif
