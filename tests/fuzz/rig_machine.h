/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rig machine: a Guest of every device (machine_fixture.h), a writable disk with its replication filter, one that both
 * sides see, which is no more than the question whose it is, and no processors. A source's memory and disk change now and then while it is moved; at a destination the devices go on
 * for some turns of their loop once the guest runs.
 */
#ifndef TESTS_RIG_MACHINE_H
#define TESTS_RIG_MACHINE_H

#include "guest/guest.h"

struct rig_machine;

/* On a fiber: these three. source: with a guest in the middle of its work. */
struct rig_machine *rig_machine_new(bool source);
/* From a configuration, which is hostile. */
struct rig_machine *rig_machine_from_stream(VMStream *f, Error **errp);
void rig_machine_free(struct rig_machine *m); /* NULL is fine */

Guest *rig_machine_guest(struct rig_machine *m);
/* It is not paused, nobody tracks what it changes, its disk takes a write, and the one that both sides see is its own. */
bool rig_machine_goes_on(struct rig_machine *m);
/* Its processors did, at a destination: even for a moment. */
bool rig_machine_ran(const struct rig_machine *m);
/* Of a destination that ran: as it began; else as it is. */
uint64_t rig_machine_memory_hash(const struct rig_machine *m);
uint64_t rig_machine_disk_hash(const struct rig_machine *m);
/* Of its devices, but for those that tell the time; 0: it did not run. */
uint64_t rig_machine_device_hash(const struct rig_machine *m);

#endif
