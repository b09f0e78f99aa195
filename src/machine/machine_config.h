/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration of a machine as it travels: what a standby, a migration's destination or a restore needs
 * to build the same machine, but for what belongs to each host (paths, taps, the console).
 *
 * Records, in this order (docs/wire-format.md): CONFIG, KERNEL, INITRD (absent: none), END.
 */
#ifndef MACHINE_MACHINE_CONFIG_H
#define MACHINE_MACHINE_CONFIG_H

#include "machine/cpuid.h"
#include "machine/machine.h"

enum {
    MACHINE_RECORD_CONFIG = 0x40,
    MACHINE_RECORD_KERNEL = 0x41,
    MACHINE_RECORD_INITRD = 0x42,
    MACHINE_RECORD_END = 0x4f,
};

#define MACHINE_MEMORY_MIN (UINT64_C(16) << 20)
#define MACHINE_MEMORY_MAX (UINT64_C(1) << 40)
#define MACHINE_KERNEL_MAX (UINT64_C(256) << 20)
#define MACHINE_INITRD_MAX (UINT64_C(2) << 30)

/* A configuration, and what was decided when the machine was first made. */
struct machine_setup {
    struct machine_config config;
    struct cpuid cpuid;
    uint32_t tsc_khz;
    unsigned disk_slot[MACHINE_DISKS_MAX], net_slot[MACHINE_NETS_MAX];
    unsigned rng_slot;                     /* 0: made before there was one */
    unsigned console_slot;                 /* of the channels; 0: there are none */
    uint64_t disk_size[MACHINE_DISKS_MAX]; /* 0: not known */
};

void machine_setup_free(struct machine_setup *s);
/* Deep copy of a user's configuration, checked; slots and missing MAC addresses are chosen. */
bool machine_setup_new(struct machine_setup *ret, const struct machine_config *c, Error **errp);
/* Every id of s is given its place on this host; host knows no others. The error has a line for each that is
 * amiss. */
bool machine_setup_map(struct machine_setup *s, const struct machine_config *host, Error **errp);
/* Bytes of an image or block device. */
bool machine_disk_size(const char *path, uint64_t *ret, Error **errp);

void machine_setup_save(const struct machine_setup *s, VMStream *f);
/* f is hostile; read up to the END record. */
bool machine_setup_load(struct machine_setup *ret, VMStream *f, Error **errp);

#endif
