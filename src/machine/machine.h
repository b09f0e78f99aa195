/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Machine: a KVM machine, x86-64: vCPUs, in-kernel irqchip, RAM in a memfd, the devices of device_table.c.
 * Implements Guest for the engines. One in a process: its sections are in the process-wide registry.
 *
 *     Machine *m = machine_new(&config, &err);            // or machine_new_from_stream(): a standby
 *     machine_set_listener(m, on_event, self);
 *     machine_boot(m, &err) && machine_start(m, &err);    // a standby: the engine loads, takes over, resumes
 *     ... machine_guest(m) goes to the engine ...
 *     machine_free(m);                                    // nobody uses the Guest any more
 *
 * Who may run: the processors stand still while there is a reason to: the user has not started or has stopped
 * the machine, an engine has paused it, the guest asked for its end, KVM cannot go on. The first and the
 * third are part of the saved state.
 *
 * Requests (reset, power-off, panic; a triple fault is a reset): from the moment that a device or a processor
 * makes one no processor enters the guest again; it is pending in the state. With an engine in charge
 * (guest->on_request is set) the engine is woken and nothing else happens. Without, a reset is carried out by
 * a worker of the machine, and the others are told to the listener, once.
 *
 * Threads: one a vCPU, one I/O loop (started with the first run), one worker. The functions below are called
 * by the process's main or control task, one at a time, unless they say otherwise. machine_reset,
 * machine_boot and machine_save wait for the end of a pause that an engine began.
 *
 * Files: machine.c makes it, machine_run.c pauses and resets it, machine_guest.c is the engines' view,
 * machine_host.c the devices'.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include "guest/guest.h"
#include "base/loop.h"

#define MACHINE_DISKS_MAX      8
#define MACHINE_NETS_MAX       8
#define MACHINE_CPUS_MAX       64
#define MACHINE_CHANNELS_MAX   8
#define MACHINE_DIRTY_RING_MAX 65536u

struct machine_disk {
    char id[32];
    char path[1024]; /* on this host: never in the stream */
    bool readonly;
    bool shared; /* the image is the same on both hosts of a migration; can be written, and is not copied */
};

/* It has an image of its own on each host, and what the guest writes goes to both. */
static inline bool machine_disk_is_copied(const struct machine_disk *d)
{
    return !d->readonly && !d->shared;
}

struct machine_net {
    char id[32];
    /* On this host, never in the stream: a tap that is there, or a bridge that one is made on; both empty: no
     * cable. */
    char tap[16], bridge[16];
    uint8_t mac[6];
};

/* A port of virtio-console: for the guest a device with a name, on this host a socket. */
struct machine_channel {
    char id[32];
    char name[64];    /* /dev/virtio-ports/NAME; empty only for a console */
    bool console;     /* the guest's hvc0; at most one */
    char socket[108]; /* on this host: never in the stream */
};

struct machine_config {
    char name[64];
    int cpus;
    uint64_t memory;   /* bytes */
    char cpu_model[8]; /* host, v2, v3, v4 */
    /* 0, or entries of each processor's dirty ring, a power of two from 1024 (kvm.h); on this host: never in the stream */
    uint32_t dirty_ring;
    char cmdline[2048];
    void *kernel, *initrd; /* contents, owned (malloc); initrd may be NULL */
    size_t kernel_size, initrd_size;
    int disk_count, net_count, channel_count;
    struct machine_disk disks[MACHINE_DISKS_MAX];
    struct machine_net nets[MACHINE_NETS_MAX];
    struct machine_channel channels[MACHINE_CHANNELS_MAX];
    char console[1024]; /* stdio | file:PATH | unix:PATH | null; on this host: never in the stream */
};

void machine_config_free(struct machine_config *c);

typedef struct Machine Machine;

enum machine_event {
    MACHINE_STOPPED,
    MACHINE_RUNNING,
    MACHINE_RESET,
    MACHINE_POWEROFF,
    MACHINE_PANICKED,
    MACHINE_ERROR
};

/* Borrows config only during the call. listener: any thread, must only wake somebody. */
Machine *machine_new(const struct machine_config *config, Error **errp);
/* A guest that runs elsewhere, and may come: its shared images are opened, and not this side's yet (guest_ops.hold_disks).
 * host: path, tap, socket and console of each id on this host; an id of the stream that host does not map is
 * an error by name. */
Machine *machine_new_from_stream(VMStream *f, const struct machine_config *host, Error **errp);
void machine_free(Machine *m);
void machine_set_listener(Machine *m, void (*fn)(void *opaque, enum machine_event ev), void *opaque);

Guest *machine_guest(Machine *m);
const struct machine_config *machine_get_config(const Machine *m);

/* Loads kernel, initrd, tables and registers: ready for the first instruction. */
bool machine_boot(Machine *m, Error **errp);
/* The user's run state: start/cont and stop. Stopped machines are paused by the engine like running ones. */
bool machine_start(Machine *m, Error **errp);
void machine_stop(Machine *m);
bool machine_running(const Machine *m);
/* A request of the guest (power-off, panic) or of the user, when no engine is in charge (guest->on_request is
 * NULL). */
bool machine_reset(Machine *m, Error **errp);
/* The same, asked as if the guest itself had done it: an engine in charge is told and acts on it in an
 * acknowledged epoch. */
void machine_request(Machine *m, enum guest_request what);
void machine_power_button(Machine *m);

/* Whole state to and from a stream: configuration, RAM, devices. Stopped. */
bool machine_save(Machine *m, VMStream *f, Error **errp);
Machine *machine_restore(VMStream *f, const struct machine_config *host, Error **errp);

#endif
