# SPDX-License-Identifier: GPL-2.0-or-later
"""The network between the test hosts, and what one can see on it.

All of it lies in a network namespace that this process moves itself into, so that nothing of it shows outside and all of
it goes with the last process in it:

    br-pub  10.77.0.0/24   the public net: .1 this process (client, etcd), .11 .12 .13 hosts A B C, .100 the guest
    br-rep  10.78.0.0/24   the path between the hosts; this process has no address there

Each host has a tap in both: pubA, repA and so on. The guest's own tap is bridged to the public card inside the host.
"""
import ctypes
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections import namedtuple

PUBLIC, REPLICATION = "public", "replication"
HARNESS_ADDRESS = "10.77.0.1"
GUEST_ADDRESS, GUEST_MAC = "10.77.0.100", "52:54:00:77:00:64"
BEACON_PORT = 7777

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
ETH_P_ALL, PACKET_OUTGOING, SO_RCVBUFFORCE = 3, 4, 33

Frame = namedtuple("Frame", "time data")
Beacon = namedtuple("Beacon", "time boot n random")
Span = namedtuple("Span", "boot host first last")


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def enter_namespace():
    """To be called by the main thread, before any other thread starts: the others inherit it."""
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNET | (0 if uid == 0 else CLONE_NEWUSER)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace (needs root, or user namespaces)")
    if uid != 0:
        for path, line in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{path}", "w", encoding="ascii") as f:
                f.write(line)


class Net:
    """The namespace with its two bridges. One a process."""

    def __init__(self):
        enter_namespace()
        ip("link", "set", "lo", "up")
        for bridge in ("br-pub", "br-rep"):
            ip("link", "add", bridge, "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
            self._no_ipv6(bridge)
            ip("link", "set", bridge, "up")
        ip("addr", "add", f"{HARNESS_ADDRESS}/24", "dev", "br-pub")

    def add_tap(self, name, bridge):
        ip("tuntap", "add", name, "mode", "tap", "vnet_hdr")
        self._no_ipv6(name)
        ip("link", "set", name, "master", bridge)
        self.set_link(name, True)

    def remove_tap(self, name):
        ip("link", "del", name)

    def set_link(self, name, up):
        ip("link", "set", name, "up" if up else "down")

    @staticmethod
    def _no_ipv6(name):
        path = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
        if os.path.exists(path):
            with open(path, "w", encoding="ascii") as f:
                f.write("1")


class Capture:
    """Every frame that comes out of one tap, which is: that the host emits. Ends with stop(), or a `with` block."""

    def __init__(self, tap):
        self.tap, self.frames = tap, []
        self._ending = False
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # of no protocol yet: until it is bound it would see every tap
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        except PermissionError:  # in a user namespace
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._sock.bind((tap, ETH_P_ALL))
        self._sock.settimeout(0.2)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._ending:
            try:
                data, address = self._sock.recvfrom(65536)
            except OSError:  # a timeout, or the tap went down
                continue
            if address[2] != PACKET_OUTGOING:
                self.frames.append(Frame(time.monotonic(), data))

    def stop(self):
        self._ending = True
        self._thread.join()
        self._sock.close()
        return self.frames

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def guest_frames(self, since=0.0, mac=GUEST_MAC):
        """The frames since @since (time.monotonic()) whose source is the guest."""
        source = bytes.fromhex(mac.replace(":", ""))
        return [f for f in self.frames if f.time >= since and f.data[6:12] == source]

    def beacons(self):
        return [b for b in map(parse_beacon, self.frames) if b]


def parse_beacon(frame):
    """guestd's beacon, if this frame is one."""
    data = frame.data
    if len(data) < 42 or data[12:14] != b"\x08\x00" or data[23] != socket.IPPROTO_UDP:
        return None
    udp = 14 + (data[14] & 15) * 4
    if struct.unpack_from(">H", data, udp + 2)[0] != BEACON_PORT:
        return None
    words = re.fullmatch(rb"beacon (\w+) (\d+) (\w+)\0*", data[udp + 8:])
    return Beacon(frame.time, words[1], int(words[2]), words[3]) if words else None


class OutputEscaped(Exception):
    """The same moment of the guest's life was seen from two hosts, or twice from one."""


def beacon_spans(captures):
    """Which host showed which part of the guest's life: a list of Span, in order of the guest's own counting.

    @captures maps a host's name to its Capture. Raises OutputEscaped when a beacon was seen twice: an output that left before it was
    acknowledged is sent again by the guest on the other side. Each change of role may add one span and no more: the
    caller compares the number, because spans that alternate mean that both sides ran on at once.
    """
    seen, first_time = {}, {}
    for host, capture in captures.items():
        for beacon in capture.beacons():
            key = (beacon.boot, beacon.n)
            if key in seen:
                raise OutputEscaped(f"beacon {beacon.n} was emitted by {seen[key]} and by {host}")
            seen[key] = host
            first_time[beacon.boot] = min(beacon.time, first_time.get(beacon.boot, beacon.time))
    spans = []
    for boot, n in sorted(seen, key=lambda key: (first_time[key[0]], key[1])):
        host = seen[boot, n]
        if spans and (spans[-1].boot, spans[-1].host) == (boot, host):
            spans[-1] = spans[-1]._replace(last=n)
        else:
            spans.append(Span(boot, host, n, n))
    return spans
