/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * NetPort: a chain of Ethernet ports between a NIC and the world: virtio-net -> output buffer -> tap. {ops,
 * next}: send goes outwards, receive comes inwards.
 *
 * Frames may carry a virtio_net_hdr (12 bytes, little-endian, modern) in front; all of a chain agree on that
 * (vnet_hdr).
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define NET_VNET_HDR_SIZE 12u
#define NET_FRAME_MAX     (65536u + 64u + NET_VNET_HDR_SIZE)

typedef struct NetPort NetPort;

struct net_port_ops {
    /* Takes a whole frame (header first) or nothing: false means full, try again after writable(). Never
     * drops. */
    bool (*send)(NetPort *p, const struct iovec *iov, int n);
    /* Reads one received frame into buf (header first): its size; 0 none is waiting; never more than size
     * (larger frames are dropped). */
    size_t (*receive)(NetPort *p, void *buf, size_t size);
    /* Offloads the guest accepted (VIRTIO_NET_F_GUEST_* bits): tap's TUNSETOFFLOAD. */
    bool (*set_offload)(NetPort *p, uint64_t guest_features, Error **errp);
    /* Descriptor to poll for received frames, -1 none. */
    int (*poll_fd)(NetPort *p);
    void (*close)(NetPort *p); /* frees p and what is behind it */
};

struct NetPort {
    const struct net_port_ops *ops;
    NetPort *next;  /* outwards */
    const char *id; /* "net0" */
    /* Set by the NIC: send may succeed again. Any thread; must only wake. */
    void (*writable)(void *opaque);
    void *writable_opaque;
};

bool net_send(NetPort *p, const struct iovec *iov, int n);
size_t net_receive(NetPort *p, void *buf, size_t size);
bool net_set_offload(NetPort *p, uint64_t guest_features, Error **errp);
int net_poll_fd(NetPort *p);
void net_close(NetPort *p);

/* A tap device with IFF_VNET_HDR, by name; it must exist. */
NetPort *net_tap_open(const char *id, const char *ifname, Error **errp);
/* A tap of its own, made on that bridge, gone when it is closed. The kernel chooses its name: perdure0, ...
 */
NetPort *net_tap_open_on_bridge(const char *id, const char *bridge, Error **errp);
/* Frames to and from memory, for tests and for a NIC without a cable. */
NetPort *net_null_open(const char *id);

/* RARP (and nothing else: the monitor knows no IP address) for mac, sent through p. */
bool net_announce_rarp(NetPort *p, const uint8_t mac[6]);

#endif
