/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-console: ports told and named, bytes in both directions, output that waits for its gate, drivers
 * that lie, and a takeover in the middle of a chain.
 */
#include "virtio_fixture.h"

#include <linux/virtio_console.h>
#include <perdure/checkpoint_device.h>

#define SLOT      18
#define MULTIPORT (1ull << VIRTIO_CONSOLE_F_MULTIPORT)
#define LIMIT     4096

enum { CONTROL_IN = 2, CONTROL_OUT = 3 };
enum { CONSOLE, AGENT, PORTS }; /* ports */
#define INPUT_OF(port)  ((port) ? 2 + 2 * (port) : 0)
#define OUTPUT_OF(port) (INPUT_OF(port) + 1)

struct end {
    ConsoleGate *gate;
    char out[3 * LIMIT];
    size_t out_size;
    size_t room;
    unsigned rooms, cuts;
};

struct channels_fixture {
    struct fixture *f;
    Device *bridge, *device;
    struct end ends[PORTS];
    struct driver d;
};

static void end_write(void *opaque, const void *buf, size_t n)
{
    struct end *e = opaque;

    assert_true(e->out_size + n < sizeof(e->out));
    memcpy(e->out + e->out_size, buf, n);
    e->out_size += n;
}

static size_t end_room(void *opaque)
{
    return ((struct end *)opaque)->room;
}

static void count_room(void *opaque)
{
    ((struct end *)opaque)->rooms++;
}

static void count_cut(void *opaque)
{
    ((struct end *)opaque)->cuts++;
}

static Device *make_device(struct channels_fixture *c, bool with_console)
{
    struct console_port ports[PORTS] = {{.console = true}, {.name = "org.perdure.agent"}};

    for (unsigned i = 0; i < PORTS; i++) {
        ports[i].gate = i == CONSOLE && !with_console ? NULL : c->ends[i].gate;
        ports[i].room = count_room;
        ports[i].cut = count_cut;
        ports[i].opaque = &c->ends[i];
    }
    return virtio_console_new(&c->f->host, SLOT, ports, PORTS, NULL);
}

static int setup(void **state)
{
    struct channels_fixture *c = calloc(1, sizeof(*c));

    c->f = fixture_new();
    c->bridge = pci_host_new(&c->f->host, NULL);
    for (unsigned i = 0; i < PORTS; i++) {
        c->ends[i].gate = console_gate_new(i ? "agent" : "hvc", end_write, &c->ends[i], LIMIT, NULL);
        assert_non_null(c->ends[i].gate);
        console_gate_set_room(c->ends[i].gate, end_room);
        c->ends[i].room = SIZE_MAX;
    }
    c->device = make_device(c, true);
    assert_non_null(c->device);
    driver_find(&c->d, c->f, SLOT);
    *state = c;
    return 0;
}

static int teardown(void **state)
{
    struct channels_fixture *c = *state;

    checkpoint_devices_teardown(true);
    device_destroy(c->device);
    device_destroy(c->bridge);
    for (unsigned i = 0; i < PORTS; i++)
        console_gate_free(c->ends[i].gate);
    fixture_free(c->f);
    free(c);
    return 0;
}

/* --- the driver --- */

static void say(struct channels_fixture *c, uint32_t port, uint16_t event, uint16_t value)
{
    struct virtio_console_control *m = guest_ram(c->f, DRIVER_BUFFERS);

    *m = (struct virtio_console_control){port, event, value};
    driver_add(&c->d, CONTROL_OUT, &(struct buffer){DRIVER_BUFFERS, sizeof(*m), false}, 1);
    driver_kick(&c->d, CONTROL_OUT);
}

static void give_control_buffers(struct channels_fixture *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        driver_add(&c->d, CONTROL_IN,
                   &(struct buffer){DRIVER_BUFFERS + 0x1000 + 256 * (c->d.queue[CONTROL_IN].next_desc % 8),
                                    256, true},
                   1);
    driver_kick(&c->d, CONTROL_IN);
}

/* The next message, which must be this one. */
static void heard(struct channels_fixture *c, uint32_t port, uint16_t event, uint16_t value, const char *text)
{
    struct vring_used_elem e = driver_used(&c->d, CONTROL_IN);
    uint64_t gpa = c->d.queue[CONTROL_IN].desc[e.id].addr;
    struct virtio_console_control *m = guest_ram(c->f, gpa);

    assert_int_equal(m->id, port);
    assert_int_equal(m->event, event);
    assert_int_equal(m->value, value);
    assert_int_equal(e.len, sizeof(*m) + strlen(text));
    assert_memory_equal(m + 1, text, strlen(text));
    assert_true(is_dirty(c->f, gpa));
}

static void start(struct channels_fixture *c)
{
    driver_start(&c->d, MULTIPORT | 1ull << VIRTIO_RING_F_EVENT_IDX);
    give_control_buffers(c, 8);
    say(c, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    heard(c, CONSOLE, VIRTIO_CONSOLE_PORT_ADD, 1, "");
    heard(c, AGENT, VIRTIO_CONSOLE_PORT_ADD, 1, "");
    say(c, CONSOLE, VIRTIO_CONSOLE_PORT_READY, 1);
    heard(c, CONSOLE, VIRTIO_CONSOLE_CONSOLE_PORT, 1, "");
    say(c, AGENT, VIRTIO_CONSOLE_PORT_READY, 1);
    heard(c, AGENT, VIRTIO_CONSOLE_PORT_NAME, 1, "org.perdure.agent");
    assert_int_equal(driver_used_count(&c->d, CONTROL_IN), 0);
    give_control_buffers(c, 4);
}

static void write_port(struct channels_fixture *c, unsigned port, size_t n, uint8_t fill)
{
    uint64_t gpa = DRIVER_BUFFERS + 0x2000 + 0x4000 * port;

    memset(guest_ram(c->f, gpa), fill, n);
    driver_add(&c->d, OUTPUT_OF(port),
               (struct buffer[]){{gpa, n / 2, false}, {gpa + n / 2, n - n / 2, false}}, 2);
    driver_kick(&c->d, OUTPUT_OF(port));
}

static void offer_input(struct channels_fixture *c, unsigned port, uint32_t n)
{
    driver_add(&c->d, INPUT_OF(port), &(struct buffer){DRIVER_BUFFERS + 0xc000 + 0x1000 * port, n, true}, 1);
    driver_kick(&c->d, INPUT_OF(port));
}

static size_t input(struct channels_fixture *c, unsigned port, const char *text)
{
    size_t n;

    loop_lock(c->f->host.loop);
    n = virtio_console_input(c->device, port, text, strlen(text));
    loop_unlock(c->f->host.loop);
    return n;
}

static void set_open(struct channels_fixture *c, unsigned port, bool open)
{
    loop_lock(c->f->host.loop);
    virtio_console_set_open(c->device, port, open);
    loop_unlock(c->f->host.loop);
}

static void assert_broken(struct channels_fixture *c)
{
    assert_int_equal(driver_status(&c->d), ALL_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* --- tests --- */

static void test_ports(void **state)
{
    struct channels_fixture *c = *state;

    assert_int_equal(bus_read(c->f, IO_MEMORY, c->d.config + 4, 4), PORTS);
    start(c);
    assert_int_equal(c->d.queues, 2 + 2 * PORTS);
    set_open(c, AGENT, true);
    heard(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 1, "");
    set_open(c, AGENT, false);
    heard(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 0, "");
    /* A driver that knows of one port is not told of more, and reads and writes that one. */
    driver_start(&c->d, 0);
    say(c, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    give_control_buffers(c, 2);
    assert_int_equal(driver_used_count(&c->d, CONTROL_IN), 0);
    write_port(c, CONSOLE, 10, 'x');
    assert_int_equal(c->ends[CONSOLE].out_size, 10);
    write_port(c, AGENT, 10, 'x');
    assert_int_equal(c->ends[AGENT].out_size, 0);
    offer_input(c, CONSOLE, 16);
    assert_int_equal(input(c, CONSOLE, "hello"), 5);
}

/* Somebody who left before the driver had a buffer for the news is told in the order in which it happened. */
static void test_news_wait(void **state)
{
    struct channels_fixture *c = *state;

    start(c);
    for (int i = 0; i < 4; i++) { /* eats the buffers that are there */
        set_open(c, AGENT, true);
        heard(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 1, "");
        set_open(c, AGENT, false);
        heard(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 0, "");
    }
    give_control_buffers(c, 1);
    set_open(c, AGENT, true);
    heard(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 1, "");
    for (int i = 0; i < 100; i++) {
        set_open(c, AGENT, false);
        set_open(c, AGENT, true);
    }
    assert_int_equal(driver_used_count(&c->d, CONTROL_IN), 0);
    give_control_buffers(c, 3);
    heard(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 0, "");
    heard(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 1, "");
    assert_int_equal(driver_used_count(&c->d, CONTROL_IN), 0);
}

static void test_input(void **state)
{
    struct channels_fixture *c = *state;
    unsigned rooms;

    start(c);
    offer_input(c, AGENT, 4);
    assert_int_equal(input(c, AGENT, "early"), 0); /* nobody in the guest has it open */
    rooms = c->ends[AGENT].rooms;
    say(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert_int_equal(c->ends[AGENT].rooms, rooms + 1);
    clear_dirty(c->f);
    assert_int_equal(input(c, AGENT, "abcdef"), 4);
    assert_int_equal(driver_used(&c->d, INPUT_OF(AGENT)).len, 4);
    assert_memory_equal(guest_ram(c->f, DRIVER_BUFFERS + 0xd000), "abcd", 4);
    assert_true(is_dirty(c->f, DRIVER_BUFFERS + 0xd000));
    assert_int_equal(input(c, AGENT, "ef"), 0);
    rooms = c->ends[AGENT].rooms;
    offer_input(c, AGENT, 4);
    assert_int_equal(c->ends[AGENT].rooms, rooms + 1);
    assert_int_equal(input(c, AGENT, "ef"), 2);
    say(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 0);
    offer_input(c, AGENT, 4);
    assert_int_equal(input(c, AGENT, "late"), 0);
}

/* What the gate does not take stays with the guest, and goes on where it stopped. */
static void test_backpressure(void **state)
{
    struct channels_fixture *c = *state;
    struct end *e = &c->ends[AGENT];

    assert_true(loop_start(c->f->host.loop, NULL));
    start(c);
    e->room = 100;
    write_port(c, AGENT, 150, 'a');
    assert_int_equal(e->out_size, 100);
    assert_int_equal(driver_used_count(&c->d, OUTPUT_OF(AGENT)), 0);
    loop_lock(c->f->host.loop);
    e->room = SIZE_MAX;
    virtio_console_resume_output(c->device, AGENT);
    loop_unlock(c->f->host.loop);
    eventually(driver_used_count(&c->d, OUTPUT_OF(AGENT)) == 1);
    assert_int_equal(e->out_size, 150);
    /* More than one turn's worth takes more than one turn. */
    e->out_size = 0;
    write_port(c, AGENT, 8000, 'b');
    eventually(driver_used_count(&c->d, OUTPUT_OF(AGENT)) == 2);
    assert_int_equal(e->out_size, 8000);
}

/* Protected: nothing leaves before the commit, and two ports do not release each other's bytes. */
static void test_held(void **state)
{
    struct channels_fixture *c = *state;

    start(c);
    console_gate_register();
    assert_true(checkpoint_devices_setup_wait(NULL));
    write_port(c, AGENT, 100, 'a');
    write_port(c, CONSOLE, 10, 'c');
    assert_int_equal(driver_used_count(&c->d, OUTPUT_OF(AGENT)), 1);
    assert_int_equal(c->ends[AGENT].out_size + c->ends[CONSOLE].out_size, 0);
    assert_true(checkpoint_devices_postsuspend(1, NULL));
    assert_true(checkpoint_devices_preresume(1, NULL));
    write_port(c, AGENT, 7, 'b');
    assert_int_equal(c->ends[AGENT].out_size + c->ends[CONSOLE].out_size, 0);
    assert_true(checkpoint_devices_commit(1, NULL));
    assert_int_equal(c->ends[AGENT].out_size, 100);
    assert_int_equal(c->ends[CONSOLE].out_size, 10);
    /* Held bytes count against the room: there is a place for each when it is released. */
    c->ends[AGENT].room = 50;
    write_port(c, AGENT, 60, 'd');
    assert_true(checkpoint_devices_postsuspend(2, NULL));
    assert_true(checkpoint_devices_commit(2, NULL));
    assert_int_equal(c->ends[AGENT].out_size, 150);
}

/* A side that took over goes on in the middle of a chain; whoever was connected is hung up on. */
static void test_take_over(void **state)
{
    struct channels_fixture *c = *state;
    VMStream *saved, *again;

    start(c);
    set_open(c, AGENT, true);
    heard(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 1, "");
    say(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 1);
    c->ends[AGENT].room = 60;
    write_port(c, AGENT, 100, 'a');
    assert_int_equal(c->ends[AGENT].out_size, 60);
    saved = state_save();

    set_open(c, AGENT, false);
    c->device->class->reset(c->device);
    c->ends[AGENT].out_size = 0;
    c->ends[AGENT].room = SIZE_MAX;
    c->f->msi_count = 0;
    c->d.queue[CONTROL_IN].used_seen = c->d.queue[CONTROL_IN].used->idx;
    state_load_ok(saved);
    assert_int_equal(c->ends[AGENT].cuts, 1);
    assert_int_equal(c->ends[AGENT].out_size, 0);
    assert_int_equal(c->f->msi_count, 0);
    again = state_save();
    assert_same_state(saved, again);
    give_control_buffers(c, 4);
    c->device->class->take_over(c->device);
    assert_int_equal(c->ends[AGENT].out_size, 40);
    assert_int_equal(driver_used_count(&c->d, OUTPUT_OF(AGENT)), 1);
    perdure_stream_close(saved);
    perdure_stream_close(again);

    /* The port is still open in the guest, and the one who comes now is a new one. */
    assert_int_equal(driver_status(&c->d), ALL_OK);
    set_open(c, AGENT, true);
    offer_input(c, AGENT, 16);
    assert_int_equal(input(c, AGENT, "hello"), 5);
}

static void test_hostile(void **state)
{
    struct channels_fixture *c = *state;

    start(c); /* output with a part to write to */
    driver_add(&c->d, OUTPUT_OF(AGENT),
               (struct buffer[]){{DRIVER_BUFFERS, 8, false}, {DRIVER_BUFFERS, 8, true}}, 2);
    driver_kick(&c->d, OUTPUT_OF(AGENT));
    assert_broken(c);
    start(c); /* input with a part to read */
    say(c, AGENT, VIRTIO_CONSOLE_PORT_OPEN, 1);
    driver_add(&c->d, INPUT_OF(AGENT),
               (struct buffer[]){{DRIVER_BUFFERS, 8, false}, {DRIVER_BUFFERS, 8, true}}, 2);
    assert_int_equal(input(c, AGENT, "x"), 0);
    assert_broken(c);
    start(c); /* half a control message */
    driver_add(&c->d, CONTROL_OUT, &(struct buffer){DRIVER_BUFFERS, 7, false}, 1);
    driver_kick(&c->d, CONTROL_OUT);
    assert_broken(c);
    driver_start(&c->d, MULTIPORT); /* no room for one */
    driver_add(&c->d, CONTROL_IN, &(struct buffer){DRIVER_BUFFERS, 7, true}, 1);
    say(c, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    assert_broken(c);
    driver_start(&c->d, MULTIPORT); /* none for a name */
    driver_add(&c->d, CONTROL_IN, &(struct buffer){DRIVER_BUFFERS + 64, 8, true}, 1);
    say(c, AGENT, VIRTIO_CONSOLE_PORT_READY, 1);
    assert_broken(c);
    start(c); /* what is out of RAM */
    driver_add(&c->d, OUTPUT_OF(CONSOLE), &(struct buffer){FIXTURE_RAM - 4, 8, false}, 1);
    driver_kick(&c->d, OUTPUT_OF(CONSOLE));
    assert_broken(c);
    start(c); /* a chain that changes while it waits */
    c->ends[AGENT].room = 0;
    write_port(c, AGENT, 100, 'a');
    c->d.queue[OUTPUT_OF(AGENT)].desc[0].addr = UINT64_MAX;
    c->ends[AGENT].room = SIZE_MAX;
    driver_kick(&c->d, OUTPUT_OF(AGENT));
    assert_broken(c);
    /* Ports and messages that there are none of are none of our business. */
    start(c);
    for (uint32_t id = 0; id < 70000; id += 7)
        say(c, id == AGENT ? UINT32_MAX : id + PORTS, VIRTIO_CONSOLE_PORT_OPEN, 1);
    for (uint16_t event = VIRTIO_CONSOLE_PORT_NAME; event < 300; event++)
        say(c, AGENT, event, 1);
    assert_int_equal(driver_status(&c->d), ALL_OK);
    assert_int_equal(c->ends[CONSOLE].out_size + c->ends[AGENT].out_size, 0);
}

/* A machine without a console has no port 0, and other numbers of ports are refused. */
static void test_no_console(void **state)
{
    struct channels_fixture *c = *state;
    VMStream *saved;
    Error *err = NULL;
    struct console_port one = {.gate = c->ends[AGENT].gate,
                               .name = "one",
                               .room = count_room,
                               .cut = count_cut,
                               .opaque = &c->ends[AGENT]};

    device_destroy(c->device);
    c->device = make_device(c, false);
    driver_find(&c->d, c->f, SLOT);
    driver_start(&c->d, MULTIPORT);
    give_control_buffers(c, 4);
    say(c, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    heard(c, AGENT, VIRTIO_CONSOLE_PORT_ADD, 1, "");
    assert_int_equal(driver_used_count(&c->d, CONTROL_IN), 0);
    write_port(c, CONSOLE, 10, 'x'); /* to nowhere */
    offer_input(c, CONSOLE, 10);
    say(c, CONSOLE, VIRTIO_CONSOLE_PORT_READY, 1);
    assert_int_equal(driver_used_count(&c->d, OUTPUT_OF(CONSOLE)), 1);
    assert_int_equal(c->ends[CONSOLE].out_size + c->ends[CONSOLE].rooms, 0);
    assert_int_equal(driver_status(&c->d), ALL_OK);

    saved = state_save();
    device_destroy(c->device);
    c->device = virtio_console_new(&c->f->host, SLOT, &one, 1, NULL);
    assert_false(state_load(saved, &err));
    assert_non_null(strstr(error_get_pretty(err), "number of ports"));
    error_free(err);
    driver_find(&c->d, c->f, SLOT);
    driver_start(&c->d, MULTIPORT);
    perdure_stream_close(saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
        cmocka_unit_test_setup_teardown(test_news_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backpressure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_take_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_console, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
