/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest/memory.h"
#include "base/bitmap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define LOW_END      (UINT64_C(3) << 30) /* above it the hole for PCI, APICs and firmware */
#define HIGH_START   (UINT64_C(4) << 30)
#define SIZE_MAX_GIB 1024
#define FAULT_AROUND                                                                                         \
    16u /* pages that are in the file are mapped by one read of any of them, so many at a time */

static bool map_block(GuestMemory *m, uint64_t gpa, uint64_t size, Error **errp)
{
    struct ram_block *b = &m->blocks[m->block_count];
    uint64_t offset = m->block_count ? m->blocks[0].size : 0;
    void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, offset);

    if (host == MAP_FAILED) {
        error_setg_errno(errp, errno, "guest RAM: cannot map %" PRIu64 " MiB", size >> 20);
        return false;
    }
    *b = (struct ram_block){gpa, size, host, offset, offset >> GUEST_PAGE_SHIFT};
    m->block_count++;
    return true;
}

static bool map_blocks(GuestMemory *m, Error **errp)
{
    uint64_t low = m->size < LOW_END ? m->size : LOW_END;

    return map_block(m, 0, low, errp) && (m->size == low || map_block(m, HIGH_START, m->size - low, errp));
}

GuestMemory *guest_memory_new(uint64_t size, Error **errp)
{
    GuestMemory *m;

    if (!size || size % GUEST_PAGE_SIZE || size > (uint64_t)SIZE_MAX_GIB << 30) {
        error_setg(errp, "guest RAM of %" PRIu64 " bytes: not a multiple of 4 KiB up to %d GiB", size,
                   SIZE_MAX_GIB);
        return NULL;
    }
    m = calloc(1, sizeof(*m));
    if (!m) {
        error_setg_errno(errp, ENOMEM, "guest RAM");
        return NULL;
    }
    m->size = size;
    m->page_count = size >> GUEST_PAGE_SHIFT;
    m->dirty = calloc(1, bitmap_bytes(m->page_count));
    m->placed = calloc(1, bitmap_bytes(m->page_count));
    m->fd = memfd_create("perdure-ram", MFD_CLOEXEC);
    if (!m->dirty || !m->placed || m->fd < 0 || ftruncate(m->fd, size) < 0) {
        error_setg_errno(errp, errno, "guest RAM of %" PRIu64 " MiB", size >> 20);
    } else if (map_blocks(m, errp)) {
        return m;
    }
    guest_memory_free(m);
    return NULL;
}

void guest_memory_free(GuestMemory *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->block_count; i++)
        munmap(m->blocks[i].host, m->blocks[i].size);
    if (m->fd >= 0)
        close(m->fd);
    free(m->dirty);
    free(m->placed);
    free(m);
}

bool guest_memory_clear(GuestMemory *m, Error **errp)
{
    if (fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, m->size) < 0) {
        error_setg_errno(errp, errno, "guest RAM: cannot clear it");
        return false;
    }
    memset(m->dirty, 0, bitmap_bytes(m->page_count));
    memset(m->placed, 0, bitmap_bytes(m->page_count));
    return true;
}

/* The block that holds all of [gpa, gpa + len), len at least 1; written so that no sum can wrap. */
static const struct ram_block *find_block(const GuestMemory *m, uint64_t gpa, uint64_t len)
{
    for (int i = 0; i < m->block_count; i++) {
        const struct ram_block *b = &m->blocks[i];
        if (gpa >= b->gpa && len && len <= b->size && gpa - b->gpa <= b->size - len)
            return b;
    }
    return NULL;
}

void *guest_memory_map(const GuestMemory *m, uint64_t gpa, uint64_t len)
{
    const struct ram_block *b = find_block(m, gpa, len);

    return b ? b->host + (gpa - b->gpa) : NULL;
}

bool guest_memory_read(const GuestMemory *m, uint64_t gpa, void *buf, size_t len)
{
    const void *host = guest_memory_map(m, gpa, len);

    if (host)
        memcpy(buf, host, len);
    return host || !len;
}

bool guest_memory_write(GuestMemory *m, uint64_t gpa, const void *buf, size_t len)
{
    void *host = guest_memory_map(m, gpa, len);

    if (host) {
        memcpy(host, buf, len);
        guest_memory_mark_dirty(m, gpa, len);
    }
    return host || !len;
}

void guest_memory_mark_dirty(GuestMemory *m, uint64_t gpa, uint64_t len)
{
    const struct ram_block *b = find_block(m, gpa, len);
    uint64_t first, last;

    if (!b)
        return;
    first = b->first_page + ((gpa - b->gpa) >> GUEST_PAGE_SHIFT);
    last = b->first_page + ((gpa - b->gpa + len - 1) >> GUEST_PAGE_SHIFT);
    /* Not "if it is clear": a look that overtakes the write before it may see a bit that is being taken, and
     * the page be copied without that write. */
    for (uint64_t page = first; page <= last; page++)
        bitmap_set_atomic(m->dirty, page);
}

static const struct ram_block *block_of_page(const GuestMemory *m, uint64_t page)
{
    return &m->blocks[m->block_count > 1 && page >= m->blocks[1].first_page];
}

uint64_t guest_memory_page_gpa(const GuestMemory *m, uint64_t page)
{
    const struct ram_block *b = block_of_page(m, page);

    return b->gpa + ((page - b->first_page) << GUEST_PAGE_SHIFT);
}

uint8_t *guest_memory_page_host(const GuestMemory *m, uint64_t page)
{
    const struct ram_block *b = block_of_page(m, page);

    return b->host + ((page - b->first_page) << GUEST_PAGE_SHIFT);
}

static bool is_placed(const GuestMemory *m, uint64_t page)
{
    return __atomic_load_n(&m->placed[page / 64], __ATOMIC_RELAXED) & BITMAP_BIT(page);
}

/* What is in the file now is mapped as well: whoever runs here later would pay for it page by page. */
static void map_pages(const GuestMemory *m, uint64_t first, unsigned count)
{
    for (uint64_t page = first; page < first + count; page = (page / FAULT_AROUND + 1) * FAULT_AROUND)
        (void)*(volatile uint8_t *)guest_memory_page_host(m, page);
}

static bool write_pages(GuestMemory *m, uint64_t first, const void *const *pages, unsigned count)
{
    struct iovec iov[GUEST_MEMORY_RUN];
    ssize_t size = (ssize_t)count << GUEST_PAGE_SHIFT;

    for (unsigned i = 0; i < count; i++)
        iov[i] = (struct iovec){.iov_base = (void *)pages[i], .iov_len = GUEST_PAGE_SIZE};
    if (pwritev(m->fd, iov, (int)count, (off_t)(first << GUEST_PAGE_SHIFT)) != size)
        return false;
    map_pages(m, first, count);
    return true;
}

void guest_memory_place(GuestMemory *m, uint64_t first, const void *const *pages, unsigned count)
{
    bool written = !is_placed(m, first) && write_pages(m, first, pages, count);

    for (unsigned i = 0; i < count; i++) {
        if (!written)
            memcpy(guest_memory_page_host(m, first + i), pages[i], GUEST_PAGE_SIZE);
        bitmap_set_atomic(m->placed, first + i);
    }
}

void guest_memory_take_dirty(GuestMemory *m, uint64_t *out)
{
    for (size_t i = 0; i < bitmap_words(m->page_count); i++)
        out[i] |= bitmap_take_word_atomic(&m->dirty[i]);
}

/* Calls fn for each stretch of the file that has pages: the rest reads as zeroes. */
static void each_data(const GuestMemory *m, void (*fn)(void *opaque, uint64_t first, uint64_t count),
                      void *opaque)
{
    off_t data = 0, hole;

    while ((uint64_t)data < m->size) {
        data = lseek(m->fd, data, SEEK_DATA);
        if (data < 0)
            return; /* ENXIO: nothing behind here */
        hole = lseek(m->fd, data, SEEK_HOLE);
        if (hole < 0)
            hole = m->size;
        fn(opaque, data >> GUEST_PAGE_SHIFT,
           ((uint64_t)hole - data + GUEST_PAGE_SIZE - 1) >> GUEST_PAGE_SHIFT);
        data = hole;
    }
}

static void add_range(void *opaque, uint64_t first, uint64_t count)
{
    bitmap_set_range(opaque, first, count);
}

void guest_memory_populated(const GuestMemory *m, uint64_t *out)
{
    each_data(m, add_range, out);
}

struct hash {
    const GuestMemory *m;
    uint64_t sum;
};

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 29;
}

/* Eight independent lanes, so that the multiplications overlap. 0 for a page of zeroes. */
static uint64_t hash_page(const uint8_t *page)
{
    uint64_t lanes[8] = {0}, sum = 0, word;

    for (size_t i = 0; i < GUEST_PAGE_SIZE; i += sizeof(lanes)) {
        for (size_t j = 0; j < 8; j++) {
            memcpy(&word, page + i + j * sizeof(word), sizeof(word));
            lanes[j] = (lanes[j] ^ word) * UINT64_C(0x9e3779b97f4a7c15);
            lanes[j] ^= lanes[j] >> 31;
        }
    }
    for (size_t j = 0; j < 8; j++)
        sum = mix(sum + lanes[j] * (2 * j + 1));
    return sum;
}

static void hash_range(void *opaque, uint64_t first, uint64_t count)
{
    struct hash *h = opaque;

    for (uint64_t page = first; page < first + count; page++) {
        uint64_t hash = hash_page(guest_memory_page_host(h->m, page));
        if (hash) /* so that a hole and a page of zeroes are the same */
            h->sum += mix(hash + page * UINT64_C(0xff51afd7ed558ccd));
    }
}

uint64_t guest_memory_hash(const GuestMemory *m)
{
    struct hash h = {m, 0};

    each_data(m, hash_range, &h);
    return h.sum;
}
