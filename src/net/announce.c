/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "net/net.h"

#include <string.h>

#define ETHERTYPE_RARP       0x8035
#define RARP_REQUEST_REVERSE 3
#define HARDWARE_ETHERNET    1
#define PROTOCOL_IPV4        0x0800
#define FRAME_SIZE           60 /* the least that Ethernet carries */

static uint8_t *put_be16(uint8_t *p, uint16_t v)
{
    *p++ = v >> 8;
    *p++ = v;
    return p;
}

static uint8_t *put(uint8_t *p, const void *bytes, size_t n)
{
    memcpy(p, bytes, n);
    return p + n;
}

/* "Who am I?", asked of everybody: switches learn from it on which port mac lives now; nobody answers. */
bool net_announce_rarp(NetPort *p, const uint8_t mac[6])
{
    static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, no_ip[4];
    uint8_t buf[NET_VNET_HDR_SIZE + FRAME_SIZE] = {0};
    uint8_t *at = buf + NET_VNET_HDR_SIZE;

    at = put(at, broadcast, 6);
    at = put(at, mac, 6);
    at = put_be16(at, ETHERTYPE_RARP);
    at = put_be16(at, HARDWARE_ETHERNET);
    at = put_be16(at, PROTOCOL_IPV4);
    *at++ = 6;
    *at++ = 4;
    at = put_be16(at, RARP_REQUEST_REVERSE);
    at = put(at, mac, 6);
    at = put(at, no_ip, 4);
    at = put(at, mac, 6);
    put(at, no_ip, 4);
    return net_send(p, &(struct iovec){.iov_base = buf, .iov_len = sizeof(buf)}, 1);
}
