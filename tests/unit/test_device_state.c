/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile device state: what a peer may send in frames that are whole and whose checksums are right. Every
 * device, in the middle of its work, is loaded from states with some bytes changed: it refuses, or lives with
 * it; nothing reaches outside RAM, and a good state loaded afterwards is as good as ever.
 */
#include "machine_fixture.h"

#include <stdio.h>
#include <unistd.h>

#include "block/raw.h"

#define RECORD_MAX  65536
#define RECORDS_MAX 16

struct machine {
    struct machine_fixture *m;
    char path[64];
};

struct record {
    uint16_t type;
    uint64_t id;
    size_t size;
    uint8_t body[RECORD_MAX];
};

static int setup(void **state)
{
    struct machine *w = calloc(1, sizeof(*w));
    Loop *loop;
    int fd;

    w->m = machine_fixture_new();
    loop = w->m->f->host.loop;
    snprintf(w->path, sizeof(w->path), "/tmp/perdure-test-state-XXXXXX");
    fd = mkstemp(w->path);
    assert_int_equal(ftruncate(fd, 65536), 0);
    close(fd);
    machine_fixture_add_devices(
        w->m, block_raw_open(&(struct block_raw_options){.id = "root", .path = w->path, .loop = loop}, NULL));
    assert_true(loop_start(loop, NULL));
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct machine *w = *state;

    machine_fixture_free(w->m);
    unlink(w->path);
    free(w);
    return 0;
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

static void run_on(struct machine_fixture *m)
{
    machine_fixture_take_over(m);
    machine_fixture_announce(m);
    for (unsigned i = 0; i < 64; i++)
        bus_read(m->f, IO_MEMORY, m->nic.common + rand() % 0x4000, 4);
    inb(m->f, 0x3f8);
    inb(m->f, 0x71);
    bus_read(m->f, IO_PORT, PM_TIMER, 4);
}

static void test_changed_bytes(void **state)
{
    struct machine_fixture *m = ((struct machine *)*state)->m;
    struct record *records = calloc(RECORDS_MAX, sizeof(*records)), *bad = calloc(RECORDS_MAX, sizeof(*bad));
    unsigned n, refused = 0, taken = 0;
    VMStream *good, *again;

    loop_park(m->f->host.loop);
    machine_fixture_work(m);
    good = state_save();
    n = split(good, records);
    assert_int_equal(n, MACHINE_DEVICES);
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
