/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/io.h"
#include "lib/string.h"
#include "lib/virtio_net.h"

#define HEADER      12
#define BUFFER_SIZE 2048
#define F_MAC       (1ull << 5)

static struct vq_memory rx_memory, tx_memory;
static uint8_t rx_buffers[VQ_SIZE][BUFFER_SIZE] __attribute__((aligned(4096)));
static uint8_t tx_buffers[VQ_SIZE][BUFFER_SIZE];

bool net_open(struct net *n, int irq_cpu, bool event_idx)
{
    bool irq = irq_cpu >= 0;

    if (!virtio_open(&n->v, 1, 0, F_MAC | (event_idx ? VIRTIO_F_EVENT_IDX : 0)))
        return false;
    if (!virtio_queue(&n->v, 0, &rx_memory, irq ? NET_IRQ_RX : -1, irq_cpu, &n->rx) ||
        !virtio_queue(&n->v, 1, &tx_memory, irq ? NET_IRQ_TX : -1, irq_cpu, &n->tx))
        return false;
    for (unsigned i = 0; i < sizeof(n->mac); i++)
        n->mac[i] = mmio_read8(n->v.config + i);
    n->tx_free = ~0ull;
    n->tx_done = 0;
    virtio_ready(&n->v);
    for (int i = 0; i < VQ_SIZE; i++) {
        rx_memory.desc[i] = (struct vq_desc){(uintptr_t)rx_buffers[i], BUFFER_SIZE, VQ_WRITE, 0};
        net_release(n, i);
    }
    return true;
}

uint8_t *net_receive(struct net *n, size_t *ret_length, int *ret_id)
{
    uint32_t length;
    int id = vq_take(&n->rx, &length);

    if (id < 0)
        return NULL;
    *ret_length = length > HEADER && length <= BUFFER_SIZE ? length - HEADER : 0;
    *ret_id = id;
    return rx_buffers[id] + HEADER;
}

void net_release(struct net *n, int id)
{
    vq_submit(&n->rx, id);
}

void net_reclaim(struct net *n)
{
    int id;

    while ((id = vq_take(&n->tx, NULL)) >= 0) {
        n->tx_free |= 1ull << id;
        n->tx_done++;
    }
}

uint8_t *net_buffer(struct net *n, int *ret_id)
{
    if (!n->tx.interrupts) /* else its owner reclaims, once told */
        net_reclaim(n);
    if (n->tx_free == 0)
        return NULL;
    *ret_id = __builtin_ctzll(n->tx_free);
    return tx_buffers[*ret_id] + HEADER;
}

void net_send(struct net *n, int id, size_t length)
{
    n->tx_free &= ~(1ull << id);
    memset(tx_buffers[id], 0, HEADER);
    tx_memory.desc[id] = (struct vq_desc){(uintptr_t)tx_buffers[id], HEADER + length, 0, 0};
    vq_submit(&n->tx, id);
}
