/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/ip.h"
#include "lib/string.h"

static uint16_t fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

uint16_t ip_sum(uint32_t sum, const void *p, size_t n)
{
    const uint8_t *b = p;

    for (; n >= 2; n -= 2, b += 2)
        sum += b[0] | b[1] << 8;
    if (n)
        sum += b[0];
    return fold(sum);
}

uint32_t ip_pseudo_sum(const struct ipv4 *ip, uint8_t protocol, uint16_t length)
{
    return ip_sum(0, ip->from, 8) + big16(protocol) + big16(length);
}
