/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tap: the host's end of a NIC, an interface of its kernel. Frames carry the virtio_net_hdr, so that
 * checksums and segments that the guest left undone are done by the host's stack or never.
 */
#include "net/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

/* The kernel takes a frame at once unless the interface's own limit is reached, which drains in microseconds.
 */
#define SEND_WAIT_MS 100

struct tap {
    NetPort port;
    char name[IFNAMSIZ];
    int fd;
    uint64_t lost; /* frames that the kernel did not take */
};

static void report_lost(struct tap *t, int errnum)
{
    /* Every one is counted; the log gets the 1st, 2nd, 4th, 8th... */
    t->lost++;
    if (!(t->lost & (t->lost - 1)))
        log_warn("net %s: tap %s did not take a frame: %s (%llu so far)", t->port.id, t->name,
                 strerrordesc_np(errnum), (unsigned long long)t->lost);
}

/* Always takes the frame: what the kernel refuses now (interface down, nonsense in the header) it refuses
 * again. */
static bool tap_send(NetPort *p, const struct iovec *iov, int n)
{
    struct tap *t = (struct tap *)p;

    for (int tries = 0;; tries++) {
        if (writev(t->fd, iov, n) >= 0)
            return true;
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN && tries < 3 &&
            poll(&(struct pollfd){.fd = t->fd, .events = POLLOUT}, 1, SEND_WAIT_MS) > 0)
            continue;
        report_lost(t, errno);
        return true;
    }
}

static size_t tap_receive(NetPort *p, void *buf, size_t size)
{
    struct tap *t = (struct tap *)p;
    ssize_t n;

    do
        n = read(t->fd, buf, size);
    while (n < 0 && errno == EINTR);
    return n > (ssize_t)NET_VNET_HDR_SIZE ? n : 0;
}

static bool tap_set_offload(NetPort *p, uint64_t guest_features, Error **errp)
{
    static const struct {
        unsigned feature, offload;
    } map[] = {
        {VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM},
        {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
        {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
        {VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN},
    };
    struct tap *t = (struct tap *)p;
    unsigned long offload = 0;

    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
        if (guest_features & 1ull << map[i].feature)
            offload |= map[i].offload;
    }
    if (ioctl(t->fd, TUNSETOFFLOAD, offload) == 0)
        return true;
    error_setg_errno(errp, errno, "net %s: tap %s cannot do the offloads 0x%lx", p->id, t->name, offload);
    return false;
}

static int tap_poll_fd(NetPort *p)
{
    return ((struct tap *)p)->fd;
}

static void tap_close(NetPort *p)
{
    struct tap *t = (struct tap *)p;

    close(t->fd);
    free(t);
}

static const struct net_port_ops tap_ops = {
    .send = tap_send,
    .receive = tap_receive,
    .set_offload = tap_set_offload,
    .poll_fd = tap_poll_fd,
    .close = tap_close,
};

static bool set_interface(struct tap *t, struct ifreq *ifr, Error **errp)
{
    int header = NET_VNET_HDR_SIZE;

    ifr->ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (ioctl(t->fd, TUNSETIFF, ifr) < 0) {
        if (errno == EPERM)
            error_setg_errno(
                errp, EPERM,
                "net %s: cannot use tap %s: run as root, or let root make it for you with 'ip tuntap add "
                "dev %s mode tap vnet_hdr user NAME'",
                t->port.id, ifr->ifr_name, ifr->ifr_name);
        else
            error_setg_errno(errp, errno, "net %s: cannot use tap %s%s", t->port.id, ifr->ifr_name,
                             errno == EBUSY ? " (does another machine use it?)" : "");
        return false;
    }
    memcpy(t->name, ifr->ifr_name, sizeof(t->name));
    if (ioctl(t->fd, TUNSETVNETHDRSZ, &header) < 0) {
        error_setg_errno(errp, errno, "net %s: tap %s cannot carry a header of %d bytes", t->port.id, t->name,
                         header);
        return false;
    }
    return tap_set_offload(&t->port, 0, errp);
}

static bool attach_to_tap(struct tap *t, const char *name, Error **errp)
{
    struct ifreq ifr = {0};

    if (strlen(name) >= sizeof(ifr.ifr_name)) {
        error_setg(errp, "net %s: the name of a tap has at most 15 characters", t->port.id);
        return false;
    }
    /* The kernel would make one, with nothing behind it: a guest without a network, and nobody knows why. */
    if (!if_nametoindex(name)) {
        error_setg_errno(errp, ENODEV,
                         "net %s: there is no tap %s: make it with 'ip tuntap add dev %s mode tap vnet_hdr'",
                         t->port.id, name, name);
        return false;
    }
    memcpy(ifr.ifr_name, name, strlen(name));
    return set_interface(t, &ifr, errp);
}

static bool join_bridge(struct tap *t, int control, const char *bridge, Error **errp)
{
    struct ifreq port = {.ifr_ifindex = (int)if_nametoindex(t->name)}, up = {0};

    memcpy(port.ifr_name, bridge, strlen(bridge));
    memcpy(up.ifr_name, t->name, sizeof(up.ifr_name));
    if (control < 0 || ioctl(control, SIOCBRADDIF, &port) < 0) {
        error_setg_errno(errp, errno, "net %s: cannot make %s a port of %s (is it a bridge?)", t->port.id,
                         t->name, bridge);
        return false;
    }
    if (ioctl(control, SIOCGIFFLAGS, &up) < 0 ||
        (up.ifr_flags |= IFF_UP, ioctl(control, SIOCSIFFLAGS, &up) < 0)) {
        error_setg_errno(errp, errno, "net %s: cannot bring %s up", t->port.id, t->name);
        return false;
    }
    return true;
}

static bool attach_to_bridge(struct tap *t, const char *bridge, Error **errp)
{
    struct ifreq ifr = {.ifr_name = "perdure%d"};
    bool ok = false;
    int control;

    if (strlen(bridge) >= sizeof(ifr.ifr_name) || !if_nametoindex(bridge)) {
        error_setg_errno(errp, ENODEV, "net %s: there is no bridge %s", t->port.id, bridge);
        return false;
    }
    control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ok = set_interface(t, &ifr, errp) && join_bridge(t, control, bridge, errp);
    if (control >= 0)
        close(control);
    return ok;
}

static NetPort *open_tap(const char *id, const char *name,
                         bool (*attach)(struct tap *t, const char *name, Error **errp), Error **errp)
{
    struct tap *t = calloc(1, sizeof(*t));

    if (!t) {
        error_setg(errp, "net %s: out of memory", id);
        return NULL;
    }
    t->port = (NetPort){.ops = &tap_ops, .id = id};
    t->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (t->fd < 0) {
        error_setg_errno(errp, errno, "net %s: cannot open /dev/net/tun", id);
        free(t);
        return NULL;
    }
    if (!attach(t, name, errp)) {
        tap_close(&t->port);
        return NULL;
    }
    return &t->port;
}

NetPort *net_tap_open(const char *id, const char *ifname, Error **errp)
{
    return open_tap(id, ifname, attach_to_tap, errp);
}

NetPort *net_tap_open_on_bridge(const char *id, const char *bridge, Error **errp)
{
    return open_tap(id, bridge, attach_to_bridge, errp);
}
