/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Node: one life of a perdure process on a simulated machine: engine, guest, transport, registries; and the
 * commands a user would type there. The scenario looks at it from outside at any time; what touches the
 * engine runs as fibers of its host.
 */
#ifndef SIM_NODE_H
#define SIM_NODE_H

#include "engine/engine.h"
#include "sim_guest.h"
#include "sim_link.h"

struct sim_node {
    SimHost *host;
    unsigned machine;
    struct registry_context *registries;
    struct transport *transport;
    struct engine_owner owner;
    Engine *engine; /* NULL until it is up, and after it was quit */
    Guest *guest;   /* the owner's: powered on here, or promoted */
    Guest *made;    /* the factory's latest */
    bool with_guest;
    bool returning; /* a machine that was started before: its disks say what it may be */
    bool only_to_run;
    bool booted, quitting, gone;
    bool ended;        /* the guest has ended, and it shows outside */
    bool told_ended;   /* by the engine */
    unsigned commands; /* under way */
    bool letting_go;   /* it was told to, and has not refused */
    unsigned die_in;   /* epochs; 0: not so */
    uint64_t die_bytes;
};

enum node_command {
    NODE_PROTECT,
    NODE_CHECK,
    NODE_UNPROTECT,
    NODE_UNPROTECT_FORCE,
    NODE_FAILOVER,
    NODE_FAILOVER_DEAD,
    NODE_SWAP,
    NODE_MIGRATE,
    NODE_MIGRATE_CANCEL,
    NODE_MIGRATE_RECOVER,
    NODE_MOVE_BACKUP
};

struct command {
    struct sim_node *node;
    enum node_command what;
    unsigned to; /* machine, of protect, migrate and migrate-backup */
    bool done, ok;
    char error[512];
};

void sim_node_init(uint64_t seed);
/* This seed has no arbiter but the user. */
bool sim_node_manual(void);
/* Powers the machine on for the first time; with a guest that runs, or as a standby. */
struct sim_node *sim_node_boot(unsigned machine, unsigned life, bool with_guest);
/* Powers it on again: its service manager or its user tries to run the guest there, or to be a standby, and then
 * the other; what the gate lets nobody do ends at once. */
struct sim_node *sim_node_return(unsigned machine, unsigned life);
/* The same, to run the guest or nothing. */
struct sim_node *sim_node_run(unsigned machine, unsigned life);
/* What the gate is asked for: fn is told of what it permits, and says what the user knows when it does not. */
struct sim_gate_watch {
    void (*admitted)(struct sim_node *n, bool standby, bool forced);
    bool (*would_force)(struct sim_node *n, bool standby);
};
void sim_node_on_gate(const struct sim_gate_watch *w);
/* Runs the command on the node. The result is the scenario's to look at, and never freed before the end. */
struct command *sim_node_command(struct sim_node *n, enum node_command what, unsigned to);
/* Ends the process in order, once its commands are done. */
void sim_node_quit(struct sim_node *n);
/* Its power is cut, or its process killed. */
void sim_node_crash(struct sim_node *n, enum sim_death how);
/* How many have crashed so far. */
unsigned sim_node_crashes(void);
void sim_node_crash_after(struct sim_node *n, uint64_t bytes);
/* The same, within the end of one of its next epochs: pages sent, the rest not, or not all of it. */
void sim_node_crash_in_epoch(struct sim_node *n, unsigned nth, uint64_t bytes);
/* For the sniffer: the host has sent the pages of an epoch. */
void sim_node_sent_pages(SimHost *h);
/* Called just before such a death; true: it lives on. */
void sim_node_on_doom(bool (*fn)(struct sim_node *n));

/* --- looked at from outside, without locks --- */
bool sim_node_alive(const struct sim_node *n); /* booted, not dead, not quitting */
enum engine_role sim_node_role(const struct sim_node *n);
enum engine_state sim_node_state(const struct sim_node *n);
/* A process that has no guest any more, and never will: it ended, or the other side runs it. */
bool sim_node_finished(const struct sim_node *n);
/* The guest executes here, or would if nobody paused it, and nobody denied it. */
bool sim_node_runs(const struct sim_node *n);
/* Postcopy: the guest runs elsewhere, and needs what is here / runs here, or is about to, and needs what is not. */
bool sim_node_serves(const struct sim_node *n);
bool sim_node_lacks(const struct sim_node *n);
/* A standby that will not claim any more, whatever comes: protection ended in order, or its successor was told. */
bool sim_node_has_let_go(const struct sim_node *n);
/* It is being made the successor of a backup, and its link to that one is not lost. */
bool sim_node_is_successor(const struct sim_node *n);
uint64_t sim_node_generation(const struct sim_node *n);
const char *sim_node_pair(const struct sim_node *n);
const char *sim_node_error(const struct sim_node *n);
/* Both are of the same protection. */
bool sim_node_same_pair(const struct sim_node *a, const struct sim_node *b);
SimGuest *sim_node_guest(const struct sim_node *n);

#endif
