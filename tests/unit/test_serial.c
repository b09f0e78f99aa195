/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The 16550A, played by a small driver: probing, polled and interrupt-driven output, back-pressure, input,
 * loop-back, state.
 */
#include "device_fixture.h"

#include <linux/serial_reg.h>
#include <perdure/checkpoint_device.h>

#define BASE 0x3f8
#define GSI  4

struct console {
    struct fixture *f;
    ConsoleGate *gate;
    Device *serial;
    char out[4096];
    size_t out_size;
    unsigned rooms;
};

static void console_write(void *opaque, const void *buf, size_t n)
{
    struct console *c = opaque;

    assert_true(c->out_size + n < sizeof(c->out));
    memcpy(c->out + c->out_size, buf, n);
    c->out_size += n;
}

static int setup(void **state)
{
    struct console *c = calloc(1, sizeof(*c));

    c->f = fixture_new();
    c->gate = console_gate_new("console", console_write, c, 64, NULL);
    assert_non_null(c->gate);
    c->serial = serial_new(&c->f->host, c->gate, NULL);
    assert_non_null(c->serial);
    *state = c;
    return 0;
}

static int teardown(void **state)
{
    struct console *c = *state;

    device_destroy(c->serial);
    console_gate_free(c->gate);
    fixture_free(c->f);
    free(c);
    return 0;
}

static size_t type(struct console *c, const char *text)
{
    size_t n;

    loop_lock(c->f->host.loop);
    n = serial_input(c->serial, text, strlen(text));
    loop_unlock(c->f->host.loop);
    return n;
}

/* What Linux's 8250 driver looks at to find a 16550A. */
static void test_probe(void **state)
{
    struct fixture *f = ((struct console *)*state)->f;

    outb(f, BASE + UART_IER, 0);
    assert_int_equal(inb(f, BASE + UART_IER), 0);
    outb(f, BASE + UART_IER, 0xff);
    assert_int_equal(inb(f, BASE + UART_IER), 0x0f);
    outb(f, BASE + UART_IER, 0);
    outb(f, BASE + UART_SCR, 0x5a);
    assert_int_equal(inb(f, BASE + UART_SCR), 0x5a);
    outb(f, BASE + UART_FCR, UART_FCR_ENABLE_FIFO);
    assert_int_equal(inb(f, BASE + UART_IIR) >> 6, 3);
    outb(f, BASE + UART_FCR, 0);
    assert_int_equal(inb(f, BASE + UART_IIR), UART_IIR_NO_INT);

    /* The divisor hides the data and interrupt registers, and is kept. */
    outb(f, BASE + UART_LCR, UART_LCR_DLAB);
    outb(f, BASE + UART_DLL, 1);
    outb(f, BASE + UART_DLM, 2);
    assert_int_equal(inb(f, BASE + UART_DLL), 1);
    assert_int_equal(inb(f, BASE + UART_DLM), 2);
    outb(f, BASE + UART_LCR, UART_LCR_WLEN8);
    assert_int_equal(inb(f, BASE + UART_IER), 0);
    assert_int_equal(inb(f, BASE + UART_MSR) & 0xf0, UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
}

static void test_polled_output(void **state)
{
    struct console *c = *state;

    for (const char *p = "hello"; *p; p++) {
        assert_true(inb(c->f, BASE + UART_LSR) & UART_LSR_THRE);
        outb(c->f, BASE + UART_TX, *p);
    }
    assert_int_equal(c->out_size, 5);
    assert_memory_equal(c->out, "hello", 5);
    assert_false(c->f->irq[GSI]);
}

static void test_transmit_interrupt(void **state)
{
    struct console *c = *state;

    outb(c->f, BASE + UART_IER, UART_IER_THRI);
    assert_true(c->f->irq[GSI]);
    assert_int_equal(inb(c->f, BASE + UART_IIR), UART_IIR_THRI);
    /* Reading the identification is the acknowledgement. */
    assert_false(c->f->irq[GSI]);
    assert_int_equal(inb(c->f, BASE + UART_IIR), UART_IIR_NO_INT);
    outb(c->f, BASE + UART_TX, 'x');
    assert_true(c->f->irq[GSI]);
    outb(c->f, BASE + UART_IER, 0);
    assert_false(c->f->irq[GSI]);
}

static void test_input(void **state)
{
    struct console *c = *state;

    outb(c->f, BASE + UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_4);
    outb(c->f, BASE + UART_IER, UART_IER_RDI);
    assert_int_equal(type(c, "ab"), 2);
    assert_true(c->f->irq[GSI]);
    assert_int_equal(inb(c->f, BASE + UART_IIR) & 0x0f, UART_IIR_RX_TIMEOUT);
    assert_int_equal(type(c, "cd"), 2);
    assert_int_equal(inb(c->f, BASE + UART_IIR) & 0x0f, UART_IIR_RDI);
    for (const char *p = "abcd"; *p; p++) {
        assert_true(inb(c->f, BASE + UART_LSR) & UART_LSR_DR);
        assert_int_equal(inb(c->f, BASE + UART_RX), *p);
    }
    assert_false(inb(c->f, BASE + UART_LSR) & UART_LSR_DR);
    assert_false(c->f->irq[GSI]);
}

static void count_room(void *opaque)
{
    ((struct console *)opaque)->rooms++;
}

/* A full FIFO takes no more, and says when it does again: no byte typed is lost. */
static void test_input_full(void **state)
{
    struct console *c = *state;

    serial_on_room(c->serial, count_room, c);
    outb(c->f, BASE + UART_FCR, UART_FCR_ENABLE_FIFO);
    c->rooms = 0;
    assert_int_equal(type(c, "0123456789abcdefgh"), 16);
    assert_int_equal(type(c, "g"), 0);
    for (int i = 0; i < 15; i++)
        inb(c->f, BASE + UART_RX);
    assert_int_equal(c->rooms, 0);
    assert_int_equal(inb(c->f, BASE + UART_RX), 'f');
    assert_int_equal(c->rooms, 1);
    assert_false(inb(c->f, BASE + UART_LSR) & UART_LSR_OE);
}

static void test_loopback(void **state)
{
    struct console *c = *state;

    outb(c->f, BASE + UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
    assert_int_equal(inb(c->f, BASE + UART_MSR) & 0xf0, UART_MSR_DCD | UART_MSR_CTS);
    outb(c->f, BASE + UART_TX, 'L');
    assert_int_equal(c->out_size, 0);
    assert_int_equal(inb(c->f, BASE + UART_RX), 'L');
    /* Two bytes without a FIFO: the second is lost, and the guest is told. */
    outb(c->f, BASE + UART_TX, '1');
    outb(c->f, BASE + UART_TX, '2');
    assert_true(inb(c->f, BASE + UART_LSR) & UART_LSR_OE);
    assert_false(inb(c->f, BASE + UART_LSR) & UART_LSR_OE);
}

static void write_if_ready(struct console *c, const char **text, unsigned most)
{
    if (!(inb(c->f, BASE + UART_LSR) & UART_LSR_THRE))
        return;
    while (**text && most--)
        outb(c->f, BASE + UART_TX, *(*text)++);
}

/*
 * Protected, with a gate that takes little: the guest writes 16 bytes whenever the transmitter is empty, as
 * drivers do. It is held up when the gate is full, goes on when an epoch is acknowledged, and every byte
 * comes out, once and in order.
 */
static void test_back_pressure(void **state)
{
    struct console *c = *state;
    char text[1000];
    const char *rest = text;
    uint64_t epoch = 0;
    bool held_up = false;

    for (unsigned i = 0; i < sizeof(text) - 1; i++)
        text[i] = 'a' + i % 26;
    text[sizeof(text) - 1] = 0;
    assert_true(loop_start(c->f->host.loop, NULL));
    outb(c->f, BASE + UART_FCR, UART_FCR_ENABLE_FIFO);
    assert_true(checkpoint_devices_setup_wait(NULL));
    for (unsigned i = 0; i < 10000 && c->out_size < strlen(text); i++) {
        const char *before = rest;

        write_if_ready(c, &rest, 16);
        if (*rest && rest == before) {
            held_up = true;
            loop_park(c->f->host.loop);
            assert_true(checkpoint_devices_postsuspend(++epoch, NULL));
            loop_unpark(c->f->host.loop);
            settle();
            assert_true(checkpoint_devices_commit(epoch, NULL));
            settle();
        } else if (!*rest) {
            assert_true(checkpoint_devices_postsuspend(++epoch, NULL));
            assert_true(checkpoint_devices_commit(epoch, NULL));
            settle();
        }
    }
    assert_true(held_up);
    assert_int_equal(c->out_size, strlen(text));
    assert_memory_equal(c->out, text, c->out_size);
    checkpoint_devices_teardown(false);
}

static void test_state(void **state)
{
    struct console *c = *state;
    VMStream *saved, *again;

    outb(c->f, BASE + UART_FCR, UART_FCR_ENABLE_FIFO);
    outb(c->f, BASE + UART_IER, UART_IER_RDI | UART_IER_THRI);
    outb(c->f, BASE + UART_SCR, 0x77);
    type(c, "typed");
    saved = state_save();
    c->serial->class->reset(c->serial);
    assert_false(c->f->irq[GSI]);
    state_load_ok(saved);
    again = state_save();
    assert_same_state(saved, again);
    assert_true(c->f->irq[GSI]);
    assert_int_equal(inb(c->f, BASE + UART_SCR), 0x77);
    for (const char *p = "typed"; *p; p++)
        assert_int_equal(inb(c->f, BASE + UART_RX), *p);
    assert_int_equal(inb(c->f, BASE + UART_IIR) & 0x0f, UART_IIR_THRI);
    perdure_stream_close(saved);
    perdure_stream_close(again);
}

/* Registers in any order, of any width: nothing but the registers changes. */
static void test_noise(void **state)
{
    struct console *c = *state;

    srand(1);
    for (int i = 0; i < 100000; i++) {
        c->out_size = 0;
        if (rand() & 1)
            bus_write(c->f, IO_PORT, BASE + rand() % 8, rand(), 1 << rand() % 3);
        else
            bus_read(c->f, IO_PORT, BASE + rand() % 8, 1 << rand() % 3);
        if (rand() % 16 == 0)
            type(c, "noise");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_probe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_polled_output, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transmit_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loopback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_back_pressure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_noise, setup, teardown),
    };

    console_gate_register();
    return cmocka_run_group_tests_name("serial", tests, NULL, NULL);
}
