#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input from users, peers and strangers: each gets an error that names what is wrong, on every side that is to blame, and the
primary's guest does not notice: test_refusals.py [--build build] [test_NAME...]"""
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from scenario import CountClient, assert_well, in_namespace, require, run_count, run_tests  # noqa: E402

MIB = 1 << 20


def refused(pair, pattern, *options, before=None, to=None):
    """protect fails with a text that matches, and the guest goes on as if nothing had been."""
    done = pair.a.protect(to or pair.b, *options, check=False)
    require(done.returncode == 1, "exit of a refused protect", done)
    require(re.search(pattern, done.stderr, re.S), "the error does not say %r" % pattern, done.stderr)
    require(pair.a.status()["state"] == "UNPROTECTED", "the state after a refusal", pair.a.status())
    assert_well(pair, before)
    return done.stderr


def refused_by(pair, pattern, backup_pattern, backup, *options):
    """The same, and the backup says so too; it goes on listening, and takes a primary that is right."""
    refused(pair, pattern, *options)
    pair.wait(lambda: re.search(backup_pattern, backup.log(), re.S), 5, "%r in the backup's log" % backup_pattern, backup.log)
    require(backup.alive(), "the backup ended", backup.log())
    pair.b.wait_state("LISTENING", timeout=5, process=backup)


def still_useful(pair, backup):
    """After all that, the pair works."""
    pair.a.protect(pair.b)
    pair.b.wait_state("STANDBY", timeout=10, process=backup)
    assert_well(pair)


# --- what the two hosts must agree on ---

def test_standby_without_the_nic(pair):
    run_count(pair.a)
    backup = pair.b.standby(net=None)
    refused_by(pair, "net0", "net0", backup)


def test_standby_with_another_nic(pair):
    run_count(pair.a)
    backup = pair.b.standby(net="id=lan,tap=tap0")
    refused_by(pair, "net0", "net0", backup)


def test_standby_with_one_nic_too_many(pair):
    run_count(pair.a)
    backup = pair.b.standby(extra=["--net", "id=lan,tap=tap1"])
    refused_by(pair, "lan", "lan", backup)


def test_standby_without_the_tap(pair):
    run_count(pair.a)
    backup = pair.b.standby(net="id=net0,tap=tap7")
    refused_by(pair, "tap7", "tap7", backup)


def test_standby_of_another_name(pair):
    run_count(pair.a)
    backup = pair.b.standby(name="mail")
    refused(pair, "mail")
    pair.wait(lambda: "web" in backup.log(), 5, "'web' in the backup's log", backup.log)
    require(pair.b.status("mail")["state"] == "LISTENING", "the backup", pair.b.status("mail"))


def test_standby_without_the_disk(pair):
    disk = os.path.join(pair.dir, "disk")
    with open(disk, "wb") as f:
        f.truncate(MIB)
    run_count(pair.a, extra=["--disk", "id=data,readonly=on,path=" + disk])
    backup = pair.b.standby()
    refused_by(pair, "data", "data", backup)


def test_standby_with_a_smaller_disk(pair):
    disk, small = os.path.join(pair.dir, "disk"), os.path.join(pair.dir, "small")
    for path, size in (disk, 2 * MIB), (small, MIB):
        with open(path, "wb") as f:
            f.truncate(size)
    run_count(pair.a, extra=["--disk", "id=data,readonly=on,path=" + disk])
    backup = pair.b.standby(["--disk", "id=data,readonly=on,path=" + small])
    refused_by(pair, "data", "data", backup)


def test_everything_missing_is_listed_at_once(pair):
    disk = os.path.join(pair.dir, "disk")
    with open(disk, "wb") as f:
        f.truncate(MIB)
    run_count(pair.a, extra=["--disk", "id=data,readonly=on,path=" + disk])
    pair.b.standby(net=None)
    text = refused(pair, "net0", "--check")
    require("data" in text, "the error names the NIC, but not the disk", text)


def test_too_little_memory(pair):
    """The standby may not have as much memory as the guest has."""
    run_count(pair.a, memory="512M")
    backup = pair.b.standby()
    with open("/proc/%d/statm" % backup.pid, encoding="ascii") as f:
        used = int(f.read().split()[0]) * 4096
    subprocess.run(["prlimit", "--pid", str(backup.pid), "--as=%d:unlimited" % (used + 64 * MIB)], check=True)
    refused_by(pair, "512 MiB.*memory", "512 MiB.*memory", backup)
    subprocess.run(["prlimit", "--pid", str(backup.pid), "--as=unlimited:unlimited"], check=True)
    still_useful(pair, backup)


# --- keys ---

def another_key(pair):
    path = os.path.join(pair.dir, "other-key")
    pair.a.perdure("keygen", path)
    return path


def test_wrong_key(pair):
    run_count(pair.a)
    backup = pair.b.standby()
    refused_by(pair, "key", "key", backup, "--psk", another_key(pair))
    still_useful(pair, backup)


def test_no_key_against_key(pair):
    run_count(pair.a)
    backup = pair.b.standby()
    done = pair.a.perdure("protect", pair.vm, "--to", pair.b.address, "--insecure", check=False)
    require(done.returncode == 1 and re.search("psk|key|TLS", done.stderr), "plain to a standby with a key", done)
    assert_well(pair)
    still_useful(pair, backup)


def test_key_against_no_key(pair):
    run_count(pair.a)
    backup = pair.b.standby(key=None)
    refused(pair, "psk|key|TLS")
    pair.b.wait_state("LISTENING", timeout=5, process=backup)


def test_no_key_at_all(pair):
    run_count(pair.a)
    done = pair.a.perdure("protect", pair.vm, "--to", pair.b.address, check=False)
    require(done.returncode == 1 and "--psk" in done.stderr and "--insecure" in done.stderr, "plain beyond this host", done)
    done = pair.b.perdure("standby", "--name", pair.vm, "--listen", pair.b.address, check=False)
    require(done.returncode == 2 and "--psk" in done.stderr, "a standby open to all", done)


def test_insecure_when_both_say_so(pair):
    primary = run_count(pair.a)
    backup = pair.b.standby(["--arbiter", "file:" + pair.arbiter], key=None)
    pair.a.perdure("protect", pair.vm, "--to", pair.b.address, "--insecure", "--arbiter", "file:" + pair.arbiter)
    client = CountClient(pair)
    time.sleep(0.2)
    primary.kill()
    pair.b.wait_state("UNPROTECTED", process=backup)
    client.finish()


def test_only_this_arbiter(pair):
    """What the standby's user said, a primary cannot change."""
    run_count(pair.a)
    backup = pair.b.standby(["--arbiter", "file:" + pair.arbiter])
    for other in "manual", "command:/bin/true", "file:/tmp":
        refused_by(pair, "accepts arbiter 'file:%s' only, not '%s'" % (pair.arbiter, other), "accepts arbiter", backup, "--arbiter", other)
    still_useful(pair, backup)


def test_no_key_no_arbiter_of_the_peers(pair):
    """Without a key a primary is anybody: it does not choose a program of this host, unless the standby's user did."""
    mark = os.path.join(pair.dir, "mark")
    program = os.path.join(pair.dir, "arbiter-program")
    with open(program, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\ntouch %s\n" % mark)
    os.chmod(program, 0o755)
    run_count(pair.a)
    backup = pair.b.standby(key=None)
    for other in "command:" + program, "file:" + pair.arbiter:
        done = pair.a.perdure("protect", pair.vm, "--to", pair.b.address, "--insecure", "--arbiter", other, check=False)
        require(done.returncode == 1 and "accepts arbiter 'manual' only" in done.stderr, "an arbiter of anybody's", done)
    protect_plain(pair)
    pair.a.perdure("unprotect", pair.vm)
    require(not os.path.exists(mark) and backup.alive(), "the program ran", backup.log())
    done = pair.b.perdure("standby", "--name", "x", "--listen", "tcp:127.0.0.1:0", "--arbiter", "oracle", check=False)
    require(done.returncode == 2 and "oracle" in done.stderr, "an arbiter that is none", done)


def test_key_files(pair):
    run_count(pair.a)
    pair.b.standby()
    empty, open_to_all = os.path.join(pair.dir, "empty"), os.path.join(pair.dir, "open")
    with open(empty, "w", encoding="ascii"):
        pass
    with open(pair.psk, encoding="ascii") as source, open(open_to_all, "w", encoding="ascii") as f:
        f.write(source.read())
    os.chmod(empty, 0o600)
    os.chmod(open_to_all, 0o644)
    refused(pair, "nothing-there", "--psk", os.path.join(pair.dir, "nothing-there"))
    refused(pair, "empty", "--psk", empty)
    refused(pair, "open", "--psk", open_to_all)
    again = pair.a.perdure("keygen", pair.psk, check=False)
    require(again.returncode == 1 and "exists" in again.stderr, "keygen over a key", again)


# --- strangers at the standby's port ---

def connect(pair, port=7700):
    def make():
        return socket.create_connection((pair.b.link, port), timeout=5)

    return in_namespace(pair.a.netns, make)


def say(pair, data, wait=0.0):
    """What the standby answers to these bytes, until it closes or `wait` is over."""
    s = connect(pair)
    answer = b""
    try:
        s.sendall(data)
        if not wait:
            s.shutdown(socket.SHUT_WR)
        s.settimeout(wait or 5)
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            answer += piece
    except OSError:
        pass
    s.close()
    return answer


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def record(kind, body, flags=0, ident=0, length=None):
    """One frame of docs/wire-format.md."""
    head = struct.pack("<HHIQI", kind, flags, len(body) if length is None else length, ident, crc32c(body) if body else 0)
    return head + struct.pack("<I", crc32c(head)) + body


def text(s):
    return struct.pack("<H", len(s)) + s.encode()


def hello(vm="web", version=5, magic=0x45525550, kind=0, pair="12345678-1234-4234-8234-123456789abc", timeout=10**9, ram=64 * MIB, lanes=0, lane=0):
    return record(0x20, struct.pack("<IHB", magic, version, kind) + text(vm) + text(pair) + struct.pack("<QQQQQIB", 1, 7, timeout, 10**7, 10**6, 0, 1)
                  + text("manual") + struct.pack("<Q", ram) + text("") + struct.pack("<QBB", 0, lanes, lane))


def plain_standby(pair):
    run_count(pair.a)
    return pair.b.standby(key=None)


def protect_plain(pair):
    """Somebody who greeted and left may keep the standby busy for a while: it waits for his second connection."""
    command = ["protect", pair.vm, "--to", pair.b.address, "--insecure", "--arbiter", "manual"]
    pair.wait(lambda: "busy" not in pair.a.perdure(*command, check=False).stderr, 15, "standby that is not busy")
    pair.b.wait_state("STANDBY", timeout=10)
    assert_well(pair)


def test_garbage_to_a_standby(pair):
    backup = plain_standby(pair)
    noise = random.Random(1)
    good = hello()
    for data in (b"", b"\0", noise.randbytes(23), noise.randbytes(24), noise.randbytes(100000), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                 b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise.randbytes(506), good[:10], good[:24], good[:-1],
                 good[:30] + bytes([good[30] ^ 1]) + good[31:], record(0x20, b"x" * 262144, flags=1),
                 record(0x20, b"", length=1 << 31), record(0x7fff, b"abc"), record(0xffff, b"abc") * 3, record(0x29, b"\0" * 40)):
        say(pair, data)
        require(backup.alive(), "the standby died of", data[:60].hex(), backup.log())
    pair.b.wait_state("LISTENING", timeout=10, process=backup)
    protect_plain(pair)


def test_garbage_after_the_greeting(pair):
    garbage_after_the_greeting(pair, 0)


def test_garbage_after_the_greeting_of_a_migration(pair):
    garbage_after_the_greeting(pair, 3)


def garbage_after_the_greeting(pair, kind):
    """From somebody who greets as a primary does, on both connections, and then talks nonsense."""
    backup = plain_standby(pair)
    noise = random.Random(6)
    for data in (noise.randbytes(5000), record(0x23, struct.pack("<Q", 1 << 60)), record(0x28, b"\0" * 100), record(0x2a, b""),
                 record(0x23, struct.pack("<Q", 5) + b"hello"), record(0x23, struct.pack("<Q", 5000) + noise.randbytes(5000)),
                 record(0x23, struct.pack("<Q", 48) + record(0x20, b"")), record(0x29, b"\0" * 40), record(0x30, b"")):
        main, beat = connect(pair), None
        try:
            main.sendall(hello(kind=kind))
            require(main.recv(1000)[:2] == b"\x21\0", "no answer to a greeting", backup.log())
            beat = connect(pair)
            beat.sendall(hello(kind=1))
            require(beat.recv(1000)[:2] == b"\x21\0", "no answer to the second greeting", backup.log())
            main.sendall(data)
            main.shutdown(socket.SHUT_WR)
            while main.recv(65536):
                pass
        except ConnectionError:
            pass
        main.close()
        if beat:
            beat.close()
        require(backup.alive(), "the standby died of", data[:60].hex(), backup.log())
        pair.b.wait_state("LISTENING", timeout=5, process=backup)
    protect_plain(pair)


def greet(pair, **fields):
    """A connection, and the type of the record that it is answered with."""
    s = connect(pair)
    s.sendall(hello(**fields))
    return s, s.recv(1000)[0]


def test_channels_of_a_stranger(pair):
    """Of a migration that says three: numbers that there are not, twice the same, before and after its end; and nonsense on one."""
    backup = plain_standby(pair)
    for noise in (b"", random.Random(7).randbytes(3000), record(0x14, b"\2" + bytes(11), ident=1), record(0x11, b"")):
        early, answer = greet(pair, kind=8, lanes=2, lane=1)
        require(answer == 0x22, "a channel of nothing is not refused", answer)
        main, answer = greet(pair, kind=3, lanes=2)
        require(answer == 0x21, "no answer to a greeting", answer, backup.log())
        others = [early, main]
        for lane, lanes, want in ((1, 2, 0x21), (1, 2, 0x22), (3, 3, 0x22), (3, 2, 0x22), (0, 2, 0x22), (2, 16, 0x22), (2, 2, 0x21)):
            other, answer = greet(pair, kind=8, lane=lane, lanes=lanes)
            require(answer == want, "channel", lane, "of", lanes, "is answered with", answer)
            others.append(other)
        try:
            others[-1].sendall(noise)
            beat, answer = greet(pair, kind=1, lanes=2)
            others.append(beat)
            others[-2].shutdown(socket.SHUT_RDWR)
            main.shutdown(socket.SHUT_WR)
            while main.recv(65536):
                pass
        except OSError:
            pass
        for s in others:
            s.close()
        require(backup.alive(), "the standby died of", noise[:60].hex(), backup.log())
        pair.b.wait_state("LISTENING", timeout=15, process=backup)
    protect_plain(pair)


def test_hello_that_is_refused_says_why(pair):
    backup = plain_standby(pair)
    for data, reason in ((hello(version=1), b"version 1"), (hello(vm="mail"), b"mail"), (hello(magic=1), b"protocol"),
                         (hello(timeout=1), b"timeout"), (hello(pair="x" * 36), b"greeting"), (hello(kind=9), b"greeting")):
        answer = say(pair, data, wait=2)
        require(reason in answer, "the answer to a HELLO does not say %r" % reason, answer)
        require(reason.decode() in backup.log(), "the log does not say %r" % reason, backup.log())
        require(backup.alive(), "the standby died", backup.log())
    protect_plain(pair)


def test_silent_connections(pair):
    """A port scan that never says a word does not keep the primary out."""
    backup = pair.b.standby()
    run_count(pair.a)
    silent = [connect(pair) for _ in range(20)]
    still_useful(pair, backup)
    for s in silent:
        s.close()


def test_garbage_to_a_standby_with_a_key(pair):
    run_count(pair.a)
    backup = pair.b.standby()
    noise = random.Random(2)
    for data in (b"\0" * 1000, noise.randbytes(5000), hello(), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + noise.randbytes(512)):
        say(pair, data)
        require(backup.alive(), "the standby died of", data[:60].hex(), backup.log())
    still_useful(pair, backup)


def test_strangers_at_a_busy_standby(pair):
    """Garbage, and a second HELLO, while the pair is PROTECTED: it stays so."""
    backup = plain_standby(pair)
    protect_plain(pair)
    client = CountClient(pair)
    for data in (random.Random(3).randbytes(1000), hello(), hello(kind=1), hello()[:30]):
        say(pair, data, wait=0.3)
    status = pair.a.status()
    require(status["state"] == "PROTECTED", "strangers ended the protection", status)
    require(backup.alive() and pair.b.status()["state"] == "STANDBY", "the backup", pair.b.status())
    client.finish()


# --- peers ---

def test_nobody_listens(pair):
    run_count(pair.a)
    refused(pair, "10.99.0.2")


def test_unreachable(pair):
    run_count(pair.a)
    pair.link(False)
    refused(pair, "10.99.0.2", "--timeout", "500ms")


def test_peer_that_never_answers(pair):
    """Something listens there and says nothing: protect gives up, in words."""
    run_count(pair.a)

    def listen():
        s = socket.socket()
        s.bind((pair.b.link, 7700))
        s.listen()
        return s

    s = in_namespace(pair.b.netns, listen)
    refused(pair, "10.99.0.2", "--timeout", "500ms")
    s.close()


def test_standby_dies_during_the_first_sync(pair):
    primary = run_count(pair.a, memory="256M", cmdline="pages=40000")
    client = CountClient(pair)
    for delay in 0.0, 0.02, 0.1:
        backup = pair.b.standby()
        waiting = pair.a.protect
        with subprocess.Popen(pair.a.command(["protect", pair.vm, "--to", pair.b.address, "--psk", pair.psk, "--arbiter", "file:" + pair.arbiter]),
                              env=pair.a.env(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as command:
            pair.wait(lambda: pair.a.status()["state"] != "UNPROTECTED" or command.poll() is not None, 10, "begin of the sync")
            time.sleep(delay)
            backup.kill()
            text_ = command.communicate(timeout=30)[1]
        require(command.returncode in (0, 1), "exit of protect", command.returncode, text_)
        pair.a.wait_state("UNPROTECTED", timeout=10, process=primary)
    backup = pair.b.standby()
    waiting(pair.b)
    primary.kill()
    pair.b.wait_state("UNPROTECTED", process=backup)
    client.finish()


def test_primary_dies_during_the_first_sync(pair):
    """Nothing to take over: the standby listens again, for the next."""
    primary = run_count(pair.a, memory="256M", cmdline="pages=40000")
    backup = pair.b.standby()
    pair.a.protect(pair.b, "--no-wait")
    primary.kill()
    pair.wait(lambda: pair.b.status()["state"] in ("LISTENING", "UNPROTECTED"), 15, "end of the sync at the standby", backup.log)
    if pair.b.status()["state"] == "LISTENING":
        run_count(pair.a)
        still_useful(pair, backup)


def test_second_primary(pair):
    run_count(pair.a)
    backup = pair.b.standby()
    pair.a.protect(pair.b)
    other = pair.neighbour(pair.a)
    second = other.start("run", "--name", pair.vm, "--memory", "64M", "--kernel", "builtin:walk")
    other.wait_state("UNPROTECTED", process=second)
    done = other.perdure("protect", pair.vm, "--to", pair.b.address, "--psk", pair.psk, check=False)
    require(done.returncode == 1 and re.search("busy|another|already", done.stderr), "a second primary", done)
    require(pair.a.status()["state"] == "PROTECTED", "the first primary", pair.a.status())
    require(pair.b.status()["state"] == "STANDBY", "the backup", pair.b.status())
    require(second.alive() and other.status()["state"] == "UNPROTECTED", "the second primary", other.status())
    assert_well(pair)
    require(backup.alive(), "the backup ended")


def test_protect_to_itself(pair):
    host = pair.a
    process = run_count(host, extra=["--listen", host.address, "--psk", pair.psk])
    refused(pair, "runs here as the primary", "--timeout", "500ms", to=host)
    require(process.alive(), "it ended", process.log())


def test_protect_twice(pair):
    run_count(pair.a)
    pair.b.standby()
    pair.a.protect(pair.b)
    again = pair.a.protect(pair.b, check=False)
    require(again.returncode == 1 and "PROTECTED" in again.stderr, "protect of a protected guest", again)
    require(pair.a.status()["state"] == "PROTECTED", "the state", pair.a.status())
    assert_well(pair)


def test_commands_of_the_wrong_side(pair):
    """Each says on which side, or in which state, it belongs; nothing changes."""
    run_count(pair.a)
    backup = pair.b.standby()

    def fails(host, pattern, *command):
        done = host.perdure(*command, pair.vm, check=False)
        require(done.returncode == 1 and re.search(pattern, done.stderr), "%s on %s" % (command[0], host.name), done)

    fails(pair.a, "UNPROTECTED|not protected", "unprotect")
    fails(pair.a, "UNPROTECTED|not protected", "swap")
    fails(pair.a, "primary", "failover")
    fails(pair.b, "LISTENING", "failover")
    for command in "stop", "resume", "reset", "powerdown":
        fails(pair.b, "backup", command)
    pair.a.protect(pair.b)
    fails(pair.a, "primary", "failover")
    fails(pair.b, "backup", "swap")
    fails(pair.b, "backup", "unprotect")
    fails(pair.b, "backup", "stop")
    to_a = pair.b.perdure("protect", pair.vm, "--to", pair.a.address, "--psk", pair.psk, check=False)
    require(to_a.returncode == 1 and "backup" in to_a.stderr, "protect at the backup", to_a)
    require(pair.a.status()["state"] == "PROTECTED" and pair.b.status()["state"] == "STANDBY", "the states", pair.a.status(), pair.b.status())
    require(backup.alive(), "the backup ended")
    assert_well(pair)


def test_wrong_arbiter(pair):
    run_count(pair.a)
    backup = pair.b.standby()
    plain_file = os.path.join(pair.dir, "plain-file")
    with open(plain_file, "w", encoding="ascii"):
        pass
    for spec in "oracle", "", "file:", "command:", "file:" + os.path.join(pair.dir, "nowhere"), "command:" + os.path.join(pair.dir, "nowhere"), \
            "file:" + plain_file, "command:" + plain_file:
        refused(pair, re.escape(spec) if spec else "arbiter", "--arbiter", spec)
    still_useful(pair, backup)


# --- the command line ---

def usage_errors():
    """Command lines, and what the one line on stderr says; all exit 2."""
    run = ["run", "--name", "x", "--kernel", "builtin:count"]
    return [
        (["no-such-command"], "unknown command 'no-such-command'"),
        (["run"], "--name"),
        (["run", "--name", "x"], "--kernel"),
        (["run", "--name", "../x", "--kernel", "builtin:count"], "not a VM name"),
        (["run", "--name", "x" * 64, "--kernel", "builtin:count"], "longer than|not a VM name"),
        (run + ["--restore", "f"], "either --kernel"),
        (run + ["--cpus", "0"], "--cpus"),
        (run + ["--cpus", "65"], "--cpus"),
        (run + ["--cpus", "two"], "--cpus.*'two'"),
        (run + ["--cpus", "99999999999999999999"], "--cpus"),
        (run + ["--memory", "15M"], "--memory"),
        (run + ["--memory", "64"], "--memory"),
        (run + ["--memory", "64X"], "--memory.*'64X'"),
        (run + ["--memory", "-64M"], "--memory"),
        (run + ["--memory", "9999999999G"], "--memory"),
        (run + ["--cpu", "z80"], "z80|--cpu"),
        (run + ["--no-such"], "unknown option --no-such"),
        (run + ["--cpus"], "--cpus needs a value"),
        (run + ["--paused=yes"], "--paused takes no value"),
        (run + ["surplus"], "unexpected argument 'surplus'"),
        (run + ["--initrd"], "--initrd needs a value"),
        (run + ["--disk", "id=d"], "--disk.*path="),
        (run + ["--disk", "path=f,format=vhd"], "--disk.*vhd"),
        (run + ["--disk", "path=f,readonly=perhaps"], "--disk.*perhaps"),
        (run + ["--disk", "path=f,colour=red"], "--disk.*colour"),
        (run + ["--disk", "path=f,path=g"], "--disk.*twice"),
        (run + ["--disk", "path"], "--disk.*key=value"),
        (run + ["--disk", "path=f,id=d", "--disk", "path=g,id=d"], "id=d is there twice"),
        (run + ["--net", "id=n"], "--net.*tap="),
        (run + ["--channel", "id=c"], "--channel.*unix="),
        (run + ["--channel", "unix=/tmp/c,console=maybe"], "--channel.*console"),
        (run + ["--channel", "unix=/tmp/c,id=n", "--net", "tap=t,id=n"], "--net.*id=n is there twice"),
        (run + ["--net", "tap=t,mac=1:2:3"], "--net.*mac=1:2:3"),
        (run + ["--net", "tap=t,mac=01:00:00:00:00:01"], "--net.*mac=01"),
        (run + ["--net", "tap=a-name-that-is-too-long"], "--net.*tap"),
        (run + ["--cmdline", "x" * 5000], "--cmdline.*longer than"),
        (["standby"], "--name"),
        (["standby", "--name", "x"], "--listen"),
        (["standby", "--name", "x", "--listen", "tcp:0.0.0.0:1"], "--psk"),
        (["standby", "--name", "x/y", "--listen", "tcp:127.0.0.1:0"], "not a VM name"),
        (["protect"], "NAME is missing"),
        (["protect", "x"], "--to is missing"),
        (["protect", "x", "--to", "tcp:h:1", "--interval", "10"], "--interval.*'10' is not a duration"),
        (["protect", "x", "--to", "tcp:h:1", "--timeout", "1h"], "--timeout.*'1h'"),
        (["protect", "x", "--to", "tcp:h:1", "--verify", "-1"], "--verify"),
        (["protect", "x", "y", "--to", "tcp:h:1"], "unexpected argument 'y'"),
        (["protect", "x", "--to"], "--to needs a value"),
        (["unprotect"], "NAME is missing"),
        (["unprotect", "x", "--peer-is-dead"], "unknown option"),
        (["failover", "x", "--force"], "unknown option"),
        (["swap"], "NAME is missing"),
        (["swap", "x", "--force"], "unknown option"),
        (["list", "x"], "unexpected argument"),
        (["status", "x", "--xml"], "unknown option"),
        (["stop"], "NAME is missing"),
        (["resume"], "NAME is missing"),
        (["reset", "x", "y"], "unexpected argument"),
        (["powerdown"], "NAME is missing"),
        (["quit", "x", "--now"], "unknown option"),
        (["keygen"], "FILE is missing"),
        (["keygen", "a", "b"], "unexpected argument"),
    ]


def one_line(pair, args, exit_status, pattern):
    done = pair.a.perdure(*args, check=False, timeout=20)
    require(done.returncode == exit_status, "exit %d of perdure %s" % (done.returncode, " ".join(args)[:100]), done.stderr)
    require(re.search(pattern, done.stderr), "perdure %s does not say %r" % (" ".join(args)[:100], pattern), done.stderr)
    require(len(done.stderr.strip().splitlines()) == 1 and not done.stdout, "not one clear line", done.stderr, done.stdout)


def test_usage(pair):
    for args, pattern in usage_errors():
        one_line(pair, args, 2, pattern)
    none = pair.a.perdure(check=False)
    require(none.returncode == 2 and "Usage" in none.stderr, "no command", none)


def test_help(pair):
    commands = re.findall(r"^  ([a-z]+) ", pair.a.perdure("--help"), re.M)
    for command in ("run", "standby", "protect", "unprotect", "failover", "swap", "list", "status", "stop", "resume", "reset", "powerdown",
                    "quit", "keygen"):
        require(command in commands, "--help lacks " + command)
        require("Usage: perdure " + command in pair.a.perdure(command, "--help"), "--help of " + command)
    require(re.fullmatch(r"perdure \d+\.\d+\.\d+\n", pair.a.perdure("--version")), "--version")


def test_what_is_not_there(pair):
    """Right options, but the world is not so: exit 1, the thing is named."""
    nothing, directory, noise = (os.path.join(pair.dir, n) for n in ("nothing", "directory", "noise"))
    os.mkdir(directory)
    with open(noise, "wb") as f:
        f.write(random.Random(4).randbytes(100000))
    run = ["run", "--name", "x"]
    count = run + ["--kernel", "builtin:count"]
    for args, pattern in (
            (run + ["--kernel", nothing], "--kernel.*nothing"),
            (run + ["--kernel", directory], "--kernel.*directory"),
            (run + ["--kernel", noise], "kernel"),
            (run + ["--kernel", "builtin:tetris"], "tetris.*count"),
            (count + ["--initrd", nothing], "--initrd.*nothing"),
            (count + ["--disk", "path=" + nothing], "nothing"),
            (count + ["--disk", "path=" + directory], "directory"),
            (count + ["--net", "tap=tap9"], "tap9"),
            (count + ["--console", "file:" + os.path.join(nothing, "f")], "--console"),
            (count + ["--console", "pigeon"], "--console.*pigeon"),
            (count + ["--channel", "unix=" + os.path.join(nothing, "s")], "--channel unix:"),
            (count + ["--channel", "unix=/tmp/c,id=console"], "id=console is used twice"),
            (count + ["--listen", "tcp:127.0.0.1:0", "--psk", nothing], "nothing"),
            (run + ["--restore", nothing], "--restore.*nothing"),
            (run + ["--restore", noise], "--restore.*noise"),
            (["standby", "--name", "x", "--insecure", "--listen", "pigeon:1"], "pigeon"),
            (["standby", "--name", "x", "--insecure", "--listen", "tcp:127.0.0.1:99999"], "99999"),
            (["standby", "--name", "x", "--listen", "tcp:127.0.0.1:0", "--psk", nothing], "nothing"),
            (["protect", "x", "--to", "tcp:127.0.0.1:1"], "no VM named x"),
            (["status", "x"], "no VM named x"),
            (["quit", "x"], "no VM named x"),
            (["stop", "../x"], "not a VM name"),
            (["keygen", os.path.join(nothing, "key")], "nothing")):
        one_line(pair, args, 1, pattern)
    require(pair.a.perdure("list") == "", "a VM that did not start is listed", pair.a.perdure("list"))


def test_the_same_name_twice(pair):
    run_count(pair.a)
    done = pair.a.perdure("run", "--name", pair.vm, "--kernel", "builtin:walk", check=False, timeout=10)
    require(done.returncode == 1 and "web" in done.stderr, "the same name twice", done)
    assert_well(pair)


def test_protect_arguments(pair):
    """What the VM's process refuses, named."""
    run_count(pair.a)
    pair.b.standby()
    refused(pair, "interval", "--interval", "1us")
    refused(pair, "interval", "--interval", "3600s")
    refused(pair, "timeout", "--timeout", "1ms")
    for address in "pigeon", "tcp:", "tcp:10.99.0.2", "tcp:10.99.0.2:0", "tcp:10.99.0.2:70000", "unix:":
        refused(pair, re.escape(address), "--to", address)


def test_state_file_with_damage(pair):
    """A byte changed, the end cut off, another tap: named errors, and no guest that runs on half a state."""
    state = os.path.join(pair.dir, "state")
    first = run_count(pair.a, extra=["--save-on-exit", state])
    pair.a.perdure("quit", pair.vm)
    require(first.wait(20) == 0, "exit", first.popen.returncode)
    with open(state, "rb") as f:
        good = f.read()
    restore = ["run", "--name", pair.vm, "--restore", state]
    net = ["--net", "id=net0,tap=tap0"]
    chosen = random.Random(5)
    for place in [0, 5, 30, len(good) // 2, len(good) - 1] + [chosen.randrange(len(good)) for _ in range(5)]:
        for bad in good[:place], good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1:]:
            with open(state, "wb") as f:
                f.write(bad)
            one_line(pair, restore + net, 1, "--restore.*state")
    with open(state, "wb") as f:
        f.write(good)
    one_line(pair, restore, 1, "net0")
    one_line(pair, restore + ["--net", "id=net0,tap=tap5"], 1, "tap5")
    second = pair.a.start(*restore, *net)
    pair.a.wait_state("UNPROTECTED", process=second)
    assert_well(pair)


def test_save_on_exit_that_cannot(pair):
    process = run_count(pair.a, extra=["--save-on-exit", os.path.join(pair.dir, "nowhere", "state")])
    pair.a.perdure("quit", pair.vm)
    require(process.wait(10) == 1 and "--save-on-exit" in process.log(), "exit", process.popen.returncode, process.log())


if __name__ == "__main__":
    run_tests("refusals", globals())
