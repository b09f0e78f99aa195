/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Frame formats, and the checksum that IPv4, ICMP and UDP share. Numbers in frames are big-endian. */
#ifndef GUESTS_LIB_IP_H
#define GUESTS_LIB_IP_H

#include <stddef.h>
#include <stdint.h>

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP  0x0806
#define IP_ICMP        1
#define IP_UDP         17

struct ethernet {
    uint8_t to[6], from[6];
    uint16_t type;
} __attribute__((packed));

struct arp {
    uint16_t hardware, protocol;
    uint8_t hardware_size, protocol_size;
    uint16_t op;
    uint8_t from_mac[6], from_ip[4], to_mac[6], to_ip[4];
} __attribute__((packed));

struct ipv4 {
    uint8_t version, tos;
    uint16_t length, id, fragment;
    uint8_t ttl, protocol;
    uint16_t checksum;
    uint8_t from[4], to[4];
} __attribute__((packed));

struct icmp {
    uint8_t type, code;
    uint16_t checksum;
} __attribute__((packed));

struct udp {
    uint16_t from, to, length, checksum;
} __attribute__((packed));

/* One's complement sum of n bytes, on top of sum; both as 16 bits in memory order. */
uint16_t ip_sum(uint32_t sum, const void *p, size_t n);
/* The pseudo header's part of a UDP checksum; length in host order. */
uint32_t ip_pseudo_sum(const struct ipv4 *ip, uint8_t protocol, uint16_t length);

static inline uint16_t big16(uint16_t v)
{
    return __builtin_bswap16(v);
}

#endif
