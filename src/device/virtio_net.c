/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-net: one pair of queues and a control queue, on a NetPort.
 *
 * What the guest sends is never dropped: a frame that the port does not take now stays in the ring, unpopped,
 * until the port is writable. What the guest receives may wait: a frame that no buffer is there for is kept
 * (one), and no more are read until the guest gives some. The kept frame is not part of the state: nobody has
 * promised it to anyone.
 */
#include "device/devices.h"

#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/endian.h"
#include "base/log.h"
#include "device/virtio_pci.h"

enum { RX, TX, CONTROL, QUEUES };

/* Frames of one wakeup: then other handlers, and vCPUs, get their turn. */
#define BATCH 64

#define FEATURES                                                                                             \
    (1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_MAC |                \
     1ull << VIRTIO_NET_F_GUEST_TSO4 | 1ull << VIRTIO_NET_F_GUEST_TSO6 | 1ull << VIRTIO_NET_F_GUEST_ECN |    \
     1ull << VIRTIO_NET_F_HOST_TSO4 | 1ull << VIRTIO_NET_F_HOST_TSO6 | 1ull << VIRTIO_NET_F_HOST_ECN |       \
     1ull << VIRTIO_NET_F_MRG_RXBUF | 1ull << VIRTIO_NET_F_STATUS | 1ull << VIRTIO_NET_F_CTRL_VQ |           \
     1ull << VIRTIO_NET_F_GUEST_ANNOUNCE)

struct virtio_net {
    Device device;
    struct virtio_pci transport;
    NetPort *port;
    int poll_fd;
    uint8_t mac[6];
    bool announce; /* the guest is asked to announce itself, and has not said that it did */

    /* Not saved. */
    size_t kept; /* bytes of frame; 0: none is kept */
    uint8_t frame[NET_FRAME_MAX];
    unsigned short_of; /* buffers that were there and did not suffice when deliver() said NO_BUFFERS */
    bool port_gone;
    uint64_t left_out;           /* frames that are none */
    struct vq_chain first, more; /* scratch */
};

static struct virtio_net *from_virtio(struct virtio_device *v)
{
    return (struct virtio_net *)((char *)v - offsetof(struct virtio_net, transport.virtio));
}

/* --- from the guest --- */

static void report_left_out(struct virtio_net *n, size_t size)
{
    /* The 1st, 2nd, 4th, 8th...: a guest cannot flood the log. */
    n->left_out++;
    if (!(n->left_out & (n->left_out - 1)))
        log_warn("device %s: the guest sent %zu bytes, which is no frame; left out (%llu so far)",
                 n->device.id, size, (unsigned long long)n->left_out);
}

/* False: the port is full, and the frame is still in the ring. */
static bool transmit(struct virtio_net *n, struct virtqueue *q)
{
    struct vq_chain *c = &n->first;

    if (c->out_bytes <= NET_VNET_HDR_SIZE || c->out_bytes > NET_FRAME_MAX)
        report_left_out(n, c->out_bytes);
    else if (!net_send(n->port, c->iov, c->out_count)) {
        virtqueue_unpop(q, 1);
        return false;
    }
    virtqueue_push(q, c->head, 0);
    return true;
}

static void handle_tx(struct virtio_net *n)
{
    struct virtqueue *q = &n->transport.virtio.queues[TX];
    unsigned budget = BATCH;

    do {
        while (budget && virtqueue_pop(q, &n->first)) {
            budget--;
            /* When the port is writable it kicks us. */
            if (!transmit(n, q))
                goto out;
        }
    } while (budget && virtqueue_enable_kicks(q, 0));
    if (!budget)
        virtio_pci_kick_later(&n->transport, TX);
out:
    virtio_queue_done(&n->transport.virtio, TX);
}

static void port_writable(void *opaque)
{
    struct virtio_net *n = opaque;

    virtio_pci_kick_later(&n->transport, TX);
}

/* --- to the guest --- */

enum delivery { DELIVERED, NO_BUFFERS, IMPOSSIBLE };

/* One buffer is enough for all of the frame, or the frame cannot be had. */
static enum delivery deliver_single(struct virtio_net *n, struct virtqueue *q)
{
    n->short_of = 0;
    if (!virtqueue_pop(q, &n->first))
        return NO_BUFFERS;
    if (n->first.in_bytes < n->kept) {
        virtqueue_unpop(q, 1);
        return IMPOSSIBLE;
    }
    le16_put(n->frame + offsetof(struct virtio_net_hdr_v1, num_buffers), 1);
    vq_chain_write(q, &n->first, 0, n->frame, n->kept);
    virtqueue_push(q, n->first.head, n->kept);
    return DELIVERED;
}

/* As many buffers as the frame needs; their number stands in the first, so that one is filled last. */
static enum delivery deliver_merged(struct virtio_net *n, struct virtqueue *q)
{
    struct {
        uint16_t head;
        uint32_t written;
    } used[VIRTQUEUE_SIZE_MAX];
    unsigned count = 0;
    size_t done = 0;

    while (done < n->kept) {
        struct vq_chain *c = count ? &n->more : &n->first;

        if (count == q->size || !virtqueue_pop(q, c)) {
            virtqueue_unpop(q, count);
            n->short_of = count;
            return count == q->size ? IMPOSSIBLE : NO_BUFFERS;
        }
        if (c->in_bytes < (count ? 1 : NET_VNET_HDR_SIZE)) {
            q->broken = true;
            return NO_BUFFERS;
        }
        used[count].head = c->head;
        used[count].written = vq_chain_write(q, c, 0, n->frame + done, n->kept - done);
        done += used[count++].written;
    }
    vq_chain_write(q, &n->first, offsetof(struct virtio_net_hdr_v1, num_buffers), &(uint16_t){htole16(count)},
                   2);
    for (unsigned i = 0; i < count; i++)
        virtqueue_fill(q, used[i].head, used[i].written);
    virtqueue_flush(q);
    return DELIVERED;
}

static enum delivery deliver(struct virtio_net *n, struct virtqueue *q)
{
    if (virtio_has_feature(&n->transport.virtio, VIRTIO_NET_F_MRG_RXBUF))
        return deliver_merged(n, q);
    return deliver_single(n, q);
}

static bool can_receive(struct virtio_net *n)
{
    struct virtio_device *v = &n->transport.virtio;

    return virtio_is_running(v) && v->queues[RX].enabled && v->may_access_memory(v);
}

/* Polls the port only while a frame could be delivered. */
static void update_polling(struct virtio_net *n)
{
    if (n->poll_fd >= 0)
        loop_set_fd_events(n->device.host->loop, n->poll_fd,
                           can_receive(n) && !n->kept && !n->port_gone ? EPOLLIN : 0);
}

static void handle_rx(struct virtio_net *n)
{
    struct virtqueue *q = &n->transport.virtio.queues[RX];

    for (unsigned i = 0; i < BATCH && can_receive(n); i++) {
        enum delivery result;

        if (!n->kept)
            n->kept = net_receive(n->port, n->frame, sizeof(n->frame));
        if (!n->kept)
            break;
        do
            result = deliver(n, q);
        while (result == NO_BUFFERS && virtqueue_enable_kicks(q, n->short_of));
        if (result == NO_BUFFERS)
            break;
        n->kept = 0;
    }
    virtio_queue_done(&n->transport.virtio, RX);
    update_polling(n);
}

static void port_readable(void *opaque, uint32_t events)
{
    struct virtio_net *n = opaque;

    /* An error without a frame stays for ever: the interface was deleted. Polling it would never sleep again.
     */
    if (!(events & EPOLLIN)) {
        log_warn("device %s: its interface on the host is gone", n->device.id);
        n->port_gone = true;
    }
    handle_rx(n);
}

/* --- control --- */

static bool control(struct virtio_net *n, const struct virtio_net_ctrl_hdr *h)
{
    if (h->class != VIRTIO_NET_CTRL_ANNOUNCE || h->cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK)
        return false;
    n->announce = false;
    return true;
}

static void handle_control(struct virtio_net *n)
{
    struct virtqueue *q = &n->transport.virtio.queues[CONTROL];
    struct vq_chain *c = &n->first;
    struct virtio_net_ctrl_hdr h;
    unsigned budget = BATCH;

    do {
        while (budget && virtqueue_pop(q, c)) {
            uint8_t ack;

            budget--;
            if (vq_chain_read(c, 0, &h, sizeof(h)) < sizeof(h) || !c->in_bytes) {
                q->broken = true;
                break;
            }
            ack = control(n, &h) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
            virtqueue_push(q, c->head, vq_chain_write(q, c, 0, &ack, 1));
        }
    } while (budget && virtqueue_enable_kicks(q, 0));
    if (!budget)
        virtio_pci_kick_later(&n->transport, CONTROL);
    virtio_queue_done(&n->transport.virtio, CONTROL);
}

/* --- virtio --- */

static void net_kick(struct virtio_device *v, unsigned queue)
{
    struct virtio_net *n = from_virtio(v);

    if (queue == RX)
        handle_rx(n);
    else if (queue == TX)
        handle_tx(n);
    else
        handle_control(n);
}

static void net_start(struct virtio_device *v)
{
    struct virtio_net *n = from_virtio(v);
    Error *err = NULL;

    if (!net_set_offload(n->port, v->driver_features, &err)) {
        log_warn("%s", error_get_pretty(err));
        error_free(err);
    }
    /* Chains are popped and pushed within one handler: what is in flight here was so on no side. */
    for (unsigned i = 0; i < QUEUES; i++)
        virtqueue_unpop(&v->queues[i], v->queues[i].inflight_count);
    update_polling(n);
}

static void net_stop(struct virtio_device *v)
{
    struct virtio_net *n = from_virtio(v);

    n->kept = 0;
    if (n->poll_fd >= 0)
        loop_set_fd_events(n->device.host->loop, n->poll_fd, 0);
}

static void net_read_config(struct virtio_device *v, uint8_t *config)
{
    struct virtio_net *n = from_virtio(v);

    memcpy(config, n->mac, sizeof(n->mac));
    le16_put(config + offsetof(struct virtio_net_config, status),
             VIRTIO_NET_S_LINK_UP | (n->announce ? VIRTIO_NET_S_ANNOUNCE : 0));
}

static const struct virtio_ops net_ops = {
    .device_id = VIRTIO_ID_NET,
    .features = FEATURES,
    .config_size = offsetof(struct virtio_net_config, max_virtqueue_pairs),
    .read_config = net_read_config,
    .start = net_start,
    .stop = net_stop,
    .kick = net_kick,
};

/* --- saved state --- */

static bool net_post_load(void *opaque, int version, Error **errp)
{
    struct virtio_net *n = opaque;

    (void)version;
    return virtio_pci_post_load(&n->transport, errp);
}

static const VMStateField net_fields[] = {
    VMSTATE_STRUCT(struct virtio_net, transport, &virtio_pci_vmstate, 1),
    VMSTATE_BUFFER(struct virtio_net, mac, 1),
    VMSTATE_BOOL(struct virtio_net, announce, 1),
    VMSTATE_END,
};
static const VMStateDescription net_vmstate = {.name = "virtio-net",
                                               .version = 1,
                                               .minimum_version = 1,
                                               .fields = net_fields,
                                               .post_load = net_post_load};

/* --- device --- */

static void net_reset(Device *d)
{
    struct virtio_net *n = (struct virtio_net *)d;

    virtio_pci_reset(&n->transport);
    n->announce = false;
}

static void net_take_over(Device *d)
{
    virtio_pci_take_over(&((struct virtio_net *)d)->transport);
}

/* Both ways: switches learn from the RARP at once, and a guest that can will tell the IP world. */
static void net_announce(Device *d)
{
    struct virtio_net *n = (struct virtio_net *)d;

    net_announce_rarp(n->port, n->mac);
    if (virtio_is_running(&n->transport.virtio) &&
        virtio_has_feature(&n->transport.virtio, VIRTIO_NET_F_GUEST_ANNOUNCE)) {
        n->announce = true;
        virtio_config_changed(&n->transport.virtio);
    }
}

static void net_destroy(Device *d)
{
    struct virtio_net *n = (struct virtio_net *)d;

    n->port->writable = NULL;
    perdure_vmstate_unregister(&net_vmstate, n);
    if (n->poll_fd >= 0)
        loop_remove_fd(d->host->loop, n->poll_fd);
    virtio_pci_destroy(&n->transport);
    net_close(n->port);
    free(n);
}

static const struct device_class net_class = {
    .name = "virtio-net",
    .reset = net_reset,
    .take_over = net_take_over,
    .announce = net_announce,
    .destroy = net_destroy,
};

static bool net_init(struct virtio_net *n, Error **errp)
{
    struct device_host *h = n->device.host;

    if (!virtio_pci_init(&n->transport, h, errp))
        return false;
    n->poll_fd = net_poll_fd(n->port);
    if (n->poll_fd >= 0 && !loop_add_fd(h->loop, n->poll_fd, 0, port_readable, n, errp))
        goto undo_transport;
    if (!perdure_vmstate_register(&net_vmstate, n->transport.pci.slot, n, errp))
        goto undo_polling;
    n->port->writable = port_writable;
    n->port->writable_opaque = n;
    return true;

undo_polling:
    if (n->poll_fd >= 0)
        loop_remove_fd(h->loop, n->poll_fd);
undo_transport:
    virtio_pci_destroy(&n->transport);
    return false;
}

Device *virtio_net_new(struct device_host *h, const char *id, unsigned slot, const uint8_t mac[6],
                       NetPort *port, Error **errp)
{
    struct virtio_net *n = calloc(1, sizeof(*n));

    if (!n) {
        error_setg(errp, "device %s: out of memory", id);
        net_close(port);
        return NULL;
    }
    n->device = (Device){.class = &net_class, .host = h};
    strncpy(n->device.id, id, sizeof(n->device.id) - 1);
    n->port = port;
    memcpy(n->mac, mac, sizeof(n->mac));
    n->transport.virtio.ops = &net_ops;
    n->transport.virtio.queue_count = QUEUES;
    n->transport.virtio.id = n->device.id;
    n->transport.pci.slot = slot;
    if (net_init(n, errp))
        return &n->device;
    net_close(port);
    free(n);
    return NULL;
}
