/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of Machine, for the files of this folder that make it up: machine.c (making, ending, run state),
 * machine_guest.c (what the engines see), machine_host.c (what the devices see), machine_run.c (pause, reset,
 * requests).
 *
 * Locks, in this order: loop lock, Machine.lock, the vCPU set's lock. A pause belongs to one caller from
 * machine_pause() to machine_resume(); the next one waits.
 */
#ifndef MACHINE_MACHINE_INTERNAL_H
#define MACHINE_MACHINE_INTERNAL_H

#include "machine/channels.h"
#include "machine/console.h"
#include "machine/device_table.h"
#include "machine/dirty_log.h"
#include "machine/irqchip.h"
#include "machine/machine.h"
#include "machine/throttle.h"
#include "machine/vcpu_state.h"

#define MACHINE_ANNOUNCEMENTS 6

/* Section "machine". */
struct machine_state {
    uint8_t request; /* enum guest_request: made and not carried out */
    bool running;    /* what the user wants */
};

struct Machine {
    Guest guest; /* first */
    struct machine_setup setup;
    char unprotectable[160]; /* guest.unprotectable, if any */
    struct kvm kvm;
    struct irqchip irqchip;
    struct bus bus;
    struct vcpus vcpus;
    struct vcpu_state *states[MACHINE_CPUS_MAX]; /* as last saved or loaded */
    struct dirty_log dirty;
    Loop *loop;
    bool loop_started;
    struct device_host host;
    struct device_table devices;
    Console *console;
    ConsoleGate *gate;
    struct channels channels;
    ReplicationGroup *disks;

    struct machine_state state;
    struct task_mutex lock; /* of state, paused, listener, worker's wishes */
    struct task_cond unpaused;
    bool paused;
    bool reading; /* what the next save will need of KVM; within one pause */
    void (*listener)(void *opaque, enum machine_event ev);
    void *listener_opaque;

    Task *worker;          /* carries out a reset that no engine takes care of */
    struct task_cond work; /* its own: a resume wakes nobody who does not wait for it */
    bool reset_wanted, quit;

    struct throttle throttle;
    LoopTimer *announce_timer;
    int announce_next;
    int64_t announce_begin;
    bool registered; /* sections of the state */
};

Machine *machine_of(Guest *g);
void machine_tell(Machine *m, enum machine_event ev);

/* machine_run.c */
bool machine_run_init(Machine *m, Error **errp);
void machine_run_destroy(Machine *m);
bool machine_pause(Machine *m, Error **errp);
void machine_resume(Machine *m);
/* Paused: begins to read what KVM holds (processors, irqchip), for the save that follows. */
bool machine_begin_save(Machine *m, Error **errp);
/* Paused: processors, devices, irqchip as after power-on, then kernel and tables into RAM; the request is
 * forgotten. */
bool machine_reset_paused(Machine *m, Error **errp);
/* Paused: the same without a kernel. */
bool machine_power_on_state(Machine *m, Error **errp);

/* machine_host.c */
void machine_host_init(Machine *m);
/* Takes the addresses of RAM, and those that KVM serves itself. */
bool machine_host_map_fixed(Machine *m, Error **errp);

/* machine_guest.c */
extern const struct guest_ops machine_guest_ops;
bool machine_announce_init(Machine *m, Error **errp);

#endif
