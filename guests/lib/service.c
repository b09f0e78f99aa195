/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/cmdline.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/ip.h"
#include "lib/power.h"
#include "lib/service.h"
#include "lib/status.h"
#include "lib/string.h"

static struct net net;
static bool up;
static uint8_t my_ip[4];
static service_op own_op;
static uint16_t ending; /* op to carry out once its answer is sent */

struct net *service_net(void)
{
    return up ? &net : NULL;
}

static void send(int id, size_t length)
{
    net_send(&net, id, length < 60 ? 60 : length);
    status.frames_out++;
}

static void fill_ethernet(struct ethernet *e, const uint8_t to[6], uint16_t type)
{
    memcpy(e->to, to, 6);
    memcpy(e->from, net.mac, 6);
    e->type = big16(type);
}

static void send_arp(int id, uint8_t *frame, uint16_t op, const uint8_t to_mac[6], const uint8_t to_ip[4])
{
    struct arp *a = (void *)(frame + sizeof(struct ethernet));

    memset(frame, 0, 60);
    fill_ethernet((void *)frame, to_mac, ETHERTYPE_ARP);
    a->hardware = big16(1);
    a->protocol = big16(ETHERTYPE_IPV4);
    a->hardware_size = 6;
    a->protocol_size = 4;
    a->op = big16(op);
    memcpy(a->from_mac, net.mac, 6);
    memcpy(a->from_ip, my_ip, 4);
    memcpy(a->to_mac, to_mac, 6);
    memcpy(a->to_ip, to_ip, 4);
    send(id, 60);
}

bool service_announce(void)
{
    static const uint8_t everyone[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    int id;
    uint8_t *frame = net_buffer(&net, &id);

    if (!frame)
        return false;
    send_arp(id, frame, 1, everyone, my_ip);
    return true;
}

static void answer_arp(const uint8_t *in, size_t n, int id, uint8_t *out)
{
    const struct arp *a = (const void *)(in + sizeof(struct ethernet));

    if (n < sizeof(struct ethernet) + sizeof(*a) || a->op != big16(1) || memcmp(a->to_ip, my_ip, 4) != 0)
        return;
    send_arp(id, out, 2, a->from_mac, a->from_ip);
}

static void fill_ipv4(struct ipv4 *ip, const struct ipv4 *request, size_t length)
{
    memset(ip, 0, sizeof(*ip));
    ip->version = 0x45;
    ip->length = big16(length);
    ip->ttl = 64;
    ip->protocol = request->protocol;
    memcpy(ip->from, my_ip, 4);
    memcpy(ip->to, request->from, 4);
    ip->checksum = ~ip_sum(0, ip, sizeof(*ip));
}

/* Length of the answer behind the IPv4 header; 0: none. */
static size_t answer_icmp(const struct icmp *in, size_t n, struct icmp *out)
{
    if (n < sizeof(*in) || ip_sum(0, in, n) != 0xffff) {
        status.frames_bad++;
        return 0;
    }
    if (in->type != 8)
        return 0;
    memcpy(out, in, n);
    out->type = 0;
    out->checksum = 0;
    out->checksum = ~ip_sum(0, out, n);
    return n;
}

static void take_control(const void *from, size_t n)
{
    struct guest_control c;

    if (n < sizeof(c))
        return;
    memcpy(&c, from, sizeof(c));
    status.control.rate = c.rate;
    status.control.pages = c.pages;
    status.control.stride = c.stride;
    status.control.reset = c.reset;
    status.control.print = c.print;
    status.control.sequence = status.control.sequence + 1;
}

static void print_text(const char *from, size_t n)
{
    char text[GUEST_TEXT_MAX + 1];

    n = n > GUEST_TEXT_MAX ? GUEST_TEXT_MAX : n;
    memcpy(text, from, n);
    text[n] = 0;
    print("%s\n", text);
}

/* extra: what follows the message, n bytes of it; room behind the answer is at least a struct guest_status.
 * Length of what follows the answer. */
static size_t carry_out(struct guest_message *m, const char *extra, size_t n, char *out)
{
    m->answer = GUEST_ANSWER_OK;
    m->boot_id = status.boot_id;
    switch (m->op) {
    case GUEST_OP_STATUS:
        memcpy(out, (const void *)&status, sizeof(struct guest_status));
        return sizeof(struct guest_status);
    case GUEST_OP_CONTROL:
        take_control(extra, n);
        return 0;
    case GUEST_OP_PRINT:
        print_text(extra, n);
        return 0;
    case GUEST_OP_POWEROFF ... GUEST_OP_PANIC:
        ending = m->op;
        return 0;
    default:
        if (!own_op || !own_op(m))
            m->answer = GUEST_ANSWER_UNKNOWN;
        return 0;
    }
}

static size_t answer_udp(const struct ipv4 *ip, const struct udp *in, size_t n, struct udp *out)
{
    struct guest_message m;
    char *after = (char *)(out + 1) + sizeof(m);
    size_t extra;

    if (n < sizeof(*in) || big16(in->length) < sizeof(*in) || big16(in->length) > n ||
        (in->checksum &&
         ip_sum(ip_pseudo_sum(ip, IP_UDP, big16(in->length)), in, big16(in->length)) != 0xffff)) {
        status.frames_bad++;
        return 0;
    }
    extra = big16(in->length) - sizeof(*in);
    if (in->to != big16(GUEST_UDP_PORT) || extra < sizeof(m))
        return 0;
    memcpy(&m, in + 1, sizeof(m));
    if (m.magic != GUEST_MESSAGE_MAGIC)
        return 0;
    n = sizeof(*out) + sizeof(m) +
        carry_out(&m, (const char *)(in + 1) + sizeof(m), extra - sizeof(m), after);
    memcpy(out + 1, &m, sizeof(m));
    out->from = in->to;
    out->to = in->from;
    out->length = big16(n);
    out->checksum = 0;
    return n;
}

static void sum_udp(const struct ipv4 *ip, struct udp *u, size_t n)
{
    u->checksum = ~ip_sum(ip_pseudo_sum(ip, IP_UDP, n), u, n);
    if (u->checksum == 0)
        u->checksum = 0xffff;
}

static void answer_ipv4(const uint8_t *in, size_t n, int id, uint8_t *out)
{
    const struct ipv4 *ip = (const void *)(in + sizeof(struct ethernet));
    struct ipv4 *reply = (void *)(out + sizeof(struct ethernet));
    size_t length = 0, header = sizeof(*ip);

    n -= sizeof(struct ethernet);
    if (n < header || ip->version != 0x45 || big16(ip->length) < header || big16(ip->length) > n ||
        ip_sum(0, ip, header) != 0xffff) {
        status.frames_bad++;
        return;
    }
    if (memcmp(ip->to, my_ip, 4) != 0 || (big16(ip->fragment) & 0x3fff))
        return;
    n = big16(ip->length) - header;
    if (ip->protocol == IP_ICMP)
        length = answer_icmp((const void *)(ip + 1), n, (void *)(reply + 1));
    if (ip->protocol == IP_UDP)
        length = answer_udp(ip, (const void *)(ip + 1), n, (void *)(reply + 1));
    if (length == 0)
        return;
    fill_ethernet((void *)out, ((const struct ethernet *)(const void *)in)->from, ETHERTYPE_IPV4);
    fill_ipv4(reply, ip, header + length);
    if (ip->protocol == IP_UDP)
        sum_udp(reply, (void *)(reply + 1), length);
    send(id, sizeof(struct ethernet) + header + length);
}

static void answer_frame(const uint8_t *in, size_t n, int id, uint8_t *out)
{
    const struct ethernet *e = (const void *)in;

    status.frames_in++;
    if (n < sizeof(*e) || n > NET_FRAME_MAX)
        return;
    if (e->type == big16(ETHERTYPE_ARP))
        answer_arp(in, n, id, out);
    else if (e->type == big16(ETHERTYPE_IPV4))
        answer_ipv4(in, n, id, out);
}

static void end(uint16_t op)
{
    switch (op) {
    case GUEST_OP_POWEROFF:
        power_off();
        break;
    case GUEST_OP_RESET:
        power_reset();
        break;
    case GUEST_OP_RESET_KBD:
        power_reset_keyboard();
        break;
    case GUEST_OP_TRIPLE_FAULT:
        cpu_triple_fault();
    case GUEST_OP_PANIC:
        power_panic();
        break;
    }
}

void service_poll(void)
{
    int in_id, out_id;
    uint8_t *in, *out;
    size_t n;

    if (!up)
        return;
    /* A frame is taken only when there is room for its answer: nothing is dropped. */
    while (vq_pending(&net.rx) && (out = net_buffer(&net, &out_id))) {
        in = net_receive(&net, &n, &in_id);
        answer_frame(in, n, out_id, out);
        net_release(&net, in_id);
        if (ending) {
            uint16_t op = ending;
            ending = 0;
            end(op);
        }
    }
}

bool service_start(service_op op, int irq_cpu, bool event_idx)
{
    own_op = op;
    if (!option_ipv4("ip", my_ip))
        return false;
    if (!net_open(&net, irq_cpu, event_idx)) {
        print("%s: ip= is given, but there is no usable virtio-net\n", guest_name);
        return false;
    }
    up = true;
    service_announce();
    return true;
}
