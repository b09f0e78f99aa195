/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-console with several ports.
 *
 * Queues: 0 and 1 are port 0's input and output, 2 and 3 carry control messages to and from the driver, port
 * n has 2 + 2n and 3 + 2n. A driver that does not know of several ports (no MULTIPORT) has port 0 alone.
 *
 * Output is never dropped here: while a port's gate is full, the chain stays in flight, and how much of it is
 * out already is part of the state. Input is taken only while the driver has the port open and buffers for
 * it; the rest stays with whoever sends it.
 *
 * What the driver must be told (a port is there, its name, somebody came or left) are bits of each port, not
 * a queue of messages: a driver that gives no buffers makes nothing grow.
 *
 * Whoever was at the other end of a port when the host died talked to that host: after a takeover the driver
 * is told that he left.
 */
#include "device/devices.h"

#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "device/virtio_pci.h"

enum { CONTROL_IN = 2, CONTROL_OUT = 3 };

/* Of one wakeup of a port: then others get their turn. */
#define BATCH_CHAINS 64
#define BATCH_BYTES  (64u * 1024)
#define PIECE        4096u

/* Messages that the driver has not got yet, in the order in which it gets them. */
enum message { ADD, CONSOLE, NAME, CLOSED, OPENED, MESSAGES };

struct port {
    struct virtio_console *owner;
    struct console_port outside;
    bool connected; /* somebody is at the other end */

    /* saved */
    bool ready;       /* the driver has made its side of the port */
    bool guest_open;  /* a program in the guest, or its console, has it open */
    bool host_open;   /* what the driver was told last */
    uint8_t pending;  /* bits 1 << enum message */
    uint64_t tx_done; /* bytes of the chain in flight that are out */
};

struct virtio_console {
    Device device;
    struct virtio_pci transport;
    unsigned count;
    struct port ports[CONSOLE_PORTS_MAX];
    uint32_t saved_ports, saved_queues; /* count, and queues after VIRTIO_QUEUES_SAVED, for the state */
    struct vq_chain chain;              /* scratch */
};

static struct virtio_console *from_virtio(struct virtio_device *v)
{
    return (struct virtio_console *)((char *)v - offsetof(struct virtio_console, transport.virtio));
}

static unsigned index_of(const struct port *p)
{
    return (unsigned)(p - p->owner->ports);
}

static unsigned input_queue(const struct port *p)
{
    return index_of(p) ? 2 + 2 * index_of(p) : 0;
}

static unsigned output_queue(const struct port *p)
{
    return input_queue(p) + 1;
}

static bool exists(const struct port *p)
{
    return p->outside.gate;
}

static bool multiport(const struct virtio_console *c)
{
    return virtio_has_feature(&c->transport.virtio, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* --- control messages to the driver --- */

/* The length of the message; its value where it has one. */
static size_t compose(struct port *p, enum message m, uint8_t *buf)
{
    static const uint16_t events[MESSAGES] = {
        [ADD] = VIRTIO_CONSOLE_PORT_ADD,     [CONSOLE] = VIRTIO_CONSOLE_CONSOLE_PORT,
        [NAME] = VIRTIO_CONSOLE_PORT_NAME,   [CLOSED] = VIRTIO_CONSOLE_PORT_OPEN,
        [OPENED] = VIRTIO_CONSOLE_PORT_OPEN,
    };
    size_t n = sizeof(struct virtio_console_control);

    le32_put(buf + offsetof(struct virtio_console_control, id), index_of(p));
    le16_put(buf + offsetof(struct virtio_console_control, event), events[m]);
    le16_put(buf + offsetof(struct virtio_console_control, value), m != CLOSED);
    if (m == NAME) {
        memcpy(buf + n, p->outside.name, strlen(p->outside.name));
        n += strlen(p->outside.name);
    }
    return n;
}

/* False: there is nothing, and the driver will tell when there is. */
static bool pop_or_wait(struct virtio_console *c, struct virtqueue *q)
{
    do {
        if (virtqueue_pop(q, &c->chain))
            return true;
    } while (virtqueue_enable_kicks(q, 0));
    return false;
}

/* False: the driver has no buffer for it now, or one that is too small, which breaks the rules. */
static bool send_message(struct port *p, enum message m)
{
    uint8_t buf[sizeof(struct virtio_console_control) + sizeof(p->outside.name)];
    struct virtio_console *c = p->owner;
    struct virtqueue *q = &c->transport.virtio.queues[CONTROL_IN];
    size_t n = compose(p, m, buf);

    if (!pop_or_wait(c, q))
        return false;
    if (c->chain.in_bytes < n || c->chain.out_count) {
        q->broken = true;
        return false;
    }
    virtqueue_push(q, c->chain.head, vq_chain_write(q, &c->chain, 0, buf, n));
    p->pending &= ~(1u << m);
    if (m == OPENED || m == CLOSED)
        p->host_open = m == OPENED;
    return true;
}

static bool send_messages_of(struct port *p)
{
    for (unsigned m = 0; m < MESSAGES; m++)
        if (p->pending & 1u << m && !send_message(p, m))
            return false;
    return true;
}

static void send_control(struct virtio_console *c)
{
    for (unsigned i = 0; i < c->count && send_messages_of(&c->ports[i]); i++)
        ;
    virtio_queue_done(&c->transport.virtio, CONTROL_IN);
}

static void control_later(struct virtio_console *c)
{
    if (multiport(c))
        virtio_kick(&c->transport.virtio, CONTROL_IN);
}

/* --- control messages from the driver --- */

static void port_ready(struct port *p)
{
    p->ready = true;
    p->pending |= (p->outside.console ? 1u << CONSOLE : 0) | (p->outside.name[0] ? 1u << NAME : 0) |
                  (p->connected ? 1u << OPENED : 0);
}

static void announce_ports(struct virtio_console *c)
{
    for (unsigned i = 0; i < c->count; i++)
        if (exists(&c->ports[i]))
            c->ports[i].pending |= 1u << ADD;
}

/* A message about a port that is not there, or of a kind that we do not know, is left alone. */
static void control(struct virtio_console *c, uint32_t id, uint16_t event, uint16_t value)
{
    struct port *p = id < c->count && exists(&c->ports[id]) ? &c->ports[id] : NULL;

    if (event == VIRTIO_CONSOLE_DEVICE_READY && value) {
        announce_ports(c);
    } else if (p && event == VIRTIO_CONSOLE_PORT_READY && value) {
        port_ready(p);
    } else if (p && event == VIRTIO_CONSOLE_PORT_OPEN) {
        p->guest_open = value;
        if (p->guest_open)
            p->outside.room(p->outside.opaque);
    }
}

static void read_control(struct virtio_console *c)
{
    struct virtqueue *q = &c->transport.virtio.queues[CONTROL_OUT];
    uint8_t m[sizeof(struct virtio_console_control)];
    unsigned budget = BATCH_CHAINS;

    do {
        while (budget && virtqueue_pop(q, &c->chain)) {
            budget--;
            if (vq_chain_read(&c->chain, 0, m, sizeof(m)) < sizeof(m)) {
                q->broken = true;
                break;
            }
            virtqueue_push(q, c->chain.head, 0);
            control(c, le32_get(m), le16_get(m + offsetof(struct virtio_console_control, event)),
                    le16_get(m + offsetof(struct virtio_console_control, value)));
        }
    } while (budget && virtqueue_enable_kicks(q, 0));
    if (!budget)
        virtio_pci_kick_later(&c->transport, CONTROL_OUT);
    virtio_queue_done(&c->transport.virtio, CONTROL_OUT);
    control_later(c);
}

/* --- output --- */

enum progress { DONE, FULL, TURN_OVER };

/* The rest of the chain in flight into the gate. */
static enum progress send_chain(struct port *p, size_t *budget)
{
    uint8_t piece[PIECE];
    size_t n, taken;

    /* Of a port that is not there the bytes go nowhere. */
    while (exists(p) && (n = vq_chain_read(&p->owner->chain, p->tx_done, piece, PIECE))) {
        if (!*budget)
            return TURN_OVER;
        *budget -= n < *budget ? n : *budget;
        taken = console_gate_put(p->outside.gate, piece, n);
        p->tx_done += taken;
        if (taken < n)
            return FULL;
    }
    return DONE;
}

/* The chain in flight, or the next one. */
static bool next_chain(struct port *p, struct virtqueue *q)
{
    if (q->inflight_count)
        return virtqueue_refetch(q, 0, &p->owner->chain);
    p->tx_done = 0;
    return virtqueue_pop(q, &p->owner->chain);
}

static enum progress transmit(struct port *p, struct virtqueue *q)
{
    size_t budget = BATCH_BYTES;
    enum progress progress;

    do {
        for (unsigned chains = 0; next_chain(p, q); chains++) {
            if (chains == BATCH_CHAINS)
                return TURN_OVER;
            if (p->owner->chain.in_count) {
                q->broken = true;
                return DONE;
            }
            progress = send_chain(p, &budget);
            if (progress != DONE)
                return progress;
            virtqueue_push(q, p->owner->chain.head, 0);
        }
    } while (virtqueue_enable_kicks(q, 0));
    return DONE;
}

static void handle_output(struct port *p)
{
    struct virtio_pci *t = &p->owner->transport;

    /* When it was FULL the gate tells us. */
    if (transmit(p, &t->virtio.queues[output_queue(p)]) == TURN_OVER)
        virtio_pci_kick_later(t, output_queue(p));
    virtio_queue_done(&t->virtio, output_queue(p));
}

static void gate_writable(void *opaque)
{
    struct port *p = opaque;

    virtio_pci_kick_later(&p->owner->transport, output_queue(p));
}

void virtio_console_resume_output(Device *console, unsigned port)
{
    gate_writable(&((struct virtio_console *)console)->ports[port]);
}

/* --- input --- */

static bool can_receive(struct port *p)
{
    struct virtio_device *v = &p->owner->transport.virtio;

    return virtio_is_running(v) && v->queues[input_queue(p)].enabled && v->may_access_memory(v) &&
           (multiport(p->owner) ? p->guest_open : index_of(p) == 0);
}

/* Bytes written into the next buffer; 0: there is none. */
static size_t fill_buffer(struct virtio_console *c, struct virtqueue *q, const void *buf, size_t n)
{
    if (!pop_or_wait(c, q))
        return 0;
    if (c->chain.out_count) {
        q->broken = true;
        return 0;
    }
    n = vq_chain_write(q, &c->chain, 0, buf, n);
    virtqueue_push(q, c->chain.head, n);
    return n;
}

size_t virtio_console_input(Device *console, unsigned port, const void *buf, size_t n)
{
    struct virtio_console *c = (struct virtio_console *)console;
    struct port *p = &c->ports[port];
    struct virtqueue *q = &c->transport.virtio.queues[input_queue(p)];
    size_t done = 0, piece = 1;

    if (!can_receive(p))
        return 0;
    while (done < n && piece) {
        piece = fill_buffer(c, q, (const uint8_t *)buf + done, n - done);
        done += piece;
    }
    virtio_queue_done(&c->transport.virtio, input_queue(p));
    return done;
}

void virtio_console_set_open(Device *console, unsigned port, bool open)
{
    struct virtio_console *c = (struct virtio_console *)console;
    struct port *p = &c->ports[port];

    p->connected = open;
    if (!p->ready)
        return;
    /* One who came and left before the driver heard of it was never there. */
    if (open)
        p->pending |= 1u << OPENED;
    else if (p->host_open)
        p->pending = (p->pending | 1u << CLOSED) & ~(1u << OPENED);
    else
        p->pending &= ~(1u << OPENED);
    control_later(c);
}

/* --- virtio --- */

static void console_kick(struct virtio_device *v, unsigned queue)
{
    struct virtio_console *c = from_virtio(v);
    struct port *p = &c->ports[queue < 2 ? 0 : queue / 2 - 1];

    if (queue >= 2 && !multiport(c))
        return;
    if (queue == CONTROL_IN)
        send_control(c);
    else if (queue == CONTROL_OUT)
        read_control(c);
    else if (queue % 2)
        handle_output(p);
    else if (exists(p))
        p->outside.room(p->outside.opaque);
}

/* Of one who takes over: whoever was at the other end is there no more; who is here now has just come. */
static void console_start(struct virtio_device *v)
{
    struct virtio_console *c = from_virtio(v);

    for (unsigned i = 0; i < c->count; i++) {
        struct port *p = &c->ports[i];

        p->pending &= ~(1u << CLOSED | 1u << OPENED);
        if (p->host_open)
            p->pending |= 1u << CLOSED;
        if (p->connected && p->ready)
            p->pending |= 1u << OPENED;
    }
}

/* Everything is done within handlers. */
static void console_stop(struct virtio_device *v)
{
    (void)v;
}

static void console_forget(struct virtio_device *v)
{
    struct virtio_console *c = from_virtio(v);

    for (unsigned i = 0; i < c->count; i++) {
        struct port *p = &c->ports[i];

        p->ready = p->guest_open = p->host_open = false;
        p->pending = 0;
        p->tx_done = 0;
    }
}

static void console_read_config(struct virtio_device *v, uint8_t *config)
{
    le32_put(config + offsetof(struct virtio_console_config, max_nr_ports), from_virtio(v)->count);
}

static const struct virtio_ops console_ops = {
    .device_id = VIRTIO_ID_CONSOLE,
    .features = 1ull << VIRTIO_CONSOLE_F_MULTIPORT,
    .config_size = offsetof(struct virtio_console_config, emerg_wr),
    .read_config = console_read_config,
    .start = console_start,
    .stop = console_stop,
    .reset = console_forget,
    .kick = console_kick,
};

/* --- saved state --- */

static uint32_t more_queues(const struct virtio_console *c)
{
    return c->transport.virtio.queue_count - VIRTIO_QUEUES_SAVED;
}

static bool console_pre_save(void *opaque, Error **errp)
{
    struct virtio_console *c = opaque;

    (void)errp;
    c->saved_ports = c->count;
    c->saved_queues = more_queues(c);
    return true;
}

static const char *check_port(struct port *p)
{
    const struct virtqueue *queues = p->owner->transport.virtio.queues;

    if (p->pending >> MESSAGES)
        return "messages that there are none of";
    if (queues[output_queue(p)].inflight_count > 1 || queues[input_queue(p)].inflight_count)
        return "requests in flight that cannot be";
    return NULL;
}

static const char *check_loaded(struct virtio_console *c)
{
    const struct virtqueue *queues = c->transport.virtio.queues;
    const char *wrong = NULL;

    if (c->saved_ports != c->count || c->saved_queues != more_queues(c))
        return "another number of ports";
    if (queues[CONTROL_IN].inflight_count || queues[CONTROL_OUT].inflight_count)
        return "requests in flight that cannot be";
    for (unsigned i = 0; i < c->count && !wrong; i++)
        wrong = check_port(&c->ports[i]);
    return wrong;
}

static bool console_post_load(void *opaque, int version, Error **errp)
{
    struct virtio_console *c = opaque;
    const char *wrong = check_loaded(c);

    (void)version;
    for (unsigned i = 0; i < c->count; i++)
        if (exists(&c->ports[i]))
            c->ports[i].outside.cut(c->ports[i].outside.opaque);
    if (!wrong)
        return virtio_pci_post_load(&c->transport, errp);
    error_setg(errp, "device %s: the state has %s", c->device.id, wrong);
    virtio_pci_reset(&c->transport);
    return false;
}

static const VMStateField port_fields[] = {
    VMSTATE_BOOL(struct port, ready, 1),     VMSTATE_BOOL(struct port, guest_open, 1),
    VMSTATE_BOOL(struct port, host_open, 1), VMSTATE_U8(struct port, pending, 1),
    VMSTATE_U64(struct port, tx_done, 1),    VMSTATE_END,
};
static const VMStateDescription port_vmstate = {
    .name = "port", .version = 1, .minimum_version = 1, .fields = port_fields};

static const VMStateField console_fields[] = {
    VMSTATE_STRUCT(struct virtio_console, transport, &virtio_pci_vmstate, 1),
    VMSTATE_U32(struct virtio_console, saved_queues, 1),
    {.name = "more_queues",
     .type = VMSTATE_TYPE_STRUCT,
     .offset = offsetof(struct virtio_console, transport.virtio.queues[VIRTIO_QUEUES_SAVED]),
     .size = sizeof(struct virtqueue),
     .count = VIRTIO_QUEUES_MAX - VIRTIO_QUEUES_SAVED,
     .since = 1,
     .variable = true,
     .count_offset = offsetof(struct virtio_console, saved_queues),
     .sub = &virtqueue_vmstate},
    VMSTATE_U32(struct virtio_console, saved_ports, 1),
    VMSTATE_STRUCT_VARRAY(struct virtio_console, ports, CONSOLE_PORTS_MAX, saved_ports, &port_vmstate, 1),
    VMSTATE_END,
};
static const VMStateDescription console_vmstate = {.name = "virtio-console",
                                                   .version = 1,
                                                   .minimum_version = 1,
                                                   .fields = console_fields,
                                                   .pre_save = console_pre_save,
                                                   .post_load = console_post_load};

/* --- device --- */

static void console_reset(Device *d)
{
    virtio_pci_reset(&((struct virtio_console *)d)->transport);
}

static void console_take_over(Device *d)
{
    virtio_pci_take_over(&((struct virtio_console *)d)->transport);
}

static void listen_to_gates(struct virtio_console *c, bool on)
{
    for (unsigned i = 0; i < c->count; i++)
        if (exists(&c->ports[i]))
            console_gate_on_writable(c->ports[i].outside.gate, on ? gate_writable : NULL, &c->ports[i]);
}

static void console_destroy(Device *d)
{
    struct virtio_console *c = (struct virtio_console *)d;

    listen_to_gates(c, false);
    perdure_vmstate_unregister(&console_vmstate, c);
    virtio_pci_destroy(&c->transport);
    free(c);
}

static const struct device_class console_class = {
    .name = "virtio-console",
    .reset = console_reset,
    .take_over = console_take_over,
    .destroy = console_destroy,
};

static void set_ports(struct virtio_console *c, const struct console_port *ports, unsigned count)
{
    c->count = count;
    for (unsigned i = 0; i < CONSOLE_PORTS_MAX; i++)
        c->ports[i].owner = c;
    for (unsigned i = 0; i < count; i++)
        c->ports[i].outside = ports[i];
    c->transport.virtio.queue_count =
        2 + 2 * count > VIRTIO_QUEUES_SAVED ? 2 + 2 * count : VIRTIO_QUEUES_SAVED;
}

Device *virtio_console_new(struct device_host *h, unsigned slot, const struct console_port *ports,
                           unsigned count, Error **errp)
{
    struct virtio_console *c = calloc(1, sizeof(*c));

    if (!c) {
        error_setg(errp, "device channels: out of memory");
        return NULL;
    }
    c->device = (Device){.class = &console_class, .id = "channels", .host = h};
    set_ports(c, ports, count);
    c->transport.virtio.ops = &console_ops;
    c->transport.virtio.id = c->device.id;
    c->transport.pci.slot = slot;
    if (!virtio_pci_init(&c->transport, h, errp))
        goto free_device;
    if (!perdure_vmstate_register(&console_vmstate, (int)slot, c, errp))
        goto undo;
    listen_to_gates(c, true);
    return &c->device;

undo:
    virtio_pci_destroy(&c->transport);
free_device:
    free(c);
    return NULL;
}
