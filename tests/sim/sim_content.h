/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Content: of each sector of a machine's disks, which write it has; compared with what the guest's disks truly
 * were whenever it was paused.
 *
 * A guest that was paused knows of each sector which of its writes is there (content.tags), but for those of
 * its writes that are in flight: each of them is there wholly or not at all. Where several in flight overlap,
 * and where one failed, any of them may be (CONTENT_LOOSE).
 */
#ifndef SIM_CONTENT_H
#define SIM_CONTENT_H

#include "sim_guest_disk.h"
#include "sim_store.h"

#define CONTENT_LOOSE 1 /* flags: any of the writes in flight, or the one before */
#define CONTENT_WILD  2 /* nobody can tell */
#define CONTENT_ENDED                                                                                        \
    4 /* LOOSE, and one of them has ended: if another does, either may have been the later one */

struct content {
    uint64_t *tags[SIM_DISKS_MAX];
    uint8_t *flags[SIM_DISKS_MAX];
};

void content_new(struct content *c);
void content_free(struct content *c);
uint64_t content_sectors(unsigned disk);
/* What is on the disks. Fails if a sector is torn. */
void content_read(struct content *c, const struct sim_store *s);

/* The guest stands still: its disks have this. */
void content_paused(uint32_t lineage, uint64_t step, const struct content *truth,
                    const struct sim_disk_state *state);
/* A guest that stands still has been reset: its disks are as before. */
void content_moved(uint32_t lineage, uint64_t from, uint64_t to);
/* A takeover from that pause: the disks of the store are exactly what they were, and safely so. */
void content_check_takeover(uint32_t lineage, uint64_t step, const struct sim_store *s);
/* The disks of a standby that was started again, after its journal was replayed: they are what they were at
 * some pause of the execution that it followed. */
void content_check_whole(const struct sim_store *s);
/* The log's last record; what must be there is. */
void content_read_log(const struct sim_store *s, struct sim_log_record *ret);
/* Every request that a client has an answer to is in the log on these disks, and the log is in order. ret: its
 * last record. */
void content_check_log(const struct sim_store *s, struct sim_log_record *ret);

#endif
