/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Vm: this process's one VM, in either role: its machine, its engine, its control socket, and what makes the
 * process end.
 *
 *     vm = vm_new(&options, &err);      // builds everything; a standby has no machine yet
 *     status = vm_run(vm);              // until the guest ends, the user quits, or a signal comes
 *     vm_free(vm);
 *
 * Threads: vm_run() is the main task: it broadcasts events and ends the process. Commands run on the control
 * clients' tasks; those that change the machine hold vm->lock. Callbacks of machine and engine only queue and
 * wake the main task.
 */
#ifndef CONTROL_VM_H
#define CONTROL_VM_H

#include "engine/engine.h"
#include "engine/transport_socket.h"
#include "machine/machine.h"

#include <jansson.h>

struct vm_listen {
    char address[256]; /* "shared": what this host's dispatcher hands over */
    char psk[1024];    /* empty: none */
    bool insecure;
    char arbiter[1100]; /* the only one accepted from a primary; empty: any, but see listen_arbiter() */
};

struct vm_options {
    struct machine_config machine; /* of a standby: name, and what each id of the stream is on this host */
    bool standby;
    struct vm_listen listen; /* standby, or a run that may become one: address empty: not yet */
    bool force_stale;        /* disks whatever their records say */
    int64_t idle_ns;    /* of a standby: it ends when no primary came for so long; 0: it waits for ever */
    bool paused;        /* run: wait for `resume` */
    char restore[1024]; /* state file to begin from */
    char save_on_exit[1024];
};

typedef struct Vm Vm;

Vm *vm_new(const struct vm_options *options, Error **errp);
/* The process's exit status: 0 the guest powered off or was moved to another host, or the user quit; 1 anything else. */
int vm_run(Vm *vm);
void vm_free(Vm *vm);

/* --- for the commands (control/qmp_commands.c) --- */
Engine *vm_engine(Vm *vm);
/* The machine that runs here. NULL with errp while this process is a backup. Valid while vm_lock() is held.
 */
Machine *vm_machine(Vm *vm, Error **errp);
void vm_lock(Vm *vm);
void vm_unlock(Vm *vm);
struct transport *vm_transport(Vm *vm);
const struct vm_options *vm_get_options(const Vm *vm);
/* Be reachable as a standby, from now on and once; l was checked (control/listen.h). */
bool vm_start_listening(Vm *vm, const struct vm_listen *l, Error **errp);
/* Where, with the port really bound; borrowed. "": nowhere. */
const char *vm_listens_at(Vm *vm);
/* "running", "paused", "shutdown", "guest-panicked", "inmigrate" (a standby): QMP's RunState. */
const char *vm_run_state(Vm *vm);
/* The process ends soon: the main task saves the state (save_on_exit) and returns. */
void vm_quit(Vm *vm);
/* To the control clients, by the main task. data is taken; NULL is fine. */
void vm_event(Vm *vm, const char *event, json_t *data);

#endif
