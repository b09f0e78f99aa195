#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines with dirty rings (--dirty-ring), one scenario a function: test_dirty_rings.py [--build build] [test_NAME...]

What migrations and protection promise holds with them as with KVM's bitmap, and a migration that slows the guest slows only the processors that write.
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_postcopy  # noqa: E402
from scenario import CountClient, Qmp, ask, assert_well, require, run_count, run_tests  # noqa: E402
from test_migrate import SLOW, await_moved, limit, migrate, there_and_back  # noqa: E402

RINGS = ["--dirty-ring"]


# --- the corpus ---

def test_walk(pair):
    there_and_back(pair, "walk", 1, moves=2, more=RINGS)


def test_walk_2(pair):
    there_and_back(pair, "walk", 2, more=RINGS)


def test_count(pair):
    there_and_back(pair, "count", 1, moves=2, more=RINGS)


def test_count_2(pair):
    there_and_back(pair, "count", 2, more=RINGS)


def test_irq(pair):
    there_and_back(pair, "irq", 1, moves=2, more=RINGS)


def test_irq_2(pair):
    there_and_back(pair, "irq", 2, moves=2, more=RINGS)


def test_log(pair):
    there_and_back(pair, "log", 1, moves=2, more=RINGS)


def test_log_2(pair):
    there_and_back(pair, "log", 2, moves=2, more=RINGS)


def test_on_one_host_only(pair):
    """They are no part of the machine: the other host needs none."""
    there_and_back(pair, "walk", 2, more={pair.a: RINGS, pair.b: []})


def test_in_postcopy(pair):
    test_postcopy.there_and_back(pair, "walk", 2, more=RINGS)


# --- protection ---

def failover(pair, **guest):
    """Each side dies once, and every epoch has all that changed."""
    primary = run_count(pair.a, extra=RINGS, **guest)
    before = assert_well(pair)
    client = CountClient(pair) if "kernel" not in guest else None
    backup = pair.b.standby(RINGS)
    for here, there in ((pair.a, pair.b), (pair.b, pair.a)):
        here.protect(there, "--verify", "5")
        time.sleep(1)
        status = here.status()
        require(status["checkpoint"]["verified"] > 0 and status["last_error"] == "", "no epoch was verified", status)
        primary.kill()
        there.wait_state("UNPROTECTED", process=backup)
        assert_well(pair, before)
        primary, backup = backup, here.standby(RINGS)
    if client:
        client.finish()


def test_failover_count_2(pair):
    failover(pair, cpus=2)


def test_failover_walk_2(pair):
    failover(pair, cpus=2, kernel="walk", cmdline="size=16M rate=0")


# --- who is slowed ---

PAGES = 16384


def pace(pair):
    """What the processor that counts did in a ms of the guest, and how many pages the other one wrote."""
    first = ask(pair, "status", wait_ms=20000)
    time.sleep(2)
    last = ask(pair, "status", wait_ms=20000)
    ms = last["since_ms"] - first["since_ms"]
    return (last["heartbeat"][1] - first["heartbeat"][1]) / ms, (last["pages_written"] - first["pages_written"]) / ms


def test_only_the_writer_is_slowed(pair):
    """One processor writes as much as it can, the other counts; it moves in the end. (That without rings both are slowed alike: test_dirty_log.)"""
    source = run_count(pair.a, "rate=100000000 pages=%d" % PAGES, kernel="dirty", cpus=2, memory="128M", extra=RINGS)
    pair.wait(lambda: ask(pair, "status", wait_ms=20000)["pages_written"] > 2 * PAGES, 60, "every page written to once")
    before = pace(pair)
    destination = pair.b.standby(RINGS)
    limit(pair.a, SLOW)
    migrate(pair.a, pair.b, "--no-wait", "--compress", "off", "--on-slow", "throttle", "--downtime", "300ms")
    qmp = Qmp(pair.a)
    pair.wait(lambda: qmp.execute("query-migrate")["cpu-throttle-percentage"] > 90, 120, "the guest slowed down")
    count, writes = [now / then for now, then in zip(pace(pair), before)]
    pair.wait(lambda: qmp.execute("query-migrate")["status"] != "active", 120, "the end")
    m = qmp.execute("query-migrate")
    require(m["status"] == "completed", "slowed down it should have moved", m)
    qmp.close()
    await_moved(pair.b, source, destination)
    assert_well(pair)
    require(count > 2 / 5 and writes < count / 3, "left of who counts, and of who writes", count, writes)


if __name__ == "__main__":
    run_tests("dirty-rings", globals())
