#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A backup that moves, and a protected machine that does, on two hosts with three processes: test_successor.py [--build build] [test_NAME...]

The successor is a second process on the backup's host, with a tap of its own. Clients of the guest notice nothing: no acknowledged request is lost,
whoever is killed, and no output leaves before a backup has what it follows from.
"""
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from disklog import disk_options, judge, make_disk  # noqa: E402
from scenario import CORPUS, CountClient, ask, assert_well, require, run_count, run_tests  # noqa: E402

TAP1 = "id=net0,tap=tap1"


class Three:
    """A protected guest: primary on a, backup on b, and a further standby beside it."""

    def __init__(self, pair, *options, disks=0, **guest):
        self.pair, self.a, self.b = pair, pair.a, pair.b
        self.s = pair.neighbour(pair.b)
        self.images = {host: [make_disk(os.path.join(host.dir, "disk%d.img" % i)) for i in range(disks)] for host in (self.a, self.b, self.s)}
        self.primary = run_count(pair.a, extra=disk_options(self.images[self.a]), **guest)
        self.backup = self.b.standby(disk_options(self.images[self.b]))
        self.a.protect(self.b, *options)
        self.successor = self.s.standby(disk_options(self.images[self.s]), net=TAP1)
        self.before = assert_well(pair)

    def move(self, by, to, **how):
        return by.perdure("migrate-backup", self.pair.vm, "--to", to.address, **how)

    def await_backup(self, host, process):
        host.wait_state("STANDBY", process=process)
        status = self.a.status()
        require(status["state"] == "PROTECTED" and status["peer"] == host.address, "not protected by the successor", status)

    def take_over(self, host, process):
        self.primary.kill()
        host.wait_state("UNPROTECTED", process=process)


def there_and_back(pair, **guest):
    t = Three(pair, "--verify", "20", **guest)
    client = CountClient(pair) if guest["kernel"] in ("count", "log") else None
    for _ in range(2):
        t.move(t.b, t.s)
        t.await_backup(t.s, t.successor)
        t.b.wait_state("LISTENING", process=t.backup)
        t.move(t.a, t.b)  # asked by the primary
        t.await_backup(t.b, t.backup)
        t.s.wait_state("LISTENING", process=t.successor)
    t.move(t.b, t.s)
    t.await_backup(t.s, t.successor)
    pair.wait(lambda: t.a.status()["checkpoint"]["verified"] >= 3, 20, "epochs verified by the successor")
    require(not t.a.status()["last_error"], "an error", t.a.status()["last_error"])
    t.take_over(t.s, t.successor)
    if client:
        client.finish()
    assert_well(pair, t.before)
    if t.images[t.s]:
        judge(t.images[t.s], ask(pair, "status")["counter"])


def corpus_case(kernel, cpus):
    def case(pair):
        there_and_back(pair, kernel=kernel, cmdline=CORPUS[kernel], cpus=cpus, disks=cpus if kernel == "log" else 0)

    return case


for _kernel, _cpus in (("walk", 1), ("walk", 2), ("count", 2), ("irq", 1), ("log", 1), ("log", 2)):
    globals()["test_%s_%d" % (_kernel, _cpus)] = corpus_case(_kernel, _cpus)


def test_stopped(pair):
    t = Three(pair)
    t.a.perdure("stop", pair.vm)
    t.move(t.b, t.s)
    t.await_backup(t.s, t.successor)
    t.a.perdure("resume", pair.vm)
    assert_well(pair, t.before)
    t.take_over(t.s, t.successor)
    assert_well(pair, t.before)


# --- a protected machine moves ---

def protected_machine(pair, **guest):
    """To a third process; what was the backup is it again, and the source's process has ended."""
    t = Three(pair, **guest)
    client = CountClient(pair)
    t.a.perdure("migrate", pair.vm, "--to", t.s.address)
    require(t.primary.wait() == 0, "the source's process ended with", t.primary.popen.returncode)
    status = t.s.wait_state("PROTECTED", process=t.successor)
    require(status["role"] == "primary" and status["peer"].startswith("tcp:"), "not the primary there", status)
    t.b.wait_state("STANDBY", process=t.backup)
    time.sleep(0.3)
    t.successor.kill()
    t.b.wait_state("UNPROTECTED", process=t.backup)
    client.finish()
    assert_well(pair, t.before)
    if t.images[t.b]:
        judge(t.images[t.b], ask(pair, "status")["counter"])


def test_protected_machine(pair):
    protected_machine(pair)


def test_protected_machine_with_disks(pair):
    protected_machine(pair, kernel="log", disks=2)


# --- who dies ---

def killed(pair, victim, seed):
    """At any moment of the move."""
    rng = random.Random(seed)
    disks = seed % 2
    t = Three(pair, cmdline="dirty=16", kernel="log" if disks else "count", disks=disks)
    client = CountClient(pair)
    t.move(t.a, t.s, check=False) if rng.random() < 0.3 else t.b.perdure("migrate-backup", pair.vm, "--to", t.s.address, "--no-wait")
    time.sleep(rng.random() * 0.5)
    {"primary": t.primary, "backup": t.backup, "successor": t.successor}[victim].kill()
    hosts = [(t.a, t.primary), (t.b, t.backup), (t.s, t.successor)]
    alive = [(h, p) for h, p in hosts if p.alive()]

    def runs():
        return [h for h, p in alive if h.status().get("role") == "primary" and h.status()["state"] in ("UNPROTECTED", "PROTECTED")]

    pair.wait(runs, 20, "somebody who runs it", lambda: str([h.status() for h, _ in alive]))
    client.finish()
    assert_well(pair, t.before)
    require(len(runs()) == 1, "not in one place", runs())
    if disks:
        judge(t.images[runs()[0]], ask(pair, "status")["counter"])


def kill_case(victim, seed):
    def case(pair):
        killed(pair, victim, seed)

    return case


for _victim in ("primary", "backup", "successor"):
    for _seed in range(3):
        globals()["test_%s_killed_%d" % (_victim, _seed)] = kill_case(_victim, _seed)


# --- it does not go ---

def test_refusals(pair):
    t = Three(pair)
    done = t.move(t.b, t.b, check=False)  # it is busy: with itself
    require(done.returncode == 1 and "busy" in done.stderr, "moved to itself", done.stderr)
    nobody = pair.neighbour(pair.b)
    done = t.move(t.a, nobody, check=False)
    require(done.returncode == 1 and "refused" in done.stderr, "moved to nobody", done.stderr)
    done = t.move(t.s, t.b, check=False)
    require(done.returncode == 1 and "LISTENING" in done.stderr, "a backup that is none moved", done.stderr)
    done = t.a.perdure("migrate", pair.vm, "--to", t.s.address, "--postcopy", check=False)
    require(done.returncode == 1 and "protected" in done.stderr, "a protected machine moved by postcopy", done.stderr)
    require(t.a.status()["state"] == "PROTECTED" and t.a.status()["peer"] == t.b.address, "protection suffered", t.a.status())
    t.take_over(t.b, t.backup)
    assert_well(pair, t.before)


def test_other_key(pair):
    """The successor listens with another key than the pair's."""
    t = Three(pair)
    key = os.path.join(pair.dir, "other")
    pair.b.perdure("keygen", key)
    other = pair.neighbour(pair.b)
    other.standby(net=TAP1, key=key)
    done = t.move(t.b, other, check=False)
    require(done.returncode == 1, "moved to a stranger", done.stdout)
    # the backup may know that key; the primary does not
    done = t.b.perdure("migrate-backup", pair.vm, "--to", other.address, "--psk", key, check=False)
    require(done.returncode == 1 and "the primary cannot go there" in done.stderr, "the primary went to a stranger", done.stderr)
    require(t.a.status()["state"] == "PROTECTED" and t.a.status()["peer"] == t.b.address, "protection suffered", t.a.status())
    other.wait_state("LISTENING")
    t.take_over(t.b, t.backup)
    assert_well(pair, t.before)


def test_power_off_on_the_way(pair):
    t = Three(pair, kernel="walk", cmdline="size=16M rate=20000")
    t.b.perdure("migrate-backup", pair.vm, "--to", t.s.address, "--no-wait")
    ask(pair, "poweroff", check=False, wait_ms=500)
    pair.wait(lambda: not t.primary.alive(), 20, "the end of the guest")
    require(t.primary.popen.returncode == 0, "the primary ended with", t.primary.popen.returncode)


if __name__ == "__main__":
    run_tests("successor", globals())
