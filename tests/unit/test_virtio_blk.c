/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk: on a raw image requests, bounds, several queues, a state saved with requests in flight and a
 * takeover that issues them again; on a disk that the test holds back what is issued when, and what a reset
 * does to it.
 */
#include "golden.h"
#include "memory_block.h"
#include "virtio_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <unistd.h>

#include "block/raw.h"

#define SLOT    1
#define SECTORS 64u
#define QUEUES  2
#define FEATURES                                                                                             \
    (1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_MQ | 1ull << VIRTIO_BLK_F_DISCARD |                   \
     1ull << VIRTIO_BLK_F_WRITE_ZEROES | 1ull << VIRTIO_RING_F_EVENT_IDX |                                   \
     1ull << VIRTIO_RING_F_INDIRECT_DESC)

#define HEADER DRIVER_BUFFERS
#define DATA   (DRIVER_BUFFERS + 0x1000)
#define STATUS (DRIVER_BUFFERS + 0x800)

struct disk {
    struct fixture *f;
    Device *bridge, *device;
    struct driver d;
    char path[64];
    struct memory_block *memory; /* instead of the image */
};

static void make_image(char path[64], size_t size)
{
    int fd;

    snprintf(path, 64, "/tmp/perdure-test-blk-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static Block *open_image(struct disk *k, bool readonly, Error **errp)
{
    return block_raw_open(
        &(struct block_raw_options){
            .id = "root", .path = k->path, .readonly = readonly, .loop = k->f->host.loop},
        errp);
}

/* With the loop lock, as a machine does it. */
static void attach_block(struct disk *k, Block *top)
{
    Error *err = NULL;

    k->device = virtio_blk_new(&k->f->host, "root", SLOT, top, QUEUES, &err);
    if (!k->device)
        fail_msg("%s", error_get_pretty(err));
    driver_find(&k->d, k->f, SLOT);
}

static void attach(struct disk *k, bool readonly)
{
    Error *err = NULL;
    Block *raw = open_image(k, readonly, &err);

    if (!raw)
        fail_msg("%s", error_get_pretty(err));
    attach_block(k, raw);
}

static struct disk *new_disk(void)
{
    struct disk *k = calloc(1, sizeof(*k));

    k->f = fixture_new();
    k->bridge = pci_host_new(&k->f->host, NULL);
    make_image(k->path, SECTORS * 512);
    return k;
}

static int setup(void **state)
{
    struct disk *k = new_disk();

    attach(k, false);
    assert_true(loop_start(k->f->host.loop, NULL));
    *state = k;
    return 0;
}

/* A disk that holds back what it gets. */
static int setup_held(void **state)
{
    struct disk *k = new_disk();

    k->memory = memory_block_new("root", 32 << 20);
    k->memory->held = true;
    attach_block(k, &k->memory->block);
    assert_true(loop_start(k->f->host.loop, NULL));
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    struct disk *k = *state;

    device_destroy(k->device);
    device_destroy(k->bridge);
    unlink(k->path);
    fixture_free(k->f);
    free(k);
    return 0;
}

/* One request with its own header and status, number n of several. */
static void add_request_to(struct disk *k, unsigned queue, unsigned n, uint32_t type, uint64_t sector,
                           uint64_t data, uint32_t size)
{
    struct virtio_blk_outhdr *h = guest_ram(k->f, HEADER + 32 * n);
    struct buffer b[3] = {{HEADER + 32 * n, sizeof(*h), false}};
    unsigned count = 1;

    *h = (struct virtio_blk_outhdr){.type = type, .sector = sector};
    *(uint8_t *)guest_ram(k->f, STATUS + n) = 0xee;
    if (size)
        b[count++] = (struct buffer){data, size, type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID};
    b[count++] = (struct buffer){STATUS + n, 1, true};
    driver_add(&k->d, queue, b, count);
}

static void add_request(struct disk *k, unsigned n, uint32_t type, uint64_t sector, uint64_t data,
                        uint32_t size)
{
    add_request_to(k, 0, n, type, sector, data, size);
}

static uint8_t status(struct disk *k, unsigned n)
{
    return *(uint8_t *)guest_ram(k->f, STATUS + n);
}

static uint8_t request(struct disk *k, uint32_t type, uint64_t sector, uint64_t data, uint32_t size)
{
    add_request(k, 0, type, sector, data, size);
    driver_kick(&k->d, 0);
    eventually(driver_used_count(&k->d, 0) == 1);
    k->d.queue[0].used_seen++;
    return status(k, 0);
}

static void test_read_write(void **state)
{
    struct disk *k = *state;
    char image[1024];
    int fd;

    driver_start(&k->d, FEATURES);
    assert_int_equal(bus_read(k->f, IO_MEMORY, k->d.config, 8), SECTORS);
    memset(guest_ram(k->f, DATA), 'w', 1024);
    assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 3, DATA, 1024), VIRTIO_BLK_S_OK);
    assert_int_equal(request(k, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
    fd = open(k->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, image, 1024, 3 * 512), 1024);
    close(fd);
    assert_memory_equal(image, guest_ram(k->f, DATA), 1024);

    memset(guest_ram(k->f, DATA), 0, 1024);
    clear_dirty(k->f);
    add_request(k, 0, VIRTIO_BLK_T_IN, 4, DATA, 512);
    driver_kick(&k->d, 0);
    eventually(driver_used_count(&k->d, 0) == 1);
    assert_int_equal(driver_used(&k->d, 0).len, 513);
    assert_int_equal(status(k, 0), VIRTIO_BLK_S_OK);
    assert_memory_equal(guest_ram(k->f, DATA), image + 512, 512);
    assert_true(is_dirty(k->f, DATA) && is_dirty(k->f, STATUS));
    assert_true(k->f->msi_count > 0);

    assert_int_equal(request(k, VIRTIO_BLK_T_GET_ID, 0, DATA, 20), VIRTIO_BLK_S_OK);
    assert_string_equal(guest_ram(k->f, DATA), "root");
}

static void test_bounds(void **state)
{
    struct disk *k = *state;

    driver_start(&k->d, FEATURES);
    assert_int_equal(request(k, VIRTIO_BLK_T_IN, SECTORS - 1, DATA, 512), VIRTIO_BLK_S_OK);
    assert_int_equal(request(k, VIRTIO_BLK_T_IN, SECTORS - 1, DATA, 1024), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(k, VIRTIO_BLK_T_OUT, SECTORS, DATA, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(k, VIRTIO_BLK_T_OUT, UINT64_MAX, DATA, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(k, VIRTIO_BLK_T_OUT, UINT64_MAX / 512, DATA, 1024), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 500), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(k, 4711, 0, DATA, 512), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 3, 0, 0), VIRTIO_BLK_S_OK); /* of nothing */
    /* A request of no header or without a place for the status is none. */
    driver_add(&k->d, 0, &(struct buffer){DATA, 8, false}, 1);
    driver_kick(&k->d, 0);
    assert_true(driver_status(&k->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
    driver_start(&k->d, FEATURES);
    driver_add(&k->d, 0, &(struct buffer){DATA, 16, false}, 1);
    driver_kick(&k->d, 0);
    assert_true(driver_status(&k->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void test_readonly(void **state)
{
    struct disk *k = *state;
    Block *block;

    device_destroy(k->device);
    attach(k, true);
    assert_true(driver_offered(&k->d) & 1ull << VIRTIO_BLK_F_RO);
    assert_false(driver_offered(&k->d) & 1ull << VIRTIO_BLK_F_DISCARD);
    driver_start(&k->d, 1ull << VIRTIO_BLK_F_RO | 1ull << VIRTIO_BLK_F_FLUSH);
    assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 512), VIRTIO_BLK_S_OK);
    assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(k, VIRTIO_BLK_T_DISCARD, 0, DATA, 16), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(k, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);

    /* A device that cannot be made closes its chain. */
    loop_lock(k->f->host.loop);
    assert_null(virtio_blk_new(&k->f->host, "b", SLOT, open_image(k, true, NULL), 1, NULL));
    loop_unlock(k->f->host.loop);
    device_destroy(k->device);
    block = open_image(k, false, NULL);
    assert_non_null(block);
    loop_lock(k->f->host.loop);
    block_close(block);
    loop_unlock(k->f->host.loop);
    attach(k, false);
}

/* --- discard and write-zeroes --- */

static void put_range(struct disk *k, unsigned i, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes *r = guest_ram(k->f, DATA);

    r[i] = (struct virtio_blk_discard_write_zeroes){.sector = sector, .num_sectors = sectors, .flags = flags};
}

static void fill_image(struct disk *k, int fd)
{
    char sector[512];

    memset(sector, 'x', sizeof(sector));
    for (unsigned i = 0; i < SECTORS; i++)
        assert_int_equal(pwrite(fd, sector, 512, 512 * i), 512);
    (void)k;
}

static bool is_zero_sector(int fd, unsigned sector)
{
    char buf[512];

    assert_int_equal(pread(fd, buf, 512, 512 * sector), 512);
    for (unsigned i = 0; i < 512; i++) {
        if (buf[i] != buf[0])
            fail_msg("sector %u is half zero", sector);
    }
    return !buf[0];
}

static void test_zeroes(void **state)
{
    struct disk *k = *state;
    int fd = open(k->path, O_RDWR | O_CLOEXEC);

    driver_start(&k->d, FEATURES);
    for (unsigned unmap = 0; unmap < 3; unmap++) { /* write zeroes, the same with unmap, discard */
        fill_image(k, fd);
        put_range(k, 0, 3, 2, unmap == 1);
        put_range(k, 1, 10, 0, unmap == 1);
        put_range(k, 2, 20, SECTORS - 20, unmap == 1);
        assert_int_equal(
            request(k, unmap == 2 ? VIRTIO_BLK_T_DISCARD : VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 48),
            VIRTIO_BLK_S_OK);
        for (unsigned i = 0; i < SECTORS; i++)
            assert_int_equal(is_zero_sector(fd, i), i == 3 || i == 4 || i >= 20);
    }
    close(fd);
}

/* One range that cannot be: nothing of the request is done. */
static void test_hostile_ranges(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t sectors, flags, size;
        uint8_t status;
    } t[] = {
        {VIRTIO_BLK_T_DISCARD, SECTORS, 1, 0, 32, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, SECTORS - 1, 2, 0, 32, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, UINT64_MAX, 1, 0, 32, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, UINT64_MAX - 1, UINT32_MAX, 0, 32, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, UINT64_MAX / 512 + 1, 1, 0, 32, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0, 32, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_WRITE_ZEROES, SECTORS - 1, 2, 1, 32, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, 1, 1, 1, 32, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, 1, 1, 1u << 31, 32, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_WRITE_ZEROES, 1, 1, 2, 32, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, 1, 1, 0, 31, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, 1, 1, 0, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_WRITE_ZEROES, 1, 1, 0, 17 * 16, VIRTIO_BLK_S_IOERR},
    };
    struct disk *k = *state;
    int fd = open(k->path, O_RDWR | O_CLOEXEC);

    fill_image(k, fd);
    driver_start(&k->d, FEATURES);
    memset(guest_ram(k->f, DATA), 0, 17 * 16);
    for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        put_range(k, 0, 0, 1, 0);
        put_range(k, 1, t[i].sector, t[i].sectors, t[i].flags);
        assert_int_equal(request(k, t[i].type, 0, DATA, t[i].size), t[i].status);
        assert_false(is_zero_sector(fd, 0));
    }
    /* Not negotiated: not there. */
    driver_start(&k->d, 1ull << VIRTIO_BLK_F_FLUSH);
    put_range(k, 0, 0, 1, 0);
    assert_int_equal(request(k, VIRTIO_BLK_T_DISCARD, 0, DATA, 16), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(k, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16), VIRTIO_BLK_S_UNSUPP);
    assert_false(is_zero_sector(fd, 0));
    close(fd);
}

/* --- several queues --- */

static void test_queues(void **state)
{
    struct disk *k = *state;

    driver_start(&k->d, FEATURES);
    assert_int_equal(k->d.queues, QUEUES);
    assert_int_equal(
        bus_read(k->f, IO_MEMORY, k->d.config + offsetof(struct virtio_blk_config, num_queues), 2), QUEUES);
    memset(guest_ram(k->f, DATA), '0', 512);
    memset(guest_ram(k->f, DATA + 512), '1', 512);
    for (unsigned q = 0; q < QUEUES; q++) {
        add_request_to(k, q, q, VIRTIO_BLK_T_OUT, q, DATA + 512 * q, 512);
        driver_kick(&k->d, q);
    }
    for (unsigned q = 0; q < QUEUES; q++) {
        eventually(driver_used_count(&k->d, q) == 1);
        assert_int_equal(status(k, q), VIRTIO_BLK_S_OK);
        k->d.queue[q].used_seen++;
    }
    memset(guest_ram(k->f, DATA), 0, 1024);
    assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 1024), VIRTIO_BLK_S_OK);
    assert_int_equal(*(char *)guest_ram(k->f, DATA + 511), '0');
    assert_int_equal(*(char *)guest_ram(k->f, DATA + 512), '1');
}

/* With the loop parked nothing completes: what is saved has everything in flight, on both queues; the side
 * that loads it does it all. */
static void test_take_over(void **state)
{
    struct disk *k = *state;
    VMStream *saved, *again;
    struct driver guest;

    driver_start(&k->d, FEATURES);
    memset(guest_ram(k->f, DATA), 'A', 512);
    memset(guest_ram(k->f, DATA + 512), 'B', 512);
    loop_park(k->f->host.loop);
    add_request_to(k, 0, 0, VIRTIO_BLK_T_OUT, 5, DATA, 512);
    add_request_to(k, 1, 1, VIRTIO_BLK_T_OUT, 6, DATA + 512, 512);
    add_request_to(k, 0, 2, VIRTIO_BLK_T_IN, 7, DATA + 1024, 512);
    for (unsigned q = 0; q < QUEUES; q++) {
        driver_kick(&k->d, q);
        assert_int_equal(driver_used_count(&k->d, q), 0);
    }
    saved = state_save();

    /* The other side: its disk never saw the writes. */
    guest = k->d;
    device_destroy(k->device);
    assert_int_equal(truncate(k->path, 0), 0);
    assert_int_equal(truncate(k->path, SECTORS * 512), 0);
    attach(k, false);
    k->d = guest;
    memset(guest_ram(k->f, DATA + 1024), 'C', 512);
    state_load_ok(saved);
    again = state_save();
    state_load_ok(again);
    k->f->msi_count = 0;
    k->device->class->take_over(k->device);
    assert_int_equal(k->f->msi_count, 1 + QUEUES);
    loop_unpark(k->f->host.loop);
    eventually(driver_used_count(&k->d, 0) == 2);
    eventually(driver_used_count(&k->d, 1) == 1);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(status(k, i), VIRTIO_BLK_S_OK);
    assert_int_equal(*(char *)guest_ram(k->f, DATA + 1024), 0);
    k->d.queue[0].used_seen += 2;
    assert_int_equal(request(k, VIRTIO_BLK_T_IN, 5, DATA + 1024, 1024), VIRTIO_BLK_S_OK);
    assert_memory_equal(guest_ram(k->f, DATA + 1024), guest_ram(k->f, DATA), 1024);
    perdure_stream_close(saved);
    perdure_stream_close(again);
}

/* What was in flight at a reset completes nowhere; what comes after comes after it also on the disk. */
static void test_reset_in_flight(void **state)
{
    struct disk *k = *state;

    driver_start(&k->d, FEATURES);
    memset(guest_ram(k->f, DATA), 'A', 512);
    loop_park(k->f->host.loop);
    for (unsigned i = 0; i < 4; i++)
        add_request_to(k, i % QUEUES, i, VIRTIO_BLK_T_OUT, 0, DATA, 512);
    for (unsigned q = 0; q < QUEUES; q++)
        driver_kick(&k->d, q);
    driver_start(&k->d, FEATURES);
    loop_unpark(k->f->host.loop);
    memset(guest_ram(k->f, DATA), 'C', 512);
    assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_OK);
    assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA + 512, 512), VIRTIO_BLK_S_OK);
    assert_int_equal(*(char *)guest_ram(k->f, DATA + 512), 'C');
    assert_int_equal(driver_used_count(&k->d, 0), 0);
    assert_int_equal(driver_status(&k->d), ALL_OK);
}

/* --- a disk that holds back --- */

static unsigned held(struct disk *k)
{
    unsigned n;

    loop_lock(k->f->host.loop);
    n = k->memory->count;
    loop_unlock(k->f->host.loop);
    return n;
}

static void let_go(struct disk *k, unsigned i, int error)
{
    loop_lock(k->f->host.loop);
    memory_block_finish(k->memory, i, error);
    loop_unlock(k->f->host.loop);
}

/* The new driver's request waits until the disk is done with all of the old one's. */
static void test_reset_waits(void **state)
{
    struct disk *k = *state;

    driver_start(&k->d, FEATURES);
    memset(guest_ram(k->f, DATA), 'A', 512);
    memset(guest_ram(k->f, DATA + 512), 'B', 512);
    for (unsigned q = 0; q < QUEUES; q++) {
        add_request_to(k, q, q, VIRTIO_BLK_T_OUT, 0, DATA, 512);
        driver_kick(&k->d, q);
    }
    assert_int_equal(held(k), 2);
    driver_start(&k->d, FEATURES);
    add_request(k, 0, VIRTIO_BLK_T_OUT, 0, DATA + 512, 512);
    driver_kick(&k->d, 0);
    assert_int_equal(held(k), 2);
    let_go(k, 1, 0);
    driver_kick(&k->d, 0);
    assert_int_equal(held(k), 1);
    let_go(k, 0, EIO);
    eventually(held(k) == 1);
    let_go(k, 0, 0);
    eventually(driver_used_count(&k->d, 0) == 1);
    assert_int_equal(status(k, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(k->memory->bytes[0], 'B');
    assert_int_equal(driver_used_count(&k->d, 1), 0);
}

/* Completions in another order than the requests, and what is in flight afterwards. */
static void test_any_order(void **state)
{
    struct disk *k = *state;
    VMStream *saved;

    driver_start(&k->d, FEATURES);
    for (unsigned i = 0; i < 4; i++) {
        memset(guest_ram(k->f, DATA + 512 * i), 'A' + i, 512);
        add_request(k, i, VIRTIO_BLK_T_OUT, i, DATA + 512 * i, 512);
    }
    driver_kick(&k->d, 0);
    assert_int_equal(held(k), 4);
    let_go(k, 2, 0);
    let_go(k, 0, EIO);
    eventually(driver_used_count(&k->d, 0) == 2);
    assert_int_equal(status(k, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(status(k, 2), VIRTIO_BLK_S_OK);
    assert_int_equal(status(k, 1), 0xee);

    /* The state has the two others in flight: loaded over this very device, they are issued again, after what
     * the disk still works on. */
    loop_park(k->f->host.loop);
    saved = state_save();
    state_load_ok(saved);
    k->device->class->take_over(k->device);
    loop_unpark(k->f->host.loop);
    assert_int_equal(held(k), 2);
    let_go(k, 0, 0);
    let_go(k, 0, 0);
    eventually(held(k) == 2);
    let_go(k, 0, 0);
    let_go(k, 0, 0);
    eventually(driver_used_count(&k->d, 0) == 4);
    assert_int_equal(status(k, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(status(k, 3), VIRTIO_BLK_S_OK);
    perdure_stream_close(saved);
}

/* A driver that knows nothing of flushes has a disk without a cache. */
static void test_write_through(void **state)
{
    struct disk *k = *state;

    driver_start(&k->d, 1ull << VIRTIO_BLK_F_WRITE_ZEROES);
    add_request(k, 0, VIRTIO_BLK_T_OUT, 0, DATA, 512);
    driver_kick(&k->d, 0);
    assert_int_equal(held(k), 1);
    let_go(k, 0, 0);
    eventually(held(k) == 1);
    assert_int_equal(k->memory->waiting[0]->op, BLOCK_FLUSH);
    assert_int_equal(driver_used_count(&k->d, 0), 0);
    let_go(k, 0, EIO);
    eventually(driver_used_count(&k->d, 0) == 1);
    assert_int_equal(status(k, 0), VIRTIO_BLK_S_IOERR);

    put_range(k, 0, 0, 1, 0);
    put_range(k, 1, 8, 1, 0);
    add_request(k, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 32);
    driver_kick(&k->d, 0);
    for (unsigned i = 0; i < 3; i++) {
        eventually(held(k) == 1);
        assert_int_equal(k->memory->waiting[0]->op, i < 2 ? BLOCK_ZERO : BLOCK_FLUSH);
        let_go(k, 0, 0);
    }
    eventually(driver_used_count(&k->d, 0) == 2);
    assert_int_equal(status(k, 0), VIRTIO_BLK_S_OK);
}

/* The largest requests, by indirect tables: so many are copied at a time, the others wait, on all queues. */
static void test_copies_are_bounded(void **state)
{
    const unsigned segments = 126;
    struct disk *k = *state;
    struct vring_desc *table = guest_ram(k->f, DATA);

    driver_start(&k->d, FEATURES);
    *(struct virtio_blk_outhdr *)guest_ram(k->f, HEADER) =
        (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_OUT};
    table[0] = (struct vring_desc){.addr = HEADER, .len = 16, .flags = VRING_DESC_F_NEXT, .next = 1};
    for (unsigned i = 1; i <= segments; i++)
        table[i] = (struct vring_desc){.addr = DATA, .len = 65536, .flags = VRING_DESC_F_NEXT, .next = i + 1};
    table[segments + 1] = (struct vring_desc){.addr = STATUS, .len = 1, .flags = VRING_DESC_F_WRITE};
    for (unsigned i = 0; i < 4; i++) {
        unsigned q = i / 2;

        k->d.queue[q].desc[i % 2] = (struct vring_desc){
            .addr = DATA, .len = (segments + 2) * sizeof(table[0]), .flags = VRING_DESC_F_INDIRECT};
        driver_offer(&k->d, q, i % 2);
        driver_kick(&k->d, q);
    }
    assert_int_equal(held(k), 2);
    let_go(k, 0, 0);
    eventually(held(k) == 2);
    for (unsigned i = 0; i < 3; i++) {
        eventually(held(k) > 0);
        let_go(k, 0, 0);
    }
    eventually(driver_used_count(&k->d, 0) == 2);
    eventually(driver_used_count(&k->d, 1) == 2);
}

/* A device that goes while the disk works. */
static void test_destroy_in_flight(void **state)
{
    struct disk *k = *state;

    driver_start(&k->d, FEATURES);
    add_request(k, 0, VIRTIO_BLK_T_OUT, 0, DATA, 512);
    add_request(k, 1, VIRTIO_BLK_T_IN, 0, DATA + 512, 512);
    driver_kick(&k->d, 0);
    assert_int_equal(held(k), 2);
    device_destroy(k->device);
    assert_int_equal(status(k, 1), 0xee);
    attach(k, false);
}

/* --- saved state --- */

/* A guest of version 1 has found another device than this one: it would have one queue and no discard for ever. */
static void test_version_1(void **state)
{
    size_t size;
    uint8_t *old = golden_load("virtio-blk-1.hex", &size);
    VMStream *s = perdure_stream_open_buffer(old, size);
    Error *err = NULL;

    (void)state;
    assert_non_null(old);
    assert_false(perdure_loadvm_devices(s, &err));
    assert_non_null(strstr(error_get_pretty(err), "virtio-blk.1"));
    assert_non_null(strstr(error_get_pretty(err), "version 1"));
    error_free(err);
    perdure_stream_close(s);
    free(old);
}

/* The state of now. The first test: ids of sections count registrations of the process. */
static void test_version_2(void **state)
{
    struct disk *k = *state;
    VMStream *saved;
    const void *data;
    size_t size;

    driver_start(&k->d, FEATURES);
    loop_park(k->f->host.loop);
    add_request_to(k, 0, 0, VIRTIO_BLK_T_OUT, 5, DATA, 512);
    add_request_to(k, 1, 1, VIRTIO_BLK_T_OUT, 6, DATA, 512);
    for (unsigned q = 0; q < QUEUES; q++)
        driver_kick(&k->d, q);
    saved = state_save();
    loop_unpark(k->f->host.loop);
    data = perdure_stream_memory(saved, &size);
    assert_true(golden_matches("virtio-blk-2.hex", data, size));
    perdure_stream_close(saved);
}

static void test_other_queues(void **state)
{
    struct disk *k = *state;
    VMStream *saved = state_save();
    Error *err = NULL;

    device_destroy(k->device);
    k->device = virtio_blk_new(&k->f->host, "root", SLOT, open_image(k, false, NULL), 1, NULL);
    assert_non_null(k->device);
    assert_false(state_load(saved, &err));
    assert_non_null(strstr(error_get_pretty(err), "2 queues"));
    error_free(err);
    perdure_stream_close(saved);
}

static void test_other_disk(void **state)
{
    struct disk *k = *state;
    VMStream *saved = state_save();
    Error *err = NULL;

    device_destroy(k->device);
    assert_int_equal(truncate(k->path, 2 * SECTORS * 512), 0);
    attach(k, false);
    assert_false(state_load(saved, &err));
    assert_non_null(strstr(error_get_pretty(err), "64"));
    assert_non_null(strstr(error_get_pretty(err), "128"));
    error_free(err);
    perdure_stream_close(saved);
}

static void test_fuzz(void **state)
{
    struct disk *k = *state;
    uint8_t *ram = guest_memory_map(k->f->host.memory, 0, FIXTURE_RAM);

    srand(7);
    for (unsigned i = 0; i < 20000; i++) {
        if (i % 40 == 0)
            driver_start(&k->d, rand() & 1 ? FEATURES : 0);
        loop_lock(k->f->host.loop);
        for (unsigned n = 0; n < 6; n++) {
            uint32_t at = DRIVER_QUEUE_GPA(rand() % QUEUES) + 0x1000 * (rand() % 4) + rand() % 0x110;

            ram[at] = rand() % 4 ? rand() % 8 : rand();
            ram[HEADER + rand() % 256] = rand() % 4 ? rand() % 5 : rand();
        }
        if (rand() % 3 == 0)
            add_request_to(k, rand() % QUEUES, rand() % 8, rand() % 15, rand() % (SECTORS + 4), DATA,
                           512 * (rand() % 4));
        k->d.queue[rand() % QUEUES].avail->idx += rand() % 2;
        loop_unlock(k->f->host.loop);
        driver_kick(&k->d, rand() % QUEUES);
        if (rand() % 64 == 0) {
            VMStream *s;

            loop_park(k->f->host.loop);
            s = state_save();
            state_load_ok(s);
            k->device->class->take_over(k->device);
            loop_unpark(k->f->host.loop);
            perdure_stream_close(s);
        }
    }
}

#define WITH_IMAGE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define WITH_HELD(test)  cmocka_unit_test_setup_teardown(test, setup_held, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_IMAGE(test_version_2),
        WITH_IMAGE(test_version_1),
        WITH_IMAGE(test_read_write),
        WITH_IMAGE(test_bounds),
        WITH_IMAGE(test_readonly),
        WITH_IMAGE(test_zeroes),
        WITH_IMAGE(test_hostile_ranges),
        WITH_IMAGE(test_queues),
        WITH_IMAGE(test_take_over),
        WITH_IMAGE(test_reset_in_flight),
        WITH_IMAGE(test_other_disk),
        WITH_IMAGE(test_other_queues),
        WITH_IMAGE(test_fuzz),
        WITH_HELD(test_reset_waits),
        WITH_HELD(test_any_order),
        WITH_HELD(test_write_through),
        WITH_HELD(test_copies_are_bounded),
        WITH_HELD(test_destroy_in_flight),
    };

    return cmocka_run_group_tests_name("virtio_blk", tests, NULL, NULL);
}
