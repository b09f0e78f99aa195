/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk on a raw image: requests, bounds, locks, a state saved with requests in flight, and a takeover
 * that issues them again.
 */
#include "virtio_fixture.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <unistd.h>

#include "block/raw_image.h"

#define SLOT    1
#define SECTORS 64u
#define FEATURES                                                                                             \
    (1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC)

#define HEADER DRIVER_BUFFERS
#define DATA   (DRIVER_BUFFERS + 0x1000)
#define STATUS (DRIVER_BUFFERS + 0x800)

struct disk {
    struct fixture *f;
    Device *bridge, *device;
    struct driver d;
    char path[64];
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

static void attach(struct disk *k, bool readonly)
{
    Error *err = NULL;

    k->device = virtio_blk_new(&k->f->host, "root", SLOT, k->path, readonly, &err);
    if (!k->device)
        fail_msg("%s", error_get_pretty(err));
    driver_find(&k->d, k->f, SLOT);
}

static int setup(void **state)
{
    struct disk *k = calloc(1, sizeof(*k));

    k->f = fixture_new();
    k->bridge = pci_host_new(&k->f->host, NULL);
    make_image(k->path, SECTORS * 512);
    attach(k, false);
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
static void add_request(struct disk *k, unsigned n, uint32_t type, uint64_t sector, uint64_t data,
                        uint32_t size)
{
    struct virtio_blk_outhdr *h = guest_ram(k->f, HEADER + 32 * n);
    struct buffer b[3] = {{HEADER + 32 * n, sizeof(*h), false}};
    unsigned count = 1;

    *h = (struct virtio_blk_outhdr){.type = type, .sector = sector};
    *(uint8_t *)guest_ram(k->f, STATUS + n) = 0xee;
    if (size)
        b[count++] = (struct buffer){data, size, type != VIRTIO_BLK_T_OUT};
    b[count++] = (struct buffer){STATUS + n, 1, true};
    driver_add(&k->d, 0, b, count);
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
    /* A request of no header or without a place for the status is none. */
    driver_add(&k->d, 0, &(struct buffer){DATA, 8, false}, 1);
    driver_kick(&k->d, 0);
    assert_true(driver_status(&k->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
    driver_start(&k->d, FEATURES);
    driver_add(&k->d, 0, &(struct buffer){DATA, 16, false}, 1);
    driver_kick(&k->d, 0);
    assert_true(driver_status(&k->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void test_readonly_and_locks(void **state)
{
    struct disk *k = *state;
    Error *err = NULL;
    RawImage *reader;

    assert_null(raw_image_open("second", k->path, false, &err));
    assert_non_null(strstr(error_get_pretty(err), k->path));
    error_free(err);
    assert_null(raw_image_open("second", k->path, true, NULL));
    device_destroy(k->device);

    attach(k, true);
    reader = raw_image_open("second", k->path, true, NULL);
    assert_non_null(reader);
    assert_int_equal(raw_image_size(reader), SECTORS * 512);
    raw_image_close(reader);
    assert_null(raw_image_open("second", k->path, false, NULL));
    assert_true(driver_offered(&k->d) & 1ull << VIRTIO_BLK_F_RO);
    driver_start(&k->d, FEATURES | 1ull << VIRTIO_BLK_F_RO);
    assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 512), VIRTIO_BLK_S_OK);
    assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_IOERR);

    err = NULL;
    loop_lock(k->f->host.loop);
    assert_null(virtio_blk_new(&k->f->host, "b", 7, "/nonexistent/image", false, &err));
    assert_non_null(strstr(error_get_pretty(err), "/nonexistent/image"));
    error_free(err);
    assert_null(virtio_blk_new(&k->f->host, "b", 7, "/tmp", true, NULL));
    assert_null(virtio_blk_new(&k->f->host, "b", SLOT, k->path, true, NULL));
    loop_unlock(k->f->host.loop);
}

/* With the loop parked nothing completes: what is saved has everything in flight; the side that loads it does
 * it all, in order. */
static void test_take_over(void **state)
{
    struct disk *k = *state;
    VMStream *saved, *again;
    struct driver guest;

    driver_start(&k->d, FEATURES);
    memset(guest_ram(k->f, DATA), 'A', 512);
    memset(guest_ram(k->f, DATA + 512), 'B', 512);
    loop_park(k->f->host.loop);
    add_request(k, 0, VIRTIO_BLK_T_OUT, 5, DATA, 512);
    add_request(k, 1, VIRTIO_BLK_T_OUT, 5, DATA + 512, 512);
    add_request(k, 2, VIRTIO_BLK_T_IN, 5, DATA + 1024, 512);
    driver_kick(&k->d, 0);
    assert_int_equal(driver_used_count(&k->d, 0), 0);
    saved = state_save();

    /* The other side: its disk never saw the writes. */
    guest = k->d;
    device_destroy(k->device);
    assert_int_equal(truncate(k->path, 0), 0);
    assert_int_equal(truncate(k->path, SECTORS * 512), 0);
    attach(k, false);
    k->d = guest;
    state_load_ok(saved);
    again = state_save();
    state_load_ok(again);
    k->f->msi_count = 0;
    k->device->class->take_over(k->device);
    assert_int_equal(k->f->msi_count, 2);
    loop_unpark(k->f->host.loop);
    eventually(driver_used_count(&k->d, 0) == 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(status(k, i), VIRTIO_BLK_S_OK);
    assert_memory_equal(guest_ram(k->f, DATA + 1024), guest_ram(k->f, DATA + 512), 512);
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
        add_request(k, i, VIRTIO_BLK_T_OUT, 0, DATA, 512);
    driver_kick(&k->d, 0);
    driver_start(&k->d, FEATURES);
    loop_unpark(k->f->host.loop);
    memset(guest_ram(k->f, DATA), 'C', 512);
    assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_OK);
    assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA + 512, 512), VIRTIO_BLK_S_OK);
    assert_int_equal(*(char *)guest_ram(k->f, DATA + 512), 'C');
    assert_int_equal(driver_used_count(&k->d, 0), 0);
    assert_int_equal(driver_status(&k->d), ALL_OK);
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
            uint32_t at = DRIVER_QUEUE_GPA(0) + 0x1000 * (rand() % 4) + rand() % 0x110;

            ram[at] = rand() % 4 ? rand() % 8 : rand();
            ram[HEADER + rand() % 256] = rand() % 4 ? rand() % 5 : rand();
        }
        if (rand() % 3 == 0)
            add_request(k, rand() % 8, rand() % 9, rand() % (SECTORS + 4), DATA, 512 * (rand() % 4));
        k->d.queue[0].avail->idx += rand() % 2;
        loop_unlock(k->f->host.loop);
        driver_kick(&k->d, 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readonly_and_locks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_take_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };

    return cmocka_run_group_tests_name("virtio_blk", tests, NULL, NULL);
}
