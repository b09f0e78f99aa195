/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The output buffer between the thread that sends and the one that acknowledges: frames of every type come
 * out whole, in order, each once, and never before the commit of their epoch.
 */
#include "base/task.h"
#include "net/output_buffer.h"
#include <perdure/checkpoint_device.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FRAMES 20000

/* What goes over the wire: a header of some type, then the frame's number. */
struct frame {
    uint8_t header[18];
    uint8_t size;
    uint32_t number;
    uint8_t rest[64];
};

static struct task_mutex wire_lock;
static uint32_t wire_next;    /* number of the frame that must come next */
static uint32_t wire_allowed; /* frames below this are committed */
static bool wire_bad;

static void frame_make(struct frame *f, uint32_t number)
{
    static const uint8_t types[][6] = {
        {0x08, 0x00, 0x45},                   /* IPv4 */
        {0x86, 0xdd, 0x60},                   /* IPv6 */
        {0x08, 0x06, 0x00, 0x01},             /* ARP */
        {0x81, 0x00, 0x00, 0x05, 0x08, 0x00}, /* VLAN 5, IPv4 */
        {0x88, 0xcc},                         /* LLDP */
        {0x00, 0x26},                         /* a length: spanning tree */
    };

    memset(f, (int)number, sizeof(*f));
    memcpy(f->header + 12, types[number % 6], 6);
    f->size = (uint8_t)(offsetof(struct frame, rest) + number % 64);
    f->number = number;
}

static bool wire_send(NetPort *p, const struct iovec *iov, int n)
{
    struct frame expected;

    (void)p;
    task_lock(&wire_lock);
    frame_make(&expected, wire_next);
    if (n != 1 || iov[0].iov_len != expected.size || memcmp(iov[0].iov_base, &expected, expected.size) ||
        wire_next >= wire_allowed)
        wire_bad = true;
    wire_next++;
    task_unlock(&wire_lock);
    return true;
}

static void wire_close(NetPort *p)
{
    free(p);
}

static NetPort *wire_new(void)
{
    static const struct net_port_ops ops = {.send = wire_send, .close = wire_close};
    NetPort *p = calloc(1, sizeof(*p));

    p->ops = &ops;
    p->id = "net0";
    return p;
}

static void allow(uint32_t below)
{
    task_lock(&wire_lock);
    wire_allowed = below;
    task_unlock(&wire_lock);
}

struct sender {
    NetPort *port;
    struct task_mutex loop; /* held while a frame is sent; the engine holds it while "paused" */
    struct task_cond writable;
    bool room;
    uint32_t sent;
};

static void on_writable(void *opaque)
{
    struct sender *s = opaque;

    task_lock(&s->loop);
    s->room = true;
    task_broadcast(&s->writable);
    task_unlock(&s->loop);
}

static void send_all(void *arg)
{
    struct sender *s = arg;
    struct frame f;

    task_lock(&s->loop);
    while (s->sent < FRAMES) {
        struct iovec iov[2];

        frame_make(&f, s->sent);
        iov[0] = (struct iovec){&f, 14};
        iov[1] = (struct iovec){(uint8_t *)&f + 14, f.size - 14u};
        /* One piece where it may pass straight through: the wire here wants whole frames. */
        iov[0].iov_len = f.size;
        s->room = false;
        if (net_send(s->port, iov, 1)) {
            s->sent++;
            if (s->sent % 16)
                continue;
        }
        /* Lets the engine in, and waits for room where there is none. */
        task_wait_until(&s->writable, &s->loop, clock_now() + NS_PER_MS / 20);
    }
    task_unlock(&s->loop);
}

static void run(bool unprotect_half_way)
{
    struct sender s = {.port = net_output_buffer_new(wire_new(), NET_FRAME_MAX + 4, NULL)};
    uint64_t epoch = 0;
    uint32_t before = 0, now = 0;
    Task *task;

    assert_non_null(s.port);
    wire_next = wire_allowed = 0;
    wire_bad = false;
    task_mutex_init(&s.loop);
    task_cond_init(&s.writable);
    s.port->writable = on_writable;
    s.port->writable_opaque = &s;
    assert_true(checkpoint_devices_setup_wait(NULL));
    task = task_start("sender", send_all, &s, NULL);
    while (now < FRAMES && !(unprotect_half_way && now > FRAMES / 2)) {
        task_lock(&s.loop);
        assert_true(checkpoint_devices_postsuspend(++epoch, NULL));
        before = now;
        now = s.sent;
        task_unlock(&s.loop);
        task_lock(&wire_lock);
        assert_true(wire_next == before);
        task_unlock(&wire_lock);
        allow(now);
        assert_true(checkpoint_devices_commit(epoch, NULL));
    }
    allow(FRAMES);
    checkpoint_devices_teardown(false);
    task_join(task);
    assert_false(wire_bad);
    assert_int_equal(wire_next, FRAMES);
    net_close(s.port);
    task_cond_destroy(&s.writable);
    task_mutex_destroy(&s.loop);
}

static void test_protected_to_the_end(void **state)
{
    (void)state;
    run(false);
}

/* From holding to passing through while the guest sends: the order stays. */
static void test_unprotected_half_way(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        run(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_protected_to_the_end),
        cmocka_unit_test(test_unprotected_half_way),
    };

    task_mutex_init(&wire_lock);
    net_output_buffer_register();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
