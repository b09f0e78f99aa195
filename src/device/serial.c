/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 16550A: the guest's console.
 *
 * Output does not wait for a baud rate: a byte written goes to the console gate at once. When the gate is
 * full (it holds output until its epoch is acknowledged) bytes stay in the transmit FIFO and the holding
 * register reads as not empty, so that the guest waits as it would for a slow line: nothing is dropped. Bytes
 * in the FIFO are part of the state.
 *
 * Input comes through serial_input() into the receive FIFO.
 */
#include "device/devices.h"

#include <linux/serial_reg.h>
#include <stdlib.h>
#include <string.h>

#include "device/wake.h"

#define SERIAL_PORT 0x3f8
#define SERIAL_SIZE 8
#define SERIAL_GSI  4
#define FIFO_SIZE   16

/* What a terminal that is always there answers. */
#define MODEM_LINES (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

struct fifo {
    uint32_t used;
    uint8_t bytes[FIFO_SIZE];
};

struct serial {
    Device device;
    ConsoleGate *gate;
    struct wake wake; /* the gate has room */
    void (*room)(void *opaque);
    void *room_opaque;

    uint8_t ier, lcr, mcr, scratch, dll, dlm;
    uint8_t fcr;        /* as last written, without the self-clearing bits */
    uint8_t msr_delta;  /* low half of MSR */
    bool overrun;       /* LSR bit, until read */
    bool thr_interrupt; /* the transmitter became empty and nobody was told yet */
    struct fifo rx, tx;
};

static unsigned fifo_limit(const struct serial *s)
{
    return s->fcr & UART_FCR_ENABLE_FIFO ? FIFO_SIZE : 1;
}

static bool fifo_put(struct fifo *f, unsigned limit, uint8_t byte)
{
    if (f->used >= limit)
        return false;
    f->bytes[f->used++] = byte;
    return true;
}

static void fifo_drop(struct fifo *f, unsigned n)
{
    f->used -= n;
    memmove(f->bytes, f->bytes + n, f->used);
}

static unsigned receive_trigger(const struct serial *s)
{
    static const uint8_t level[] = {1, 4, 8, 14};

    return s->fcr & UART_FCR_ENABLE_FIFO ? level[s->fcr >> 6] : 1;
}

/* The most urgent interrupt that is enabled and pending. */
static uint8_t interrupt_id(const struct serial *s)
{
    if ((s->ier & UART_IER_RLSI) && s->overrun)
        return UART_IIR_RLSI;
    /* Fewer bytes than the trigger level interrupt by the time-out, which on this line is over at once. */
    if ((s->ier & UART_IER_RDI) && s->rx.used)
        return s->rx.used >= receive_trigger(s) ? UART_IIR_RDI : UART_IIR_RX_TIMEOUT;
    if ((s->ier & UART_IER_THRI) && s->thr_interrupt)
        return UART_IIR_THRI;
    if ((s->ier & UART_IER_MSI) && s->msr_delta)
        return UART_IIR_MSI;
    return UART_IIR_NO_INT;
}

static void update_irq(struct serial *s)
{
    s->device.host->set_irq(s->device.host, SERIAL_GSI, interrupt_id(s) != UART_IIR_NO_INT);
}

/* Moves what the gate takes out of the transmit FIFO. */
static void transmit(struct serial *s)
{
    size_t n;

    if (!s->tx.used)
        return;
    n = console_gate_put(s->gate, s->tx.bytes, s->tx.used);
    fifo_drop(&s->tx, n);
    if (!s->tx.used)
        s->thr_interrupt = true;
}

static void gate_writable(void *opaque)
{
    struct serial *s = opaque;

    wake_signal(&s->wake);
}

static void handle_writable(void *opaque)
{
    struct serial *s = opaque;

    transmit(s);
    update_irq(s);
}

static void receive(struct serial *s, uint8_t byte)
{
    if (!fifo_put(&s->rx, fifo_limit(s), byte))
        s->overrun = true;
}

static void write_data(struct serial *s, uint8_t byte)
{
    s->thr_interrupt = false;
    if (s->mcr & UART_MCR_LOOP) {
        receive(s, byte);
        s->thr_interrupt = true;
        return;
    }
    /* A guest that writes without looking at THRE overwrites the last byte, as on the real thing. */
    if (!fifo_put(&s->tx, fifo_limit(s), byte))
        s->tx.bytes[s->tx.used - 1] = byte;
    transmit(s);
}

static uint8_t read_data(struct serial *s)
{
    uint8_t byte = 0;

    if (s->rx.used) {
        byte = s->rx.bytes[0];
        fifo_drop(&s->rx, 1);
        /* The host is told when the FIFO is empty: then it can fill all of it. */
        if (!s->rx.used && s->room)
            s->room(s->room_opaque);
    }
    return byte;
}

static uint8_t read_iir(struct serial *s)
{
    uint8_t id = interrupt_id(s);

    if (id == UART_IIR_THRI)
        s->thr_interrupt = false;
    return id | (s->fcr & UART_FCR_ENABLE_FIFO ? 0xc0 : 0);
}

static uint8_t read_lsr(struct serial *s)
{
    uint8_t v = s->tx.used ? 0 : UART_LSR_THRE | UART_LSR_TEMT;

    if (s->rx.used)
        v |= UART_LSR_DR;
    if (s->overrun)
        v |= UART_LSR_OE;
    s->overrun = false;
    return v;
}

/* In loop-back the modem control outputs feed the modem status inputs. */
static uint8_t modem_lines(const struct serial *s)
{
    uint8_t v = 0;

    if (!(s->mcr & UART_MCR_LOOP))
        return MODEM_LINES;
    if (s->mcr & UART_MCR_RTS)
        v |= UART_MSR_CTS;
    if (s->mcr & UART_MCR_DTR)
        v |= UART_MSR_DSR;
    if (s->mcr & UART_MCR_OUT1)
        v |= UART_MSR_RI;
    if (s->mcr & UART_MCR_OUT2)
        v |= UART_MSR_DCD;
    return v;
}

static uint8_t read_msr(struct serial *s)
{
    uint8_t v = modem_lines(s) | s->msr_delta;

    s->msr_delta = 0;
    return v;
}

static void write_mcr(struct serial *s, uint8_t v)
{
    uint8_t before = modem_lines(s), changed;

    s->mcr = v & 0x1f;
    changed = before ^ modem_lines(s);
    s->msr_delta |= (changed >> 4) & (UART_MSR_DCTS | UART_MSR_DDSR | UART_MSR_DDCD);
    if ((changed & UART_MSR_RI) && (before & UART_MSR_RI)) /* RI tells its trailing edge only */
        s->msr_delta |= UART_MSR_TERI;
}

static void write_fcr(struct serial *s, uint8_t v)
{
    /* Switching the FIFOs on or off empties them. What waits for the gate has left the guest already: it
     * stays. */
    if ((v ^ s->fcr) & UART_FCR_ENABLE_FIFO || v & UART_FCR_CLEAR_RCVR) {
        s->rx.used = 0;
        if (s->room)
            s->room(s->room_opaque);
    }
    s->fcr = v & UART_FCR_ENABLE_FIFO ? v & ~(UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT) : 0;
}

static void write_ier(struct serial *s, uint8_t v)
{
    /* Enabling the transmit interrupt while there is nothing to send raises it: drivers rely on this to start
     * sending. */
    if ((v & ~s->ier & UART_IER_THRI) && !s->tx.used)
        s->thr_interrupt = true;
    s->ier = v & 0x0f;
}

static uint64_t serial_read(void *opaque, uint64_t offset, unsigned size)
{
    struct serial *s = opaque;
    bool dlab = s->lcr & UART_LCR_DLAB;
    uint8_t v = 0xff;

    (void)size;
    switch (offset) {
    case UART_RX:
        v = dlab ? s->dll : read_data(s);
        break;
    case UART_IER:
        v = dlab ? s->dlm : s->ier;
        break;
    case UART_IIR:
        v = read_iir(s);
        break;
    case UART_LCR:
        v = s->lcr;
        break;
    case UART_MCR:
        v = s->mcr;
        break;
    case UART_LSR:
        v = read_lsr(s);
        break;
    case UART_MSR:
        v = read_msr(s);
        break;
    case UART_SCR:
        v = s->scratch;
        break;
    }
    update_irq(s);
    return v;
}

static void serial_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct serial *s = opaque;
    bool dlab = s->lcr & UART_LCR_DLAB;
    uint8_t v = value;

    (void)size;
    switch (offset) {
    case UART_TX:
        if (dlab)
            s->dll = v;
        else
            write_data(s, v);
        break;
    case UART_IER:
        if (dlab)
            s->dlm = v;
        else
            write_ier(s, v);
        break;
    case UART_FCR:
        write_fcr(s, v);
        break;
    case UART_LCR:
        s->lcr = v;
        break;
    case UART_MCR:
        write_mcr(s, v);
        break;
    case UART_SCR:
        s->scratch = v;
        break;
    }
    update_irq(s);
}

static const struct io_ops serial_ops = {.read = serial_read, .write = serial_write};

static const VMStateField fifo_fields[] = {
    VMSTATE_U32(struct fifo, used, 1),
    VMSTATE_BUFFER(struct fifo, bytes, 1),
    VMSTATE_END,
};
static const VMStateDescription fifo_vmstate = {
    .name = "fifo", .version = 1, .minimum_version = 1, .fields = fifo_fields};

static bool serial_post_load(void *opaque, int version, Error **errp)
{
    struct serial *s = opaque;

    (void)version;
    if (s->rx.used > FIFO_SIZE || s->tx.used > FIFO_SIZE) {
        s->rx.used = s->tx.used = 0;
        error_setg(errp, "serial: the state has a FIFO of more than %d bytes", FIFO_SIZE);
        return false;
    }
    update_irq(s);
    return true;
}

static const VMStateField serial_fields[] = {
    VMSTATE_U8(struct serial, ier, 1),
    VMSTATE_U8(struct serial, lcr, 1),
    VMSTATE_U8(struct serial, mcr, 1),
    VMSTATE_U8(struct serial, scratch, 1),
    VMSTATE_U8(struct serial, dll, 1),
    VMSTATE_U8(struct serial, dlm, 1),
    VMSTATE_U8(struct serial, fcr, 1),
    VMSTATE_U8(struct serial, msr_delta, 1),
    VMSTATE_BOOL(struct serial, overrun, 1),
    VMSTATE_BOOL(struct serial, thr_interrupt, 1),
    VMSTATE_STRUCT(struct serial, rx, &fifo_vmstate, 1),
    VMSTATE_STRUCT(struct serial, tx, &fifo_vmstate, 1),
    VMSTATE_END,
};
static const VMStateDescription serial_vmstate = {.name = "serial",
                                                  .version = 1,
                                                  .minimum_version = 1,
                                                  .fields = serial_fields,
                                                  .post_load = serial_post_load};

static void serial_reset(Device *d)
{
    struct serial *s = (struct serial *)d;

    s->ier = s->lcr = s->mcr = s->scratch = s->fcr = s->msr_delta = 0;
    s->dll = 12; /* 9600 baud */
    s->dlm = 0;
    s->overrun = s->thr_interrupt = false;
    /* Also what waits for the gate: a side that lost its role is reset, and nothing of it may come out later.
     */
    s->rx.used = s->tx.used = 0;
    update_irq(s);
}

/* A byte that the other side could not put into its gate goes into ours. */
static void serial_take_over(Device *d)
{
    handle_writable(d);
}

static void serial_destroy(Device *d)
{
    struct serial *s = (struct serial *)d;

    console_gate_on_writable(s->gate, NULL, NULL);
    wake_destroy(&s->wake);
    d->host->unmap(d->host, IO_PORT, SERIAL_PORT);
    perdure_vmstate_unregister(&serial_vmstate, s);
    free(s);
}

static const struct device_class serial_class = {
    .name = "serial",
    .reset = serial_reset,
    .take_over = serial_take_over,
    .destroy = serial_destroy,
};

size_t serial_input(Device *serial, const void *buf, size_t n)
{
    struct serial *s = (struct serial *)serial;
    const uint8_t *bytes = buf;
    size_t taken = 0;

    while (taken < n && fifo_put(&s->rx, fifo_limit(s), bytes[taken]))
        taken++;
    if (taken)
        update_irq(s);
    return taken;
}

void serial_on_room(Device *serial, void (*room)(void *opaque), void *opaque)
{
    struct serial *s = (struct serial *)serial;

    s->room = room;
    s->room_opaque = opaque;
}

Device *serial_new(struct device_host *h, ConsoleGate *gate, Error **errp)
{
    struct serial *s = calloc(1, sizeof(*s));

    if (!s) {
        error_setg(errp, "serial: out of memory");
        return NULL;
    }
    s->device = (Device){.class = &serial_class, .id = "serial", .host = h};
    s->gate = gate;
    if (!wake_init(&s->wake, h->loop, handle_writable, s, errp))
        goto free_serial;
    if (!h->map(h, IO_PORT, SERIAL_PORT, SERIAL_SIZE, &serial_ops, s, errp))
        goto free_wake;
    if (!perdure_vmstate_register(&serial_vmstate, 0, s, errp))
        goto unmap;
    console_gate_on_writable(gate, gate_writable, s);
    serial_reset(&s->device);
    return &s->device;

unmap:
    h->unmap(h, IO_PORT, SERIAL_PORT);
free_wake:
    wake_destroy(&s->wake);
free_serial:
    free(s);
    return NULL;
}
