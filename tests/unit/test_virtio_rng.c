/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-rng: bytes that arrive, a host that has none yet, drivers that ask for too much or for nonsense. */
#include "virtio_fixture.h"

#include "base/fault.h"

#define SLOT 17

struct rng {
    struct fixture *f;
    Device *bridge, *device;
    struct driver d;
};

static int setup(void **state)
{
    struct rng *r = calloc(1, sizeof(*r));

    r->f = fixture_new();
    r->bridge = pci_host_new(&r->f->host, NULL);
    r->device = virtio_rng_new(&r->f->host, SLOT, NULL);
    assert_non_null(r->device);
    driver_find(&r->d, r->f, SLOT);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rng *r = *state;

    fault_disarm_all();
    device_destroy(r->device);
    device_destroy(r->bridge);
    fixture_free(r->f);
    free(r);
    return 0;
}

static bool all_zero(struct rng *r, uint64_t gpa, size_t n)
{
    const uint8_t *p = guest_ram(r->f, gpa);

    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static void ask(struct rng *r, uint64_t gpa, uint32_t n)
{
    driver_add(&r->d, 0, &(struct buffer){gpa, n, true}, 1);
}

static void test_bytes(void **state)
{
    struct rng *r = *state;

    driver_start(&r->d, 1ull << VIRTIO_RING_F_EVENT_IDX);
    assert_int_equal(r->d.queues, 1);
    assert_int_equal(r->d.config, 0);
    ask(r, DRIVER_BUFFERS, 64);
    ask(r, DRIVER_BUFFERS + 0x1000, 64);
    clear_dirty(r->f);
    driver_kick(&r->d, 0);
    assert_int_equal(driver_used(&r->d, 0).len, 64);
    assert_int_equal(driver_used(&r->d, 0).len, 64);
    /* 2 in 2^512 of these fail. */
    assert_false(all_zero(r, DRIVER_BUFFERS, 64));
    assert_memory_not_equal(guest_ram(r->f, DRIVER_BUFFERS), guest_ram(r->f, DRIVER_BUFFERS + 0x1000), 64);
    assert_true(all_zero(r, DRIVER_BUFFERS + 64, 64));
    assert_true(is_dirty(r->f, DRIVER_BUFFERS) && is_dirty(r->f, DRIVER_BUFFERS + 0x1000));
    assert_true(is_dirty(r->f, DRIVER_QUEUE_GPA(0) + 0x3000));
    assert_int_equal(r->f->msi_count, 1);
}

/* A request for more than a piece gets a piece; a ring full of them takes more than one turn. */
static void test_bounded(void **state)
{
    struct rng *r = *state;
    unsigned turn;

    driver_start(&r->d, 0);
    for (unsigned i = 0; i < DRIVER_SIZE; i++)
        ask(r, DRIVER_BUFFERS, 0x80000);
    driver_kick(&r->d, 0);
    turn = driver_used_count(&r->d, 0);
    assert_int_equal(turn, DRIVER_SIZE);
    for (unsigned i = 0; i < turn; i++)
        assert_int_equal(driver_used(&r->d, 0).len, 1024);
    assert_true(all_zero(r, DRIVER_BUFFERS + 1024, 4096));
    /* It owes itself a look at the ring, and takes it. */
    ask(r, DRIVER_BUFFERS, 8);
    assert_int_equal(driver_used_count(&r->d, 0), 0);
    assert_true(loop_start(r->f->host.loop, NULL));
    eventually(driver_used_count(&r->d, 0) == 1);
}

/* A host without entropy holds nobody up: the request waits in the ring, also in what is saved. */
static void test_not_ready(void **state)
{
    struct rng *r = *state;
    VMStream *saved;

    driver_start(&r->d, 0);
    fault_arm("rng-not-ready", 0);
    ask(r, DRIVER_BUFFERS, 16);
    driver_kick(&r->d, 0);
    assert_true(fault_fired("rng-not-ready"));
    assert_int_equal(driver_used_count(&r->d, 0), 0);
    assert_int_equal(driver_status(&r->d), ALL_OK);
    saved = state_save();
    fault_disarm_all();
    assert_true(loop_start(r->f->host.loop, NULL));
    eventually(driver_used_count(&r->d, 0) == 1);

    /* The other side has it to answer still, and does. */
    loop_park(r->f->host.loop);
    r->d.queue[0].used->idx = 0;
    memset(guest_ram(r->f, DRIVER_BUFFERS), 0, 16);
    state_load_ok(saved);
    loop_lock(r->f->host.loop);
    r->device->class->take_over(r->device);
    loop_unlock(r->f->host.loop);
    loop_unpark(r->f->host.loop);
    assert_int_equal(driver_used_count(&r->d, 0), 1);
    assert_false(all_zero(r, DRIVER_BUFFERS, 16));
    perdure_stream_close(saved);
}

/* Each breaks the device, and only it; a reset mends it. */
static void test_hostile(void **state)
{
    static const struct buffer bad[][2] = {
        {{DRIVER_BUFFERS, 16, false}, {DRIVER_BUFFERS, 16, true}}, /* something to read */
        {{DRIVER_BUFFERS, 16, true}, {FIXTURE_RAM - 8, 16, true}}, /* half outside RAM */
        {{DRIVER_BUFFERS, 16, true}, {DRIVER_BUFFERS, 0, true}},   /* of no bytes */
        {{DRIVER_BUFFERS, 16, true}, {UINT64_MAX - 4, 16, true}},
    };
    struct rng *r = *state;

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        driver_start(&r->d, 0);
        driver_add(&r->d, 0, bad[i], 2);
        driver_kick(&r->d, 0);
        assert_int_equal(driver_status(&r->d), ALL_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
        assert_int_equal(driver_used_count(&r->d, 0), 0);
    }
    driver_start(&r->d, 0);
    r->d.queue[0].avail->idx = DRIVER_SIZE + 1; /* more than the ring holds */
    driver_kick(&r->d, 0);
    assert_true(driver_status(&r->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
    driver_start(&r->d, 0);
    ask(r, DRIVER_BUFFERS, 16);
    driver_kick(&r->d, 0);
    assert_int_equal(driver_used_count(&r->d, 0), 1);
}

static void test_state(void **state)
{
    struct rng *r = *state;
    VMStream *saved, *again;

    driver_start(&r->d, 1ull << VIRTIO_RING_F_EVENT_IDX);
    ask(r, DRIVER_BUFFERS, 16);
    driver_kick(&r->d, 0);
    saved = state_save();
    loop_lock(r->f->host.loop);
    r->device->class->reset(r->device);
    loop_unlock(r->f->host.loop);
    state_load_ok(saved);
    again = state_save();
    assert_same_state(saved, again);
    assert_int_equal(driver_status(&r->d), ALL_OK);
    perdure_stream_close(saved);
    perdure_stream_close(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
