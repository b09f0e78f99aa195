#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Does the harness do what its tests will rely on?

    selftest.py            all of it, about a minute on two cores; perdure itself is not needed
    selftest.py WORD...    only the tests whose name has one of the words

The two hosts stay up from test to test, so each leaves them as it found them. "A power cut" comes last for that reason.
"""
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import uuid

from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import
from network import Frame

ARBITER = f"{images.TOP}/contrib/arbiter-etcd"
GRANTED, DENIED, UNKNOWN = 0, 1, 2


class World:
    """What all tests share."""

    def __init__(self):
        self.net = Net()
        self.images = images.build()
        self.log_dir = tempfile.mkdtemp(prefix="perdure-selftest-")
        self.a = Host(self.net, "A", self.images, log_dir=self.log_dir)
        self.b = Host(self.net, "B", self.images, log_dir=self.log_dir)
        self.etcd = Etcd()
        start_hosts(self.a, self.b)

    def close(self):
        for part in (self.a, self.b, self.etcd):
            part.close() if isinstance(part, Host) else part.stop()


def pings(host, address):
    return host.run(f"ping -c 1 -W 2 {address}", check=False).code == 0


def claim(etcd, pair, generation, side, **environment):
    """One call of the arbiter script on this machine: its exit status."""
    env = {**os.environ, "PERDURE_PAIR": pair, "PERDURE_GENERATION": str(generation), "PERDURE_SIDE": side,
           "PERDURE_VM": "web", "PERDURE_PEER": "10.78.0.12:7700", "ETCDCTL_ENDPOINTS": etcd.endpoint if etcd else "",
           "PERDURE_ETCD_CONF": "/nonexistent", "ARBITER_ETCD_TIMEOUT": "2", **environment}
    return subprocess.run([ARBITER], env=env, stderr=subprocess.DEVNULL, check=False, timeout=60).returncode


# The arbiter script, against a real etcd


def test_arbiter_first_claim_wins_for_ever(world):
    pair = str(uuid.uuid4())
    for side, other in (("primary", "backup"), ("backup", "primary")):
        generation = 1 if side == "primary" else 2
        for asks, wants in ((side, GRANTED), (other, DENIED), (side, GRANTED), (other, DENIED)):
            assert claim(world.etcd, pair, generation, asks) == wants, (generation, asks)
    assert claim(world.etcd, str(uuid.uuid4()), 1, "backup") == GRANTED, "another pair is another question"


def test_arbiter_grants_one_of_many_at_once(world):
    pair = str(uuid.uuid4())
    env = {**os.environ, "PERDURE_PAIR": pair, "PERDURE_GENERATION": "7", "ETCDCTL_ENDPOINTS": world.etcd.endpoint}
    running = [(side, subprocess.Popen([ARBITER], env={**env, "PERDURE_SIDE": side}, stderr=subprocess.DEVNULL))
               for side in ("primary", "backup") * 4]
    answers = {(side, process.wait(60)) for side, process in running}
    assert answers in ({("primary", GRANTED), ("backup", DENIED)}, {("primary", DENIED), ("backup", GRANTED)}), answers


def test_arbiter_never_denies_without_an_answer(world):
    pair = str(uuid.uuid4())
    world.etcd.freeze()
    try:
        assert claim(world.etcd, pair, 1, "primary") == UNKNOWN
    finally:
        world.etcd.thaw()
    # Whether the frozen etcd took that claim in or not, the same side may have it.
    assert claim(world.etcd, pair, 1, "primary") == GRANTED
    assert claim(world.etcd, pair, 1, "backup", ETCDCTL_ENDPOINTS="http://10.77.0.1:1") == UNKNOWN
    assert claim(None, pair, 1, "backup") == UNKNOWN


def test_arbiter_refuses_what_makes_no_sense(world):
    pair = str(uuid.uuid4())
    for bad in ({"PERDURE_SIDE": ""}, {"PERDURE_PAIR": "a b"}, {"PERDURE_PAIR": 'x"\n\ndel "" "z'},
                {"PERDURE_GENERATION": "$(id)"}):
        assert claim(world.etcd, pair, 1, "primary", **bad) == UNKNOWN, bad
    for generation, value in enumerate(("two words", "", "other", "primary2"), 1):
        world.etcd.ctl("put", f"/perdure/{pair}/{generation}", value)
        assert claim(world.etcd, pair, generation, "primary") == UNKNOWN, f"the claim {value!r} denies nobody"


def test_arbiter_reads_its_configuration(world):
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
        conf.write(f"ETCDCTL_ENDPOINTS={world.etcd.endpoint}\n")
        conf.flush()
        assert claim(None, str(uuid.uuid4()), 1, "backup", PERDURE_ETCD_CONF=conf.name) == GRANTED


def test_arbiter_in_a_host(world):
    pair = str(uuid.uuid4())
    for host, side, wants in ((world.a, "backup", GRANTED), (world.b, "primary", DENIED)):
        line = f"ETCDCTL_ENDPOINTS={world.etcd.endpoint} PERDURE_PAIR={pair} PERDURE_GENERATION=1 PERDURE_SIDE={side}"
        assert host.run(f"{line} /usr/lib/perdure/arbiter-etcd", check=False).code == wants


# What the tests judge by can say no


class Emitted:
    """Stands for a Capture that saw these beacons."""

    def __init__(self, *beacons):
        self.frames = [Frame(time, beacon_frame(boot, n)) for time, boot, n in beacons]

    beacons = Capture.beacons


def beacon_frame(boot, n):
    udp = struct.pack(">HHHH", 7777, 7777, 0, 0) + f"beacon {boot} {n} 0123".encode()
    return bytes(12) + b"\x08\x00" + b"\x45" + bytes(8) + bytes([socket.IPPROTO_UDP]) + bytes(10) + udp


def raises(error, function, *arguments):
    try:
        function(*arguments)
    except error:
        return True
    return False


def test_spans_show_who_ran(_):
    a = Emitted((1, "one", 1), (2, "one", 2), (9, "one", 4))  # the last left late, acknowledged
    b = Emitted((5, "one", 7), (6, "one", 8), (7, "two", 1))
    spans = beacon_spans({"A": a, "B": b})
    assert [(s.host, s.boot, s.first, s.last) for s in spans] == \
        [("A", b"one", 1, 4), ("B", b"one", 7, 8), ("B", b"two", 1, 1)], spans
    both_ran = beacon_spans({"A": Emitted((1, "one", 1), (2, "one", 3)), "B": Emitted((1, "one", 2), (2, "one", 4))})
    assert [s.host for s in both_ran] == ["A", "B", "A", "B"]
    assert raises(OutputEscaped, beacon_spans, {"A": a, "B": Emitted((5, "one", 4))})
    assert raises(OutputEscaped, beacon_spans, {"A": Emitted((1, "one", 1), (2, "one", 1))})


def test_client_notices(_):
    for replies, error in ((b":1\r\n:2\r\n:2\r\n", "reply 3 is b':2'"), (b":1\r\n:2\r\n:4\r\n", "reply 3 is b':4'"),
                           (b":1\r\n:2\r\n", "the connection was closed"), (b"-ERR no\r\n", "reply 1 is b'-ERR no'")):
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = Client("127.0.0.1", server.getsockname()[1])
            with server.accept()[0] as connection:
                connection.sendall(replies)
                connection.shutdown(socket.SHUT_WR)
                wait_until(lambda: client.error, 10, f"the client notices that {error}")  # pylint: disable=W0640
            assert error in str(client.error), client.error
            assert raises(ClientError, client.wait_more, 1, 1) and raises(ClientError, client.stop)


# The hosts


def test_commands(world):
    job = world.a.run("echo out; echo err >&2; exit 3", check=False)
    assert (job.code, job.out, job.err) == (3, "out\n", "err\n")
    slow = world.a.spawn("echo begun; sleep 1000")
    wait_until(lambda: slow.out == "begun\n", 10, "output of a running command")
    assert world.a.run("hostname").out == "A\n", "another command runs meanwhile"
    slow.kill(9)
    assert slow.wait(10) == 128 + 9
    many = [world.a.spawn(f"sleep 0.{i % 10}; echo {i}") for i in range(30)]
    assert [(job.wait(30), job.out) for job in many] == [(0, f"{i}\n") for i in range(30)]
    assert len(world.a.run("seq 1 300000").out) == 1988895


def test_push(world):
    world.a.push("/usr/bin/redis-server", "/root/deep/redis-server")
    local = subprocess.run(["md5sum", "/usr/bin/redis-server"], capture_output=True, text=True, check=True).stdout
    assert world.a.run("md5sum /root/deep/redis-server").out.split()[0] == local.split()[0]
    world.a.push_program("/usr/bin/redis-server", "/usr/bin/redis-server")
    assert "7." in world.a.run("redis-server --version").out
    world.a.run("rm -r /root/deep /usr/bin/redis-server")


def test_nested_kvm(world):
    for host in (world.a, world.b):
        assert host.run("cat /sys/module/kvm_amd/parameters/npt").out == "Y\n"
        assert host.run("[ -c /dev/kvm ] && [ -c /dev/net/tun ] && [ -d /run/perdure ]").code == 0


def test_both_links(world):
    assert pings(world.a, world.b.address) and pings(world.b, world.a.address)
    assert pings(world.a, world.b.replication_address) and pings(world.b, world.a.replication_address)
    assert pings(world.a, HARNESS_ADDRESS)


def test_partition(world):
    world.a.partition(REPLICATION)
    assert not pings(world.a, world.b.replication_address)
    assert pings(world.a, world.b.address) and pings(world.b, HARNESS_ADDRESS), "both still see the client"
    world.a.heal(REPLICATION)
    wait_until(lambda: pings(world.a, world.b.replication_address), 10, "the path is healed")
    world.b.partition(PUBLIC)
    assert not pings(world.b, HARNESS_ADDRESS)
    assert pings(world.a, world.b.replication_address) and world.b.run("true").code == 0
    world.b.heal(PUBLIC)
    wait_until(lambda: pings(world.b, HARNESS_ADDRESS), 10, "the public link is healed")


def test_freeze(world):
    ticks = world.a.spawn("while :; do cut -d' ' -f1 /proc/uptime; sleep 0.1; done")
    wait_until(lambda: ticks.out.count("\n") > 5, 10, "it ticks")
    world.a.freeze()
    time.sleep(0.3)
    before = ticks.out
    assert not pings(world.b, world.a.address)
    time.sleep(2)
    assert ticks.out == before
    world.a.thaw()
    wait_until(lambda: ticks.out.count("\n") > before.count("\n") + 5, 10, "it ticks again")
    ticks.kill(9)
    times = [float(t) for t in ticks.out.split()]
    gap = max(later - earlier for earlier, later in zip(times, times[1:]))
    assert gap > 1.5, f"the host finds the time gone, but the longest step of its clock was {gap} s"


def test_capture(world):
    with world.a.capture() as capture:
        world.a.run(f"ping -c 3 -i 0.2 {HARNESS_ADDRESS}")
        time.sleep(0.3)
    mac = world.a.run("cat /sys/class/net/eth0/address").out.strip()
    echoes = [f for f in capture.guest_frames(mac=mac) if f.data[12:14] == b"\x08\x00" and f.data[23] == 1]
    assert len(echoes) == 3, "the requests, and not what came in"
    assert len(capture.guest_frames(mac=mac)) == len(capture.frames)


# The guest's image, booted here without perdure, on the public net


def start_guest(world):
    log = f"{world.log_dir}/guest"
    world.net.add_tap("guest0", "br-pub")
    process = start_process(
        ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "q35", "-m", "192", "-nodefaults", "-no-user-config",
         "-display", "none", "-serial", f"file:{log}", "-kernel", world.images.kernel, "-initrd", world.images.guest,
         "-append", f"console=ttyS0 quiet panic=1 guest.ip={GUEST_ADDRESS}/24",
         "-netdev", "tap,id=n,ifname=guest0,script=no,downscript=no",
         "-device", f"virtio-net-pci,netdev=n,mac={GUEST_MAC},romfile="], f"{world.log_dir}/guest-qemu")
    return process, log


def count_ready(log):
    with open(log, encoding="utf-8", errors="replace") as f:
        return f.read().count("GUEST-READY")


def test_guest_image(world):
    process, log = start_guest(world)
    try:
        wait_until(lambda: os.path.exists(log) and count_ready(log) == 1, 120, "the guest is ready")
        with Client() as client, Capture("guest0") as capture:
            client.wait_more(1000)
            assert client.longest_gap() > 0
            client.stop()
        spans = beacon_spans({"A": capture})
        assert len(spans) == 1 and spans[0].last > spans[0].first, spans
        for n, word in ((2, "reboot"), (3, "panic")):
            tell_guest(word)
            wait_until(lambda n=n: count_ready(log) == n, 120, f"the guest is back after {word}")
            assert redis_answers()
        tell_guest("poweroff")
        assert process.wait(60) == 0
        assert not redis_answers()
    finally:
        process.kill()
        process.wait()


def test_power_cut(world):
    job = world.b.spawn("sleep 1000")
    world.b.run("touch /run/mark")
    world.b.power_cut()
    try:
        job.wait(10)
        raise AssertionError("the job outlived its host")
    except HostLost:
        pass
    assert not pings(world.a, world.b.address)
    world.b.start()
    assert world.b.run("[ ! -e /run/mark ]").code == 0, "only the image is left"
    wait_until(lambda: pings(world.a, world.b.address), 10, "the new B is in the net")


def main():
    tests = [t for name, t in globals().items() if name.startswith("test_")]
    tests = [t for t in tests if not sys.argv[1:] or any(word in t.__name__ for word in sys.argv[1:])]
    start = time.monotonic()
    try:
        world = World()
    except images.Missing as missing:
        sys.exit(f"selftest: {missing}")
    print(f"two hosts are up after {time.monotonic() - start:.1f} s; logs: {world.log_dir}", flush=True)
    failed = 0
    for test in tests:
        start = time.monotonic()
        try:
            test(world)
            verdict = "ok"
        except Exception:  # pylint: disable=broad-except
            failed += 1
            verdict = "FAILED"
            traceback.print_exc()
        print(f"{verdict:7} {test.__name__[5:].replace('_', ' ')} ({time.monotonic() - start:.1f} s)", flush=True)
    world.close()
    if not failed:
        shutil.rmtree(world.log_dir)
    print(f"host-selftest: {len(tests) - failed} passed, {failed} failed, 0 skipped")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
