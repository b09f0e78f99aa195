/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listening: where a VM's process can be reached as a standby, and what it accepts there. From the beginning
 * (`standby`, `run --listen`), or later (perdure-listen): after a swap the process that ran the guest first
 * is the backup, and a primary whose link broke must be able to come again.
 */
#ifndef CONTROL_LISTEN_H
#define CONTROL_LISTEN_H

#include "control/vm.h"

/* What can be said without trying: addresses of other hosts need a key or insecure; the arbiter exists here.
 */
bool listen_check(const struct vm_listen *l, Error **errp);
/* The only arbiter that a primary may name; empty: any. Without a key a primary is anybody, and does not
 * choose the program that this host runs. */
const char *listen_arbiter(const struct vm_listen *l);
/* perdure-listen: a qmp_command's run; opaque is the Vm. */
bool listen_command(void *opaque, json_t *args, json_t **ret_result, Error **errp);

#endif
