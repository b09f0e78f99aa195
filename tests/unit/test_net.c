/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ports: chains, and a real tap where the machine that runs the tests has /dev/net/tun and lets us use it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/net.h"

static void nothing_to_close(NetPort *p)
{
    (void)p;
}

/* A filter without operations of its own is the port behind it. */
static void test_chain(void **state)
{
    static const struct net_port_ops filter_ops = {.close = nothing_to_close};
    NetPort *null = net_null_open("net0");
    NetPort filter = {.ops = &filter_ops, .next = null, .id = "filter"};
    uint8_t buf[64];

    (void)state;
    assert_true(net_send(&filter, &(struct iovec){buf, sizeof(buf)}, 1));
    assert_int_equal(net_receive(&filter, buf, sizeof(buf)), 0);
    assert_int_equal(net_poll_fd(&filter), -1);
    assert_true(net_set_offload(&filter, 0, NULL));
    net_close(&filter);
    net_close(null);
    net_close(NULL);
}

static void interface_up(const char *name)
{
    struct ifreq ifr = {.ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
    close(fd);
}

/* The host's side: a packet socket on the interface. */
static int open_host_side(const char *name, int protocol)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET, .sll_protocol = htobe16(protocol), .sll_ifindex = if_nametoindex(name)};
    int fd =
        socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); /* until it is bound it would see every interface */

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static bool wait_readable(int fd)
{
    return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 5000) == 1;
}

/* A tap device that outlives its maker until it is told otherwise; false: not allowed here. */
static bool make_tap(const char *name, bool persists)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    bool ok;

    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    ok = fd >= 0 && ioctl(fd, TUNSETIFF, &ifr) == 0 && ioctl(fd, TUNSETPERSIST, (long)persists) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

static void test_tap(void **state)
{
    static const uint8_t mac[6] = {0x52, 0x54, 0, 7, 8, 9};
    char name[16];
    uint8_t frame[2048];
    Error *err = NULL;
    NetPort *tap;
    size_t n = 0;
    int host;

    (void)state;
    snprintf(name, sizeof(name), "pdt%d", (int)getpid() % 100000);
    /* One that is not there is not made: nothing would be behind it. */
    assert_null(net_tap_open("net0", name, &err));
    assert_non_null(strstr(error_get_pretty(err), "net0"));
    error_free(err);
    err = NULL;
    if (!make_tap(name, true)) {
        fprintf(stderr, "skipped: no tap device can be made here\n");
        skip();
    }
    tap = net_tap_open("net0", name, &err);
    assert_non_null(tap);
    /* Somebody else cannot have it too. */
    assert_null(net_tap_open("net1", name, &err));
    assert_non_null(strstr(error_get_pretty(err), name));
    error_free(err);
    assert_true(net_set_offload(tap, 0, NULL));
    /* Down: the frame is taken all the same. */
    assert_true(net_announce_rarp(tap, mac));

    interface_up(name);
    host = open_host_side(name, 0x8035);
    assert_true(net_announce_rarp(tap, mac));
    assert_true(wait_readable(host));
    assert_int_equal(recv(host, frame, sizeof(frame), 0), 60);
    assert_memory_equal(frame + 6, mac, 6);
    assert_memory_equal(frame + 22, mac, 6);

    memset(frame, 0, sizeof(frame));
    memcpy(frame, mac, 6);
    memcpy(frame + 6, "\x02\x00\x00\x00\x00\x01\x80\x35", 8);
    frame[99] = 0x77;
    assert_int_equal(send(host, frame, 100, 0), 100);
    /* The host's own stack may talk too (IPv6): look for ours. */
    for (int tries = 0; tries < 20 && n != NET_VNET_HDR_SIZE + 100; tries++) {
        assert_true(wait_readable(net_poll_fd(tap)));
        n = net_receive(tap, frame, sizeof(frame));
    }
    assert_int_equal(n, NET_VNET_HDR_SIZE + 100);
    assert_int_equal(frame[NET_VNET_HDR_SIZE + 99], 0x77);
    close(host);
    net_close(tap);
    assert_true(make_tap(name, false));

    assert_null(net_tap_open("net0", "a-name-that-is-too-long", NULL));
}

/* A tap of its own on a bridge: there while it is open, and it carries frames. */
static void test_bridge(void **state)
{
    static const uint8_t mac[6] = {0x52, 0x54, 0, 7, 8, 10};
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), host;
    char bridge[IFNAMSIZ];
    uint8_t frame[2048];
    Error *err = NULL;
    NetPort *tap;

    (void)state;
    snprintf(bridge, sizeof(bridge), "pdb%d", (int)getpid() % 100000);
    assert_null(net_tap_open_on_bridge("net0", bridge, &err));
    assert_non_null(strstr(error_get_pretty(err), "there is no bridge"));
    error_free(err);
    err = NULL;
    if (ioctl(control, SIOCBRADDBR, bridge) < 0) {
        fprintf(stderr, "skipped: no bridge can be made here\n");
        skip();
    }
    assert_null(net_tap_open_on_bridge("net0", "lo", &err));
    assert_non_null(strstr(error_get_pretty(err), "is it a bridge?"));
    error_free(err);
    interface_up(bridge);
    tap = net_tap_open_on_bridge("net0", bridge, NULL);
    assert_non_null(tap);
    host = open_host_side(bridge, 0x8035);
    /* A port of a bridge without a spanning tree forwards at once. */
    assert_true(net_announce_rarp(tap, mac));
    assert_true(wait_readable(host));
    assert_int_equal(recv(host, frame, sizeof(frame), 0), 60);
    assert_memory_equal(frame + 6, mac, 6);
    close(host);
    net_close(tap);
    {
        struct ifreq down = {0};

        memcpy(down.ifr_name, bridge, sizeof(bridge));
        ioctl(control, SIOCSIFFLAGS, &down);
    }
    assert_int_equal(ioctl(control, SIOCBRDELBR, bridge), 0);
    close(control);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_tap),
        cmocka_unit_test(test_bridge),
    };

    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
