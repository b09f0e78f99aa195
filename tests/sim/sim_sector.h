/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sector: what a simulated guest writes to its disks. Each says where it belongs and which write made it (its
 * tag), and has a checksum: whoever looks at a disk knows of each sector what it is, or that it is torn.
 */
#ifndef SIM_SECTOR_H
#define SIM_SECTOR_H

#include "sim_medium.h"
#include "sim_world.h"

/* A record of the guest's log: what it knows of its clients. */
struct sim_log_record {
    uint64_t number;   /* 1, 2, 3, ...; 0: this sector is no record */
    uint64_t flushed;  /* all up to this number were on the medium before it was written */
    uint64_t previous; /* digest of the record before: what was lost once, and written anew, is another */
    uint64_t applied[WORLD_CLIENTS], chain[WORLD_CLIENTS];
};

uint64_t sim_log_digest(const struct sim_log_record *r);

void sector_make(uint8_t *buf, unsigned disk, uint64_t sector, uint64_t tag, const struct sim_log_record *r);
/* The write that made it; 0: all zero. r (may be NULL) gets its record. */
uint64_t sector_tag(const uint8_t *buf, unsigned disk, uint64_t sector, struct sim_log_record *r);

#endif
