/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A channel from end to end: the guest's port, its gate, the socket on this host, a client. Nothing is lost
 * while the client is there, in either direction, however slowly somebody reads.
 */
#include "virtio_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_console.h>
#include <perdure/checkpoint_device.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "machine/channels.h"

#define SLOT   18
#define AGENT  1 /* its port */
#define INPUT  4
#define OUTPUT 5
#define MUCH   (3u << 20) /* more than every buffer on the way together */
enum { CONTROL_IN = 2, CONTROL_OUT = 3 };

struct world {
    struct fixture *f;
    Device *bridge, *device;
    struct channels channels;
    struct machine_config config;
    struct driver d;
    int client;
    uint32_t sent, received; /* by the guest, by the client: the bytes are a sequence */
};

static uint8_t nth(uint32_t i)
{
    return i * 31 + (i >> 8) * 7 + (i >> 16);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct machine_channel *ch = &w->config.channels[0];

    w->f = fixture_new();
    w->client = -1;
    w->bridge = pci_host_new(&w->f->host, NULL);
    w->config.channel_count = 1;
    snprintf(ch->id, sizeof(ch->id), "agent");
    snprintf(ch->name, sizeof(ch->name), "org.perdure.agent");
    snprintf(ch->socket, sizeof(ch->socket), "/tmp/perdure-test-channel.%d", getpid());
    assert_true(channels_open(&w->channels, &w->config, w->f->host.loop, NULL));
    assert_int_equal(w->channels.port_count, 2);
    w->device = virtio_console_new(&w->f->host, SLOT, w->channels.ports, w->channels.port_count, NULL);
    assert_non_null(w->device);
    assert_true(channels_attach(&w->channels, w->device, NULL));
    console_gate_register();
    assert_true(loop_start(w->f->host.loop, NULL));
    driver_find(&w->d, w->f, SLOT);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    Loop *loop = w->f->host.loop;

    checkpoint_devices_teardown(true);
    if (w->client >= 0)
        close(w->client);
    loop_lock(loop);
    channels_detach(&w->channels);
    w->device->class->destroy(w->device);
    channels_close(&w->channels);
    loop_unlock(loop);
    device_destroy(w->bridge);
    fixture_free(w->f);
    assert_int_equal(access(w->config.channels[0].socket, F_OK), -1);
    free(w);
    return 0;
}

static void join_in(struct world *w)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", w->config.channels[0].socket);
    w->client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(w->client, (struct sockaddr *)&addr, sizeof(addr)), 0);
    fcntl(w->client, F_SETFL, O_NONBLOCK);
}

static void say(struct world *w, uint16_t event, uint16_t value)
{
    struct virtio_console_control *m = guest_ram(w->f, DRIVER_BUFFERS);

    *m = (struct virtio_console_control){AGENT, event, value};
    driver_add(&w->d, CONTROL_OUT, &(struct buffer){DRIVER_BUFFERS, sizeof(*m), false}, 1);
    driver_kick(&w->d, CONTROL_OUT);
}

/* The value of the next PORT_OPEN, which comes soon. */
static unsigned heard_open(struct world *w)
{
    struct virtio_console_control m = {0};
    struct vring_used_elem e;

    do {
        eventually(driver_used_count(&w->d, CONTROL_IN) > 0);
        e = driver_used(&w->d, CONTROL_IN);
        memcpy(&m, guest_ram(w->f, w->d.queue[CONTROL_IN].desc[e.id].addr), sizeof(m));
    } while (m.event != VIRTIO_CONSOLE_PORT_OPEN);
    return m.value;
}

static void give_control_buffers(struct world *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        driver_add(&w->d, CONTROL_IN, &(struct buffer){DRIVER_BUFFERS + 0x1000 + 256 * i, 256, true}, 1);
    driver_kick(&w->d, CONTROL_IN);
}

static void start(struct world *w)
{
    driver_start(&w->d, 1ull << VIRTIO_CONSOLE_F_MULTIPORT);
    give_control_buffers(w, 12);
    say(w, VIRTIO_CONSOLE_DEVICE_READY, 1);
    say(w, VIRTIO_CONSOLE_PORT_READY, 1);
    say(w, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

/* The guest sends if its last chain is done. */
static void guest_sends(struct world *w)
{
    static bool busy;
    uint8_t *p = guest_ram(w->f, 0x60000);

    if (w->sent == 0)
        busy = false;
    if (busy && !driver_used_count(&w->d, OUTPUT))
        return;
    if (busy)
        driver_used(&w->d, OUTPUT);
    busy = w->sent < MUCH;
    if (!busy)
        return;
    for (uint32_t i = 0; i < 0x8000; i++)
        p[i] = nth(w->sent++);
    driver_add(&w->d, OUTPUT, &(struct buffer){0x60000, 0x8000, false}, 1);
    driver_kick(&w->d, OUTPUT);
}

static void client_reads(struct world *w, size_t most)
{
    uint8_t buf[65536];
    ssize_t n = read(w->client, buf, most < sizeof(buf) ? most : sizeof(buf));

    for (ssize_t i = 0; i < n; i++)
        if (buf[i] != nth(w->received++))
            fail_msg("byte %u of the output is wrong", w->received - 1);
}

/* A client that reads nothing stops the guest, and nothing is lost when it reads again. */
static void test_slow_client(void **state)
{
    struct world *w = *state;
    uint32_t before;

    start(w);
    join_in(w);
    assert_int_equal(heard_open(w), 1);
    do { /* until everything on the way is full */
        before = w->sent;
        for (int i = 0; i < 50 && w->sent == before; i++) {
            guest_sends(w);
            settle();
        }
    } while (w->sent != before);
    assert_true(w->sent < MUCH);
    while (w->received < MUCH) {
        guest_sends(w);
        client_reads(w, 50000);
    }
}

/* The same under protection, epochs closing and being acknowledged one behind. */
static void test_slow_client_protected(void **state)
{
    struct world *w = *state;
    uint64_t epoch = 0;

    start(w);
    join_in(w);
    assert_int_equal(heard_open(w), 1);
    assert_true(checkpoint_devices_setup_wait(NULL));
    while (w->received < MUCH) {
        guest_sends(w);
        loop_park(w->f->host.loop);
        assert_true(checkpoint_devices_postsuspend(++epoch, NULL));
        loop_unpark(w->f->host.loop);
        guest_sends(w);
        if (epoch > 1)
            assert_true(checkpoint_devices_commit(epoch - 1, NULL));
        if (epoch % 3 == 0)
            client_reads(w, 65536);
    }
}

/* Nobody there: the guest is not held up, and the one who comes later gets nothing of it. */
static void test_nobody(void **state)
{
    struct world *w = *state;

    start(w);
    while (w->sent < MUCH) {
        guest_sends(w);
        eventually(driver_used_count(&w->d, OUTPUT) == 1);
    }
    guest_sends(w);
    join_in(w);
    assert_int_equal(heard_open(w), 1);
    w->sent = w->received = 0;
    while (w->received < MUCH) {
        guest_sends(w);
        client_reads(w, 65536);
    }
    close(w->client);
    w->client = -1;
    assert_int_equal(heard_open(w), 0);
    join_in(w);
    assert_int_equal(heard_open(w), 1);
}

/* A client that goes while the guest waits for it: the guest goes on. */
static void test_client_leaves(void **state)
{
    struct world *w = *state;
    uint32_t before;

    start(w);
    join_in(w);
    assert_int_equal(heard_open(w), 1);
    do {
        before = w->sent;
        for (int i = 0; i < 50 && w->sent == before; i++) {
            guest_sends(w);
            settle();
        }
    } while (w->sent != before);
    close(w->client);
    w->client = -1;
    assert_int_equal(heard_open(w), 0);
    eventually(driver_used_count(&w->d, OUTPUT) == 1);
}

static void test_input(void **state)
{
    struct world *w = *state;
    uint32_t typed = 0, got = 0;

    start(w);
    join_in(w);
    assert_int_equal(heard_open(w), 1);
    while (got < 200000) {
        uint8_t buf[1000];

        for (size_t i = 0; i < sizeof(buf); i++)
            buf[i] = nth(typed + i);
        ssize_t n = write(w->client, buf, sizeof(buf));
        typed += n > 0 ? n : 0;
        driver_add(&w->d, INPUT, &(struct buffer){0x70000, 700, true}, 1);
        driver_kick(&w->d, INPUT);
        eventually(driver_used_count(&w->d, INPUT) == 1);
        n = driver_used(&w->d, INPUT).len;
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(((uint8_t *)guest_ram(w->f, 0x70000))[i], nth(got++));
    }
}

/* A state is loaded: the client hears at once, and the guest that it is gone. */
static void test_cut(void **state)
{
    struct world *w = *state;
    struct pollfd p;
    VMStream *saved;
    char byte;

    start(w);
    join_in(w);
    assert_int_equal(heard_open(w), 1);
    loop_park(w->f->host.loop);
    saved = state_save();
    state_load_ok(saved);
    p = (struct pollfd){.fd = w->client, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_int_equal(read(w->client, &byte, 1), 0);
    loop_lock(w->f->host.loop);
    w->device->class->take_over(w->device);
    loop_unlock(w->f->host.loop);
    loop_unpark(w->f->host.loop);
    assert_int_equal(heard_open(w), 0);
    close(w->client);
    join_in(w);
    /* The loop may still have to see that the first one is gone. */
    while (!heard_open(w))
        ;
    perdure_stream_close(saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_slow_client, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_client_protected, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_client_leaves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
