/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk on a raw image: requests, bounds, several queues, a state saved with requests in flight, and a
 * takeover that issues them again.
 */
#include "golden.h"
#include "virtio_blk_fixture.h"

#include <fcntl.h>

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

/* --- saved state --- */

/* A guest of version 1 has found another device than this one: it would have one queue and no discard for
 * ever. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_IMAGE(test_version_2),      WITH_IMAGE(test_version_1),
        WITH_IMAGE(test_read_write),     WITH_IMAGE(test_bounds),
        WITH_IMAGE(test_readonly),       WITH_IMAGE(test_zeroes),
        WITH_IMAGE(test_hostile_ranges), WITH_IMAGE(test_queues),
        WITH_IMAGE(test_take_over),      WITH_IMAGE(test_reset_in_flight),
        WITH_IMAGE(test_other_disk),     WITH_IMAGE(test_other_queues),
        WITH_IMAGE(test_fuzz),
    };

    return cmocka_run_group_tests_name("virtio_blk", tests, NULL, NULL);
}
