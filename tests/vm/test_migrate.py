#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration between two processes on two hosts, one scenario a function: test_migrate.py [--build build] [test_NAME...]

The corpus of guests moves there and back; then what may go wrong: the link is slow (tbf) or cut, either side is killed, the user changes his mind.
"""
import ctypes
import os
import random
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from disklog import disk_options, judge, make_disk, write_pattern  # noqa: E402
from scenario import CORPUS, CountClient, Qmp, ask, assert_well, require, run_count, run_tests  # noqa: E402
from test_disk_errors import Scene  # noqa: E402

SLOW = "240mbit"
PIDFD_GETFD = 438


def migrate(here, to, *options, check=True, timeout=60):
    """Until the guest runs there. Silence counts late (5 s), since the test machine may be busy."""
    return here.perdure("migrate", here.pair.vm, "--to", to.address, "--psk", here.pair.psk, "--timeout", "5s", *options, check=check,
                        timeout=timeout)


def await_moved(to, source, destination):
    to.wait_state("UNPROTECTED", process=destination)
    require(source.wait() == 0, "the source's process ended with", source.popen.returncode)


def move(here, to, source, *options, standby=()):
    """The whole of it: the guest runs there, and the source's process has ended. The destination's process."""
    destination = to.standby(standby)
    migrate(here, to, *options)
    await_moved(to, source, destination)
    return destination


def limit(host, rate):
    """What the link carries from that host. None: as much as it can."""
    subprocess.run(["ip", "netns", "exec", host.netns, "tc", "qdisc", *(["replace", "dev", "peer", "root", "tbf", "rate", rate, "burst", "64k",
                                                                        "latency", "400ms"] if rate else ["del", "dev", "peer", "root"])],
                   check=True)


def busy_guest(pair, memory="128M"):
    """Changes 64 MiB round and round: on a slow link its migration does not end."""
    return run_count(pair.a, "size=64M rate=20000", kernel="walk", memory=memory)


def under_way(pair, *options):
    """A migration on a slow link that is in its passes. Source, destination."""
    source = busy_guest(pair)
    destination = pair.b.standby()
    limit(pair.a, SLOW)
    migrate(pair.a, pair.b, "--no-wait", "--compress", "off", "--on-slow", "cancel", "--deadline", "60s", *options)
    qmp = Qmp(pair.a)
    pair.wait(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, 10, "a MiB on its way")
    qmp.close()
    return source, destination


def goes_on_here(pair, before):
    """After a migration that did not happen: the guest is well, and the next one works."""
    pair.a.wait_state("UNPROTECTED")
    assert_well(pair, before)


# --- the corpus ---

def corpus_disks(pair, guest, cpus):
    """Options of each host."""
    if guest == "irq":
        disk = os.path.join(pair.dir, "disk.img")
        write_pattern(disk)
        options = ["--disk", "id=disk0,readonly=on,path=" + disk]
        return {pair.a: options, pair.b: options}, []
    if guest == "log":
        disks = {host: [make_disk(os.path.join(host.dir, "disk%d.img" % i)) for i in range(cpus)] for host in (pair.a, pair.b)}
        return {host: disk_options(paths) for host, paths in disks.items()}, disks[pair.a]
    return {pair.a: [], pair.b: []}, []


def there_and_back(pair, guest, cpus, moves=4, move=move, more=()):
    """move: as the one above. more: options of both sides' machines, or of each."""
    options, disks = corpus_disks(pair, guest, cpus)
    for host in options:
        options[host] = options[host] + list(more[host] if isinstance(more, dict) else more)
    process = run_count(pair.a, CORPUS[guest], cpus, kernel=guest, extra=options[pair.a])
    before = assert_well(pair)
    client = CountClient(pair) if guest in ("count", "log") else None
    here, there = pair.a, pair.b
    for _ in range(moves):
        process = move(here, there, process, standby=options[there])
        assert_well(pair, before)
        here, there = there, here
    if client:
        client.finish()
    if disks:
        judge(disks, ask(pair, "status")["counter"])


def test_walk(pair):
    there_and_back(pair, "walk", 1)


def test_walk_2(pair):
    there_and_back(pair, "walk", 2)


def test_count(pair):
    there_and_back(pair, "count", 1)


def test_count_2(pair):
    there_and_back(pair, "count", 2)


def test_irq(pair):
    there_and_back(pair, "irq", 1)


def test_irq_2(pair):
    there_and_back(pair, "irq", 2)


def test_log(pair):
    there_and_back(pair, "log", 1)


def test_log_2(pair):
    there_and_back(pair, "log", 2)


def test_stopped(pair):
    """A guest that the user stopped is stopped there, too."""
    source = run_count(pair.a)
    before = assert_well(pair)
    pair.a.perdure("stop", pair.vm)
    move(pair.a, pair.b, source)
    require(pair.b.status()["run_state"] == "paused", "it is not paused there", pair.b.status())
    require(not ask(pair, "status", wait_ms=300, check=False), "a stopped guest answers")
    pair.b.perdure("resume", pair.vm)
    assert_well(pair, before)


def test_moved_and_then_protected(pair):
    source = run_count(pair.a)
    before = assert_well(pair)
    client = CountClient(pair)
    running = move(pair.a, pair.b, source)
    backup = pair.a.standby()
    pair.b.protect(pair.a)
    running.kill()
    pair.a.wait_state("UNPROTECTED", process=backup)
    client.finish()
    assert_well(pair, before)


def test_what_is_told(pair):
    """The command, the control socket and the report say the same."""
    source = run_count(pair.a)
    qmp = Qmp(pair.a)
    require(qmp.execute("query-migrate")["status"] == "none", "a migration before the first")
    pair.b.standby()
    out = migrate(pair.a, pair.b)
    require(out.startswith("moved in ") and "downtime" in out, "the command says", out)
    m = qmp.execute("query-migrate")
    require(m["status"] == "completed" and m["ram"]["remaining"] == 0 and m["ram"]["passes"] > 0, "the control socket says", m)
    require(0 <= m["downtime-us"] - sum(m["downtime-parts-us"].values()) < 4, "the downtime is not the sum of its parts", m)
    require(qmp.execute("query-status")["status"] == "postmigrate", "the source's run state", qmp.execute("query-status"))
    for command in ("cont", "system_reset"):
        require("MIGRATED" in qmp.ask(command)["error"]["desc"], command + " of a guest that is elsewhere")
    qmp.close()
    source.wait()
    pair.a.standby()
    pair.b.protect(pair.a)
    qmp = Qmp(pair.b)
    require(qmp.execute("query-migrate")["status"] == "none", "a protection is no migration", qmp.execute("query-migrate"))
    require("UNPROTECTED" not in qmp.ask("migrate_cancel")["error"]["desc"], "nothing is there to be cancelled")
    qmp.close()
    require(pair.b.status()["report"].startswith("change: live migration"), "the destination's report", pair.b.status()["report"])


# --- slow ---

def test_slow_and_cancelled_by_policy(pair):
    source, _ = under_way(pair)
    before = assert_well(pair)
    pair.a.wait_state("UNPROTECTED", timeout=60, process=source)
    error = pair.a.status()["last_error"]
    require("faster than the link carries it" in error and "--on-slow throttle" in error, "the error", error)
    goes_on_here(pair, before)


def test_slow_and_moved_by_policy(pair):
    source, destination = under_way(pair, "--on-slow", "pause", "--deadline", "3s")
    before = assert_well(pair)
    await_moved(pair.b, source, destination)
    assert_well(pair, before)


def test_slow_and_throttled(pair):
    """The guest is slowed down, moves, and has all of its time again over there. (When that is enough: test_converge.)"""
    source, destination = under_way(pair, "--on-slow", "throttle", "--downtime", "300ms")
    before = assert_well(pair)
    qmp = Qmp(pair.a)
    pair.wait(lambda: qmp.execute("query-migrate")["cpu-throttle-percentage"] > 0, 30, "the guest slowed down")
    pair.wait(lambda: qmp.execute("query-migrate")["status"] != "active", 90, "the end")
    m = qmp.execute("query-migrate")
    require(m["status"] == "completed", "slowed down it should have moved", m)
    qmp.close()
    await_moved(pair.b, source, destination)
    assert_well(pair, before)


def test_cancel_when_slowed_down(pair):
    source, _ = under_way(pair, "--on-slow", "throttle")
    before = assert_well(pair)
    qmp = Qmp(pair.a)
    pair.wait(lambda: qmp.execute("query-migrate")["cpu-throttle-percentage"] > 0, 30, "the guest slowed down")
    qmp.close()
    pair.a.perdure("migrate-cancel", pair.vm)
    goes_on_here(pair, before)
    require(source.alive(), "the source is gone")


def test_cancel(pair):
    """The guest goes on; the standby waits for the next one."""
    source, destination = under_way(pair)
    before = assert_well(pair)
    pair.a.perdure("migrate-cancel", pair.vm)
    goes_on_here(pair, before)
    require(pair.a.status()["last_error"] == "", "an error", pair.a.status()["last_error"])
    refused = pair.a.perdure("migrate-cancel", pair.vm, check=False)
    require(refused.returncode == 1 and "UNPROTECTED" in refused.stderr, "a second cancel", refused)
    limit(pair.a, None)
    pair.b.wait_state("LISTENING", process=destination)
    migrate(pair.a, pair.b)
    await_moved(pair.b, source, destination)
    assert_well(pair, before)


def sent(pair, *options):
    """Bytes that a guest with 16 MiB of easily packed memory takes over a slow link, and whether it was packed at the end."""
    source = run_count(pair.a, "size=16M rate=0", kernel="walk", memory="32M")
    before = assert_well(pair)
    destination = pair.b.standby()
    limit(pair.a, SLOW)
    qmp = Qmp(pair.a)
    migrate(pair.a, pair.b, *options)
    ram = qmp.execute("query-migrate")["ram"]
    qmp.close()
    await_moved(pair.b, source, destination)
    limit(pair.a, None)
    assert_well(pair, before)
    destination.kill()
    return ram["transferred"], ram["compressing"]


def test_compressed(pair):
    """By itself where the link is slow; the content is the same."""
    plain, no = sent(pair, "--compress", "off")
    packed, yes = sent(pair, "--compress", "on")
    by_itself, _ = sent(pair)  # at the very end hardly anything is left to be waited for
    require((no, yes) == (False, True), "compressing", no, yes)
    require(packed < plain / 2 and by_itself < plain * 0.8, "bytes sent plain, packed, by itself", plain, packed, by_itself)


def test_reset_on_the_way(pair):
    """What the guest asks for has its effect, before or after the switch."""
    source, destination = under_way(pair, "--on-slow", "pause", "--deadline", "5s")
    boot = ask(pair, "status")["boot_id"]
    ask(pair, "reset")
    pair.wait(lambda: (ask(pair, "status", wait_ms=500, check=False) or {"boot_id": boot})["boot_id"] != boot, 20, "the guest boots again")
    await_moved(pair.b, source, destination)
    assert_well(pair)


# --- told on the way ---

def test_changed_on_the_way(pair):
    """A migration goes by what it is told while it is under way, at once, and by nothing else."""
    source, destination = under_way(pair, "--downtime", "50ms")
    before = assert_well(pair)
    qmp = Qmp(pair.a)
    begin = {"downtime-limit": 50, "downtime-us": 50000, "deadline-us": 60000000, "max-bandwidth": 0, "on-slow": "cancel"}
    require(qmp.execute("query-migrate-parameters") == begin, "it began with", qmp.execute("query-migrate-parameters"))
    for arguments, text in (({"on-slow": "throw"}, "throttle"), ({"max-bandwidth": 1000}, "64K"), ({"downtime-limit": 0}, "downtime-limit"),
                            ({"downtime-limit": 5, "downtime-us": 5000}, "one of them"), ({"deadline-us": 5}, "--deadline"), ({"speed": 1}, "speed")):
        error = qmp.ask("migrate-set-parameters", **arguments).get("error", {"desc": "none"})
        require(text in error["desc"], "a parameter that makes no sense", arguments, error)
    qmp.execute("migrate-set-parameters", **{"on-slow": "pause", "downtime-limit": 600000})
    pair.wait(lambda: qmp.execute("query-migrate")["status"] != "active", 60, "the end")
    m = qmp.execute("query-migrate")
    require(m["status"] == "completed" and m["ram"]["dirty-rate"] > 0, "the control socket says", m)
    qmp.close()
    await_moved(pair.b, source, destination)
    assert_well(pair, before)


def test_what_was_set_before(pair):
    """The next migration begins with it, but for what its own caller says."""
    source = busy_guest(pair)
    before = assert_well(pair)
    pair.b.standby()
    pair.a.perdure("migrate-set", pair.vm, "--max-bandwidth", "1M", "--on-slow", "pause", "--deadline", "3600s")
    migrate(pair.a, pair.b, "--no-wait", "--compress", "off", "--on-slow", "cancel", "--downtime", "30ms")
    qmp = Qmp(pair.a)
    p = qmp.execute("query-migrate-parameters")
    require(p == {"downtime-limit": 30, "downtime-us": 30000, "deadline-us": 3600000000, "max-bandwidth": 1 << 20, "on-slow": "cancel"}, "it began with", p)
    pair.a.perdure("migrate-cancel", pair.vm)
    pair.a.wait_state("UNPROTECTED")
    p = qmp.execute("query-migrate-parameters")
    require(p["on-slow"] == "pause" and p["downtime-limit"] == 20 and p["max-bandwidth"] == 1 << 20, "the next would begin with", p)
    qmp.close()
    require(source.alive(), "the source is gone")
    assert_well(pair, before)


def test_max_bandwidth(pair):
    """No more than that goes while the guest runs here; and when the cap is lifted it is gone at once."""
    cap = 8 << 20
    source = busy_guest(pair)
    before = assert_well(pair)
    destination = pair.b.standby()
    migrate(pair.a, pair.b, "--no-wait", "--compress", "off", "--on-slow", "pause", "--max-bandwidth", "8M")
    qmp = Qmp(pair.a)
    pair.wait(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 1 << 20, 10, "a MiB on its way")
    first, begin = qmp.execute("query-migrate"), time.monotonic()
    time.sleep(1.5)
    last, end = qmp.execute("query-migrate"), time.monotonic()
    sent = last["ram"]["transferred"] - first["ram"]["transferred"]
    require(last["status"] == "active" and 0 < sent < cap * (end - begin) * 1.1 + (1 << 20), "sent under the cap", sent, end - begin, last)
    require(last["ram"]["bandwidth"] < 2 * cap, "the rate that is told", last)
    qmp.execute("migrate-set-parameters", **{"max-bandwidth": 0})
    qmp.close()
    await_moved(pair.b, source, destination)
    assert_well(pair, before)


def told(qmp, until):
    """What the events of a migration say, from here to the status until."""
    said = []
    while until not in said:
        said.append(qmp.wait_event("MIGRATION")["data"]["status"])
    return said


def test_events(pair):
    """Each change of what query-migrate says, on both sides, and each pass."""
    source = busy_guest(pair)
    destination = pair.b.standby()
    here, there = Qmp(pair.a), Qmp(pair.b)
    migrate(pair.a, pair.b, "--no-wait", "--compress", "off", "--max-bandwidth", "4M", "--on-slow", "cancel")
    require(here.wait_event("MIGRATION_PASS")["data"] == {"pass": 1}, "the first pass")
    pair.a.perdure("migrate-cancel", pair.vm)
    require(told(here, "cancelled") == ["setup", "active", "cancelled"], "cancelled, at the source")
    require(told(there, "failed") == ["active", "failed"], "cancelled, at the destination")
    m = there.execute("query-migrate")
    require(m["status"] == "failed" and m["error-desc"], "the destination's query-migrate", m)
    pair.b.wait_state("LISTENING", process=destination)
    migrate(pair.a, pair.b, "--no-wait", "--on-slow", "pause")
    require(told(here, "completed") == ["setup", "active", "completed"], "moved, at the source")
    passes = [e["data"]["pass"] for e in here.events if e["event"] == "MIGRATION_PASS"]
    require(passes and passes == list(range(1, len(passes) + 1)), "the passes", passes)
    here.close()
    await_moved(pair.b, source, destination)
    require(told(there, "completed") == ["active", "completed"], "moved, at the destination")
    require(there.execute("query-migrate")["status"] == "completed", "the destination's query-migrate")
    there.close()


# --- failures ---

def test_destination_dies(pair):
    source, destination = under_way(pair)
    before = assert_well(pair)
    destination.kill()
    goes_on_here(pair, before)
    require("was lost" in pair.a.status()["last_error"], "the error", pair.a.status()["last_error"])
    limit(pair.a, None)
    move(pair.a, pair.b, source)
    assert_well(pair, before)


def test_source_dies(pair):
    """Half a guest runs nowhere. The standby waits for the next one."""
    source, destination = under_way(pair)
    source.kill()
    pair.b.wait_state("LISTENING", process=destination)
    require(not ask(pair, "status", wait_ms=300, check=False), "half a guest answers")
    limit(pair.a, None)
    source = run_count(pair.a)
    before = assert_well(pair)
    migrate(pair.a, pair.b)
    await_moved(pair.b, source, destination)
    assert_well(pair, before)


def disk_fails(pair, call):
    """On the destination: the guest goes on here, with its disk, and moves when it works."""
    scene = Scene(pair)
    before = assert_well(pair)
    scene.fault[pair.b].fail(call, "disk0.img")
    done = migrate(pair.a, pair.b, check=False)
    require(done.returncode == 1 and "disk0" in done.stderr and "Input/output error" in done.stderr, "the error", done.stderr)
    goes_on_here(pair, before)
    scene.assert_goes_on()
    scene.fault[pair.b].heal()
    scene.wait_standby()
    migrate(pair.a, pair.b)
    await_moved(pair.b, scene.primary, scene.backup)
    scene.finish(pair.b)


def test_disk_cannot_be_written(pair):
    disk_fails(pair, "write")


def test_disk_cannot_be_flushed(pair):
    disk_fails(pair, "sync")


def test_disk_fails_in_the_passes(pair):
    """What the destination says is what the user reads, not that the link broke."""
    scene = Scene(pair)
    before = assert_well(pair)
    limit(pair.a, "8mbit")
    migrate(pair.a, pair.b, "--no-wait", "--compress", "off", "--on-slow", "cancel")
    qmp = Qmp(pair.a)
    pair.wait(lambda: qmp.execute("query-migrate")["ram"]["transferred"] > 256 << 10, 20, "memory on its way")
    qmp.close()
    scene.fault[pair.b].fail("write", "disk0.img")
    goes_on_here(pair, before)
    error = pair.a.status()["last_error"]
    require("disk0" in error and "Input/output error" in error, "the error", error)
    scene.fault[pair.b].heal()
    limit(pair.a, None)
    scene.wait_standby()
    migrate(pair.a, pair.b)
    await_moved(pair.b, scene.primary, scene.backup)
    scene.finish(pair.b)


def test_told_to_end_on_the_way(pair):
    """The state that is saved is that of the guest, which is nowhere else."""
    state = os.path.join(pair.dir, "state")
    source = run_count(pair.a, "size=64M rate=20000", kernel="walk", memory="128M", extra=["--save-on-exit", state])
    before = assert_well(pair)
    pair.b.standby()
    limit(pair.a, SLOW)
    migrate(pair.a, pair.b, "--no-wait", "--compress", "off")
    source.popen.terminate()
    require(source.wait(30) == 0, "exit", source.popen.returncode, source.log())
    again = pair.a.start("run", "--name", pair.vm, "--restore", state, "--net", "id=net0,tap=tap0")
    pair.a.wait_state("UNPROTECTED", process=again)
    assert_well(pair, before)


def test_path_cut(pair):
    _, destination = under_way(pair)
    before = assert_well(pair)
    pair.link(False)
    goes_on_here(pair, before)
    pair.b.wait_state("LISTENING", process=destination)
    pair.link(True)


def test_killed_at_any_moment(pair):
    """Whichever side dies: where the guest still is it is well, and half of it runs nowhere."""
    numbers = random.Random(int(os.environ.get("SEED", "1")))
    source = run_count(pair.a, "dirty=64")
    here, there = pair.a, pair.b
    for i in range(12):
        before = assert_well(pair)
        destination = there.standby()
        migrate(here, there, "--no-wait", "--arbiter", "file:" + pair.arbiter)
        time.sleep(numbers.uniform(0, 0.08))
        victim, left, at = (source, destination, there) if i % 2 else (destination, source, here)
        victim.kill()
        state = settled(pair, at, left)
        if state != "UNPROTECTED":  # it was with the victim, or half of it
            require(state == "LISTENING" if left is destination else state in ("ended", "FENCED"), "the side that is left", state)
            left.kill()
            left = run_count(here, "dirty=64")
        else:
            assert_well(pair, before)
            here, there = (at, there if at is here else here)
        source = left


def settled(pair, host, process):
    """What the side that is left comes to."""
    seen = []

    def there():
        seen[:] = ["ended" if not process.alive() else host.status()["state"]]
        return seen[0] in ("ended", "UNPROTECTED", "LISTENING", "FENCED")

    pair.wait(there, 30, "an end of the migration", lambda: str(seen))
    return seen[0]


# --- channels ---

def test_one_channel(pair):
    there_and_back(pair, "walk", 2, moves=2, move=lambda *args, standby: move(*args, "--channels", "1", standby=standby))


def test_three_channels(pair):
    there_and_back(pair, "walk", 2, move=lambda *args, standby: move(*args, "--channels", "3", "--compress", "on", standby=standby))


def test_many_channels(pair):
    there_and_back(pair, "log", 2, moves=2, move=lambda *args, standby: move(*args, "--channels", "16", standby=standby))


def test_channels_and_a_cap(pair):
    """What goes over all of them counts."""
    source = busy_guest(pair)
    before = assert_well(pair)
    pair.b.standby()
    migrate(pair.a, pair.b, "--no-wait", "--compress", "off", "--channels", "3", "--max-bandwidth", "8M", "--on-slow", "cancel", "--deadline", "60s")
    qmp = Qmp(pair.a)
    time.sleep(2)
    rate = qmp.execute("query-migrate")["ram"]["transferred"] / qmp.execute("query-migrate")["total-time"] * 1000
    qmp.close()
    require(rate < 12 << 20, "a cap of 8 MiB a second, and it sends", rate)
    pair.a.perdure("migrate-cancel", pair.vm)
    goes_on_here(pair, before)
    require(source.alive(), "the source is gone")


def connections(process):
    """Its sockets to the other side, in the order in which it opened them."""
    libc, pidfd, found = ctypes.CDLL(None, use_errno=True), os.pidfd_open(process.pid), []
    for fd in sorted(int(name) for name in os.listdir("/proc/%d/fd" % process.pid)):
        if os.readlink("/proc/%d/fd/%d" % (process.pid, fd)).startswith("socket:"):
            s = socket.socket(fileno=libc.syscall(PIDFD_GETFD, pidfd, fd, 0))
            if s.family == socket.AF_INET and s.type & socket.SOCK_STREAM and s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0:
                found.append(s)
            else:
                s.close()
    os.close(pidfd)
    return found


def test_any_connection_cut(pair):
    """Main, heartbeat, two more channels: whichever breaks, the guest goes on, and the standby waits for the next one."""
    source = busy_guest(pair)
    before = assert_well(pair)
    destination = pair.b.standby()
    limit(pair.a, SLOW)
    for which in range(4):
        migrate(pair.a, pair.b, "--no-wait", "--compress", "off", "--channels", "3", "--on-slow", "cancel", "--deadline", "60s")
        pair.wait(lambda: pair.a.status()["state"] == "MIGRATING", 10, "a migration under way")
        time.sleep(0.3)
        sockets = connections(source)
        require(len(sockets) == 4, "connections", sockets)
        sockets[which].shutdown(socket.SHUT_RDWR)
        for s in sockets:
            s.close()
        goes_on_here(pair, before)
        pair.b.wait_state("LISTENING", process=destination)
    limit(pair.a, None)
    migrate(pair.a, pair.b, "--channels", "3")
    await_moved(pair.b, source, destination)
    assert_well(pair, before)


def test_killed_with_channels(pair):
    source, destination = under_way(pair, "--channels", "4")
    before = assert_well(pair)
    destination.kill()
    goes_on_here(pair, before)
    require(source.alive(), "the source is gone")


# --- refusals ---

def test_refusals(pair):
    """In one clear line, with the guest unharmed."""
    source = run_count(pair.a)
    before = assert_well(pair)
    for options, code, text in (
            (("--downtime", "0ms"), 1, "downtime-us"), (("--on-slow", "throw"), 1, "on-slow"), (("--compress", "much"), 1, "auto, on, off"), (("--deadline", "1ms"), 1, "--deadline"),
            (("--channels", "0"), 1, "channels"), (("--channels", "99"), 1, "channels"), (("--channels", "many"), 2, "channels"),
            (("--nonsense",), 2, "--nonsense"), ((), 1, "refused")):
        done = migrate(pair.a, pair.b, *options, check=False)
        require(done.returncode == code and text in done.stderr, "migrate " + " ".join(options), done.returncode, done.stderr)
        require(len(done.stderr.strip().splitlines()) <= 2 or code == 2, "not one clear line", done.stderr)
    done = pair.a.perdure("migrate", pair.vm, check=False)
    require(done.returncode == 2 and "--to" in done.stderr, "migrate without --to", done.stderr)
    stranger = pair.b.standby(name="other")
    done = migrate(pair.a, pair.b, "--arbiter", "oracle", check=False)
    require(done.returncode == 1 and "oracle" in done.stderr, "an arbiter that there is not", done.stderr)
    done = migrate(pair.a, pair.b, check=False)
    require(done.returncode == 1 and "for 'other', not for 'web'" in done.stderr, "another machine's standby", done.stderr)
    stranger.kill()
    pair.b.standby()
    pair.a.protect(pair.b)
    done = migrate(pair.a, pair.b, check=False)
    require(done.returncode == 1 and "the machine is protected" in done.stderr, "a protected machine", done.stderr)
    require(source.alive(), "the source is gone")
    assert_well(pair, before)


def test_no_disk_there(pair):
    disk = make_disk(os.path.join(pair.a.dir, "disk.img"))
    run_count(pair.a, kernel="log", extra=disk_options([disk]))
    before = assert_well(pair)
    pair.b.standby()
    done = migrate(pair.a, pair.b, check=False)
    require(done.returncode == 1 and "disk0" in done.stderr, "a missing disk", done.stderr)
    assert_well(pair, before)


def test_records(pair):
    """The copy that was left behind is not started by mistake."""
    disks = {host: [make_disk(os.path.join(host.dir, "disk.img"))] for host in (pair.a, pair.b)}
    source = run_count(pair.a, kernel="log", extra=disk_options(disks[pair.a]))
    before = assert_well(pair)
    destination = move(pair.a, pair.b, source, standby=disk_options(disks[pair.b]))
    done = pair.a.perdure("run", "--name", pair.vm, "--kernel", "builtin:log", "--console", "null", *disk_options(disks[pair.a]), check=False)
    require(done.returncode == 1 and "older than the copy" in done.stderr, "the old copy ran", done.stderr)
    assert_well(pair, before)
    pair.b.perdure("quit", pair.vm)
    destination.wait()
    again = run_count(pair.b, kernel="log", extra=disk_options(disks[pair.b]))
    require(again.alive(), "the new copy is refused")


if __name__ == "__main__":
    run_tests("migrate", globals())
