/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk on a disk that the test holds back: what is issued when, completions in any order, and what a
 * reset does to requests in flight.
 */
#include "virtio_blk_fixture.h"

#include <errno.h>

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

#define WITH_HELD(test) cmocka_unit_test_setup_teardown(test, setup_held, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_HELD(test_reset_waits),        WITH_HELD(test_any_order),         WITH_HELD(test_write_through),
        WITH_HELD(test_copies_are_bounded), WITH_HELD(test_destroy_in_flight),
    };

    return cmocka_run_group_tests_name("virtio_blk_flight", tests, NULL, NULL);
}
