/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile device state: what a peer may send in frames that are whole and whose checksums are right. Every
 * device, in the middle of its work, is loaded from states with some bytes changed: it refuses, or lives with
 * it; nothing reaches outside RAM, and a good state loaded afterwards is as good as ever.
 */
#include "virtio_fixture.h"

#include <stdio.h>
#include <unistd.h>

#include "block/raw.h"

#define DISK_SLOT   1
#define NIC_SLOT    2
#define RNG_SLOT    17
#define PORTS_SLOT  18
#define DEVICES     8
#define RECORD_MAX  65536
#define RECORDS_MAX 16

static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};

struct machine {
    struct fixture *f;
    ConsoleGate *gate, *hvc;
    Device *devices[DEVICES];
    struct driver disk, nic, rng, ports;
    char path[64];
};

struct record {
    uint16_t type;
    uint64_t id;
    size_t size;
    uint8_t body[RECORD_MAX];
};

static void discard(void *opaque, const void *buf, size_t n)
{
    (void)opaque, (void)buf, (void)n;
}

static size_t little_room(void *opaque)
{
    (void)opaque;
    return 10;
}

static void nothing(void *opaque)
{
    (void)opaque;
}

static int setup(void **state)
{
    struct machine *m = calloc(1, sizeof(*m));
    struct console_port ports[2] = {{.console = true, .room = nothing, .cut = nothing},
                                    {.name = "agent", .room = nothing, .cut = nothing}};
    struct device_host *h;
    int fd;

    m->f = fixture_new();
    h = &m->f->host;
    snprintf(m->path, sizeof(m->path), "/tmp/perdure-test-state-XXXXXX");
    fd = mkstemp(m->path);
    assert_int_equal(ftruncate(fd, 65536), 0);
    close(fd);
    m->gate = console_gate_new("console", discard, NULL, 4096, NULL);
    m->devices[0] = serial_new(h, m->gate, NULL);
    m->devices[1] = rtc_new(h, NULL);
    m->devices[2] = pm_new(h, NULL);
    m->devices[3] = pci_host_new(h, NULL);
    m->devices[4] = virtio_blk_new(
        h, "root", DISK_SLOT,
        block_raw_open(&(struct block_raw_options){.id = "root", .path = m->path, .loop = h->loop}, NULL), 2,
        NULL);
    m->devices[5] = virtio_net_new(h, "net0", NIC_SLOT, mac, net_null_open("net0"), NULL);
    m->devices[6] = virtio_rng_new(h, RNG_SLOT, NULL);
    m->hvc = console_gate_new("hvc", discard, NULL, 4096, NULL);
    console_gate_set_room(m->hvc, little_room);
    ports[0].gate = ports[1].gate = m->hvc;
    m->devices[7] = virtio_console_new(h, PORTS_SLOT, ports, 2, NULL);
    for (unsigned i = 0; i < DEVICES; i++)
        assert_non_null(m->devices[i]);
    assert_true(loop_start(h->loop, NULL));
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    struct machine *m = *state;

    for (unsigned i = DEVICES; i--;)
        device_destroy(m->devices[i]);
    console_gate_free(m->gate);
    console_gate_free(m->hvc);
    unlink(m->path);
    fixture_free(m->f);
    free(m);
    return 0;
}

/* A guest in the middle of things: requests at the disk, buffers at the NIC, bytes typed. */
static void work(struct machine *m)
{
    driver_find(&m->disk, m->f, DISK_SLOT);
    driver_start(&m->disk, driver_offered(&m->disk));
    for (unsigned i = 0; i < 3; i++) {
        driver_add(&m->disk, 0,
                   (struct buffer[]){{DRIVER_BUFFERS, 16, false},
                                     {DRIVER_BUFFERS + 512, 512, true},
                                     {DRIVER_BUFFERS + 100, 1, true}},
                   3);
    }
    driver_kick(&m->disk, 0);
    /* Its queues lie where the disk's are, which no driver does and no device minds. */
    driver_find(&m->nic, m->f, NIC_SLOT);
    driver_start(&m->nic, driver_offered(&m->nic));
    driver_add(&m->nic, 0, &(struct buffer){DRIVER_BUFFERS + 0x1000, 1526, true}, 1);
    driver_kick(&m->nic, 0);
    driver_find(&m->rng, m->f, RNG_SLOT);
    driver_start(&m->rng, driver_offered(&m->rng));
    driver_add(&m->rng, 0, &(struct buffer){DRIVER_BUFFERS + 0x1000, 64, true}, 1);
    driver_kick(&m->rng, 0);
    driver_find(&m->ports, m->f, PORTS_SLOT);
    driver_start(&m->ports, driver_offered(&m->ports));
    driver_add(&m->ports, 5, &(struct buffer){DRIVER_BUFFERS, 64, false}, 1);
    driver_kick(&m->ports, 5);
    serial_input(m->devices[0], "typed", 5);
}

static unsigned split(VMStream *saved, struct record *records)
{
    size_t size;
    const void *data = perdure_stream_memory(saved, &size);
    VMStream *s = perdure_stream_open_buffer(data, size);
    unsigned n = 0;

    while (perdure_stream_next(s, &records[n].type, &records[n].id)) {
        records[n].size = perdure_stream_left(s);
        assert_true(records[n].size <= RECORD_MAX);
        assert_true(perdure_stream_get_buffer(s, records[n].body, records[n].size));
        perdure_stream_done(s);
        assert_true(++n < RECORDS_MAX);
    }
    assert_int_equal(perdure_stream_error(s, NULL), 0);
    perdure_stream_close(s);
    return n;
}

static VMStream *join(const struct record *records, unsigned n)
{
    VMStream *s = perdure_stream_open_memory(65536);

    for (unsigned i = 0; i < n; i++) {
        perdure_stream_begin(s, records[i].type, records[i].id);
        perdure_stream_put_buffer(s, records[i].body, records[i].size);
        perdure_stream_end(s);
    }
    return s;
}

static uint8_t changed(uint8_t v)
{
    static const uint8_t nasty[] = {0, 1, 2, 0x7f, 0x80, 0xff};

    switch (rand() % 3) {
    case 0:
        return v ^ 1 << rand() % 8;
    case 1:
        return nasty[rand() % sizeof(nasty)];
    default:
        return rand();
    }
}

static void run_on(struct machine *m)
{
    for (unsigned i = 0; i < DEVICES; i++) {
        if (m->devices[i]->class->take_over)
            m->devices[i]->class->take_over(m->devices[i]);
        if (m->devices[i]->class->announce)
            m->devices[i]->class->announce(m->devices[i]);
    }
    for (unsigned i = 0; i < 64; i++)
        bus_read(m->f, IO_MEMORY, m->nic.common + rand() % 0x4000, 4);
    inb(m->f, 0x3f8);
    inb(m->f, 0x71);
    bus_read(m->f, IO_PORT, PM_TIMER, 4);
}

static void test_changed_bytes(void **state)
{
    struct machine *m = *state;
    struct record *records = calloc(RECORDS_MAX, sizeof(*records)), *bad = calloc(RECORDS_MAX, sizeof(*bad));
    unsigned n, refused = 0, taken = 0;
    VMStream *good, *again;

    loop_park(m->f->host.loop);
    work(m);
    good = state_save();
    n = split(good, records);
    assert_int_equal(n, DEVICES);
    srand(8);
    for (unsigned i = 0; i < 20000; i++) {
        unsigned which = rand() % n, changes = 1 + rand() % 3;
        Error *err = NULL;

        memcpy(bad, records, n * sizeof(*bad));
        for (unsigned k = 0; k < changes; k++) {
            uint8_t *at = &bad[which].body[rand() % bad[which].size];

            *at = changed(*at);
        }
        again = join(bad, n);
        if (state_load(again, &err)) {
            taken++;
            run_on(m);
        } else {
            refused++;
            assert_non_null(err);
            error_free(err);
        }
        perdure_stream_close(again);
        if (i % 16 == 0) { /* what the devices ask of the loop, they get */
            loop_unpark(m->f->host.loop);
            loop_park(m->f->host.loop);
        }
    }
    assert_true(refused > 1000 && taken > 1000);
    state_load_ok(good);
    again = state_save();
    assert_same_state(good, again);
    loop_unpark(m->f->host.loop);
    perdure_stream_close(again);
    perdure_stream_close(good);
    free(records);
    free(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_changed_bytes, setup, teardown),
    };

    return cmocka_run_group_tests_name("device_state", tests, NULL, NULL);
}
