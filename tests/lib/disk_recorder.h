/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk recorder: remembers every write, zero and flush that reaches some disks, and builds what a power cut at any
 * moment could have left on them.
 *
 *     DiskRecorder *rec = disk_recorder_new();
 *     Block *image = disk_recorder_add(rec, &memory_block_new("root", 1 << 20)->block);       // disk 0
 *     Block *log = disk_recorder_add(rec, &memory_block_new("journal", 1 << 20)->block);      // disk 1
 *     ... work on both; whenever something was promised:
 *     disk_recorder_mark(rec, epoch);
 *     block_close(image), block_close(log);                                     // the records stay
 *
 *     for (size_t moment = 0; moment <= disk_recorder_moments(rec); moment++)
 *         for (uint64_t seed = 0; seed < 10; seed++) {
 *             struct memory_block *i = disk_recorder_cut(rec, 0, moment, seed);
 *             struct memory_block *l = disk_recorder_cut(rec, 1, moment, seed);
 *             ... start again from these; nothing before disk_recorder_promised(rec, moment) may be missing
 *             fail_msg("%s", disk_recorder_describe(rec, moment));              // when something is
 *         }
 *
 * A moment is a number of things that had happened: requests submitted, requests completed, marks, on all disks, in
 * order. moment 0 is before the first, disk_recorder_moments() after the last one.
 *
 * What a cut leaves: what had completed before a flush was submitted that itself had completed, without error, is there.
 * Of everything else that was submitted (failed requests too) anything may be there: by seed
 *
 *     0   nothing of it                       1   all of it, in order
 *     n   whole requests, some missing | the same in any order | single sectors of 512 bytes, some missing |
 *         sectors in any order of their requests (now and then only the first octets of one)
 *
 * A request that is not aligned to sectors has its bytes in each sector that it touches. The same recorder, moment and
 * seed give the same image, whichever disk is asked for first; different disks have different luck.
 *
 * Threads: requests and marks from any thread; the rest when all is quiet.
 */
#ifndef TESTS_DISK_RECORDER_H
#define TESTS_DISK_RECORDER_H

#include "../unit/memory_block.h"

typedef struct DiskRecorder DiskRecorder;

DiskRecorder *disk_recorder_new(void);
/* Its disks are closed. */
void disk_recorder_free(DiskRecorder *rec);
/* A filter on next, which it takes: disk 0, 1, ... What next has now (it is read) is what a cut begins with. */
Block *disk_recorder_add(DiskRecorder *rec, Block *next);

/* What must not be missing after this moment: a number of the test's own (an epoch). */
void disk_recorder_mark(DiskRecorder *rec, uint64_t promised);
size_t disk_recorder_moments(DiskRecorder *rec);
/* The last mark at this moment; 0: none. */
uint64_t disk_recorder_promised(DiskRecorder *rec, size_t moment);
/* What a cut at this moment leaves of a disk, as a new disk of the same name; block_close() ends it. */
struct memory_block *disk_recorder_cut(DiskRecorder *rec, unsigned disk, size_t moment, uint64_t seed);
/* "moment 17 of 40, after: journal: write of 4096 bytes at 8192 completed". Valid until the next call. */
const char *disk_recorder_describe(DiskRecorder *rec, size_t moment);

#endif
