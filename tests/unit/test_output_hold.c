/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The NIC's output buffer and the console gate: nothing early, nothing twice, nothing lost, in order. */
#include "net/console_gate.h"
#include "net/output_buffer.h"
#include <perdure/checkpoint_device.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The world outside: one letter a frame. */
static char seen[16384];
static int woken, waiting;

static bool wire_send(NetPort *p, const struct iovec *iov, int n)
{
    char letter[2] = "";

    (void)p;
    for (int i = 0; i < n; i++) {
        if (iov[i].iov_len)
            letter[0] = *(char *)iov[i].iov_base;
    }
    strncat(seen, letter, sizeof(seen) - strlen(seen) - 1);
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

static void console_write(void *opaque, const void *buf, size_t n)
{
    (void)opaque;
    assert_true(strlen(seen) + n < sizeof(seen));
    strncat(seen, buf, n);
}

static void on_writable(void *opaque)
{
    (void)opaque;
    woken++;
}

static void on_waiting(void *opaque)
{
    (void)opaque;
    waiting++;
}

struct outputs {
    NetPort *port;
    ConsoleGate *gate;
};

static int setup(void **state)
{
    struct outputs *o = calloc(1, sizeof(*o));

    o->port = net_output_buffer_new(wire_new(), 64 * 1024, NULL);
    o->gate = console_gate_new("console", console_write, NULL, 4096, NULL);
    assert_non_null(o->port);
    assert_non_null(o->gate);
    o->port->writable = on_writable;
    console_gate_on_writable(o->gate, on_writable, NULL);
    checkpoint_devices_set_listener(on_waiting, NULL);
    seen[0] = '\0';
    woken = waiting = 0;
    *state = o;
    return 0;
}

static int teardown(void **state)
{
    struct outputs *o = *state;

    checkpoint_devices_set_listener(NULL, NULL);
    net_close(o->port);
    console_gate_free(o->gate);
    free(o);
    return 0;
}

static bool send_frame(struct outputs *o, const char *letter, size_t size)
{
    static char frame[8192];
    struct iovec iov = {frame, size};

    memset(frame, letter[0], size);
    return net_send(o->port, &iov, 1);
}

static void put(struct outputs *o, const char *text)
{
    assert_int_equal(console_gate_put(o->gate, text, strlen(text)), strlen(text));
}

static void test_pass_through(void **state)
{
    send_frame(*state, "a", 60);
    put(*state, "b");
    assert_string_equal(seen, "ab");
}

static void test_epochs(void **state)
{
    struct outputs *o = *state;

    assert_true(checkpoint_devices_setup_wait(NULL));
    send_frame(o, "a", 60);
    send_frame(o, "b", 1500);
    assert_int_equal(waiting, 1); /* once an epoch and device */
    assert_true(checkpoint_devices_postsuspend(7, NULL));
    send_frame(o, "c", 60);
    assert_int_equal(waiting, 2);
    assert_string_equal(seen, "");
    assert_true(checkpoint_devices_commit(7, NULL));
    assert_string_equal(seen, "ab");
    assert_true(checkpoint_devices_postsuspend(8, NULL));
    assert_true(checkpoint_devices_postsuspend(9, NULL)); /* an epoch without output */
    send_frame(o, "d", 60);
    assert_true(checkpoint_devices_commit(8, NULL));
    assert_string_equal(seen, "abc");
    assert_true(checkpoint_devices_commit(9, NULL));
    assert_string_equal(seen, "abc");
    checkpoint_devices_teardown(false);
    assert_string_equal(seen, "abcd");
    send_frame(o, "e", 60);
    assert_string_equal(seen, "abcde");
}

static void test_refusals(void **state)
{
    Error *err = NULL;

    (void)state;
    assert_true(checkpoint_devices_setup_wait(NULL));
    send_frame(*state, "a", 60);
    assert_false(checkpoint_devices_commit(1, &err)); /* not closed */
    error_free(err);
    assert_true(checkpoint_devices_postsuspend(1, NULL));
    assert_false(checkpoint_devices_postsuspend(1, NULL));
    assert_true(checkpoint_devices_commit(1, NULL));
    assert_false(checkpoint_devices_commit(1, NULL)); /* each once */
    assert_string_equal(seen, "a");
    checkpoint_devices_teardown(true);
}

static void test_discard(void **state)
{
    assert_true(checkpoint_devices_setup_wait(NULL));
    send_frame(*state, "a", 60);
    put(*state, "b");
    assert_true(checkpoint_devices_postsuspend(1, NULL));
    send_frame(*state, "c", 60);
    checkpoint_devices_teardown(true);
    assert_string_equal(seen, "");
    /* A second protection begins anew. */
    assert_true(checkpoint_devices_setup_wait(NULL));
    send_frame(*state, "d", 60);
    assert_true(checkpoint_devices_postsuspend(1, NULL));
    assert_true(checkpoint_devices_commit(1, NULL));
    assert_string_equal(seen, "d");
    checkpoint_devices_teardown(false);
}

static void test_full(void **state)
{
    struct outputs *o = *state;
    uint64_t epoch = 0;
    int sent = 0;

    assert_true(checkpoint_devices_setup_wait(NULL));
    /* Round and round the ring, at every offset: full is said, nothing is lost. */
    for (int round = 0; round < 500; round++) {
        int taken = 0;
        seen[0] = '\0';
        while (send_frame(o, "x", 1000 + round * 13 % 5000))
            taken++;
        assert_true(taken >= 10);
        assert_true(checkpoint_devices_postsuspend(++epoch, NULL));
        assert_false(send_frame(o, "y", 6000));
        woken = 0;
        assert_true(checkpoint_devices_commit(epoch, NULL));
        assert_true(woken > 0);
        assert_int_equal(strlen(seen), taken);
        sent += taken;
    }
    assert_true(sent > 5000);
    checkpoint_devices_teardown(false);
}

static void test_console(void **state)
{
    struct outputs *o = *state;
    char long_text[5000];
    size_t taken;

    assert_true(checkpoint_devices_setup_wait(NULL));
    put(o, "one ");
    put(o, "two ");
    assert_true(checkpoint_devices_postsuspend(1, NULL));
    put(o, "three ");
    assert_string_equal(seen, "");
    assert_true(checkpoint_devices_commit(1, NULL));
    assert_string_equal(seen, "one two ");
    memset(long_text, 'z', sizeof(long_text));
    taken = console_gate_put(o->gate, long_text, sizeof(long_text));
    assert_true(taken > 0 && taken < sizeof(long_text));
    assert_int_equal(console_gate_put(o->gate, long_text, 10), 0);
    assert_true(checkpoint_devices_postsuspend(2, NULL));
    assert_true(checkpoint_devices_commit(2, NULL));
    assert_int_equal(strlen(seen), strlen("one two three ") + taken);
    assert_int_equal(console_gate_put(o->gate, long_text, 10), 10);
    checkpoint_devices_teardown(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pass_through, setup, teardown),
        cmocka_unit_test_setup_teardown(test_epochs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_console, setup, teardown),
    };

    net_output_buffer_register();
    console_gate_register();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
