/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-net without offloads: frames in and out of fixed buffers. One user at a time. */
#ifndef GUESTS_LIB_VIRTIO_NET_H
#define GUESTS_LIB_VIRTIO_NET_H

#include <stddef.h>
#include "lib/virtio.h"

#define NET_FRAME_MAX 1514
#define NET_IRQ_RX    1 /* vector indices, when it has interrupts */
#define NET_IRQ_TX    2

struct net {
    struct virtio v;
    struct virtqueue rx, tx;
    uint8_t mac[6];
    uint64_t tx_free; /* bitmap of transmit buffers */
    uint64_t tx_done; /* chains that the device gave back */
};

/* irq_cpu: the processor that gets the interrupts, or -1: polled. */
bool net_open(struct net *n, int irq_cpu, bool event_idx);
/* The next frame (*ret_id returns it with net_release), or NULL. */
uint8_t *net_receive(struct net *n, size_t *ret_length, int *ret_id);
void net_release(struct net *n, int id);
/* A buffer for a frame, or NULL: all are in flight. It stays yours until net_send. */
uint8_t *net_buffer(struct net *n, int *ret_id);
void net_send(struct net *n, int id, size_t length);
/* Takes back what the device has sent. */
void net_reclaim(struct net *n);

#endif
