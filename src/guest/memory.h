/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * GuestMemory: the guest's RAM, and the bitmap of pages that devices wrote.
 *
 * Devices reach RAM only through here: every guest physical address and length is checked; what is outside
 * RAM is NULL. One block below the 3 GiB hole and one from 4 GiB up, both in one memfd. A device marks pages
 * dirty AFTER the data landed and BEFORE the used index shows it.
 */
#ifndef GUEST_MEMORY_H
#define GUEST_MEMORY_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_PAGE_SIZE  4096u
#define GUEST_PAGE_SHIFT 12

struct ram_block {
    uint64_t gpa;
    uint64_t size; /* bytes, a multiple of the page size */
    uint8_t *host;
    uint64_t file_offset; /* in the memfd */
    uint64_t first_page;  /* index of its first page among all RAM pages */
};

typedef struct GuestMemory {
    struct ram_block blocks[2];
    int block_count;
    uint64_t size; /* of all blocks */
    uint64_t page_count;
    int fd;           /* memfd, MAP_SHARED */
    uint64_t *dirty;  /* device bitmap, one bit a page index; set atomically */
    uint64_t *placed; /* private: guest_memory_place() has put them since the last clear; set atomically */
} GuestMemory;

GuestMemory *guest_memory_new(uint64_t size, Error **errp);
void guest_memory_free(GuestMemory *m);
/* Every byte zero, memory given back to the host. Nobody else may be using it. */
bool guest_memory_clear(GuestMemory *m, Error **errp);

/* Host address of [gpa, gpa+len), which must lie in one block; NULL otherwise. len 0 is NULL. */
void *guest_memory_map(const GuestMemory *m, uint64_t gpa, uint64_t len);
/* Copy with checks; a write marks dirty. */
bool guest_memory_read(const GuestMemory *m, uint64_t gpa, void *buf, size_t len);
bool guest_memory_write(GuestMemory *m, uint64_t gpa, const void *buf, size_t len);
void guest_memory_mark_dirty(GuestMemory *m, uint64_t gpa, uint64_t len);
/* Whole pages, one after the other from first on, of a guest that does not run here; marks nothing dirty. By several tasks at once, each
 * with pages of its own. What was never touched goes into the file and not through the mapping: a page fault for each costs more than
 * all the rest of taking a page in. pages: GUEST_MEMORY_RUN at most. */
#define GUEST_MEMORY_RUN 64
void guest_memory_place(GuestMemory *m, uint64_t first, const void *const *pages, unsigned count);
/* Page index <-> address. */
uint64_t guest_memory_page_gpa(const GuestMemory *m, uint64_t page);
uint8_t *guest_memory_page_host(const GuestMemory *m, uint64_t page);
/* Adds the device bitmap to out and clears it. Also the pages of the file that exist at all (holes are zero
 * pages). */
void guest_memory_take_dirty(GuestMemory *m, uint64_t *out);
void guest_memory_populated(const GuestMemory *m, uint64_t *out);
/* CRC-64 or similar strong 64-bit hash of all RAM, the same on both sides for the same content. */
uint64_t guest_memory_hash(const GuestMemory *m);

#endif
