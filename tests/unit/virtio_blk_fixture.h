/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A virtio-blk device with a driver, on a raw image (setup) or on a memory block that holds back what it gets
 * (setup_held), and requests to it.
 */
#ifndef TESTS_VIRTIO_BLK_FIXTURE_H
#define TESTS_VIRTIO_BLK_FIXTURE_H

#include "memory_block.h"
#include "virtio_fixture.h"

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

static inline void make_image(char path[64], size_t size)
{
    int fd;

    snprintf(path, 64, "/tmp/perdure-test-blk-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static inline Block *open_image(struct disk *k, bool readonly, Error **errp)
{
    return block_raw_open(
        &(struct block_raw_options){
            .id = "root", .path = k->path, .readonly = readonly, .loop = k->f->host.loop},
        errp);
}

/* With the loop lock, as a machine does it. */
static inline void attach_block(struct disk *k, Block *top)
{
    Error *err = NULL;

    k->device = virtio_blk_new(&k->f->host, "root", SLOT, top, QUEUES, &err);
    if (!k->device)
        fail_msg("%s", error_get_pretty(err));
    driver_find(&k->d, k->f, SLOT);
}

static inline void attach(struct disk *k, bool readonly)
{
    Error *err = NULL;
    Block *raw = open_image(k, readonly, &err);

    if (!raw)
        fail_msg("%s", error_get_pretty(err));
    attach_block(k, raw);
}

static inline struct disk *new_disk(void)
{
    struct disk *k = calloc(1, sizeof(*k));

    k->f = fixture_new();
    k->bridge = pci_host_new(&k->f->host, NULL);
    make_image(k->path, SECTORS * 512);
    return k;
}

static inline int setup(void **state)
{
    struct disk *k = new_disk();

    attach(k, false);
    assert_true(loop_start(k->f->host.loop, NULL));
    *state = k;
    return 0;
}

/* A disk that holds back what it gets. */
static inline int setup_held(void **state)
{
    struct disk *k = new_disk();

    k->memory = memory_block_new("root", 32 << 20);
    k->memory->held = true;
    attach_block(k, &k->memory->block);
    assert_true(loop_start(k->f->host.loop, NULL));
    *state = k;
    return 0;
}

static inline int teardown(void **state)
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
static inline void add_request_to(struct disk *k, unsigned queue, unsigned n, uint32_t type, uint64_t sector,
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

static inline void add_request(struct disk *k, unsigned n, uint32_t type, uint64_t sector, uint64_t data,
                               uint32_t size)
{
    add_request_to(k, 0, n, type, sector, data, size);
}

static inline uint8_t status(struct disk *k, unsigned n)
{
    return *(uint8_t *)guest_ram(k->f, STATUS + n);
}

static inline uint8_t request(struct disk *k, uint32_t type, uint64_t sector, uint64_t data, uint32_t size)
{
    add_request(k, 0, type, sector, data, size);
    driver_kick(&k->d, 0);
    eventually(driver_used_count(&k->d, 0) == 1);
    k->d.queue[0].used_seen++;
    return status(k, 0);
}

/* The i-th range of a discard or write-zeroes. */
static inline void put_range(struct disk *k, unsigned i, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes *r = guest_ram(k->f, DATA);

    r[i] = (struct virtio_blk_discard_write_zeroes){.sector = sector, .num_sectors = sectors, .flags = flags};
}

#endif
