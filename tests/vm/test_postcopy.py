#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Postcopy between two processes on two hosts, one scenario a function: test_postcopy.py [--build build] [test_NAME...]

The guest runs at the destination while part of its memory is still at the source: the corpus there and back, then a link that is cut and comes
back, either side that ends, and what is refused meanwhile.
"""
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_migrate  # noqa: E402
from scenario import CountClient, Qmp, ask, assert_well, require, run_count, run_tests  # noqa: E402
from test_migrate import await_moved, busy_guest, goes_on_here, limit, migrate, told  # noqa: E402

# Memory is left when the switch comes, whatever the guest does: the time is over in the first pass over a slow link.
AT_ONCE = ("--postcopy", "--deadline", "100ms", "--downtime", "1ms")
SLOW = "80mbit"


def query(host):
    qmp = Qmp(host)
    m = qmp.execute("query-migrate")
    qmp.close()
    return m


def states(pair):
    return [host.status()["state"] for host in (pair.a, pair.b)]


def begun(pair, *options, guest=busy_guest, standby=()):
    """The guest runs at the destination, most of its memory is at the source, and the link is slow. Source, destination."""
    source = guest(pair)
    destination = pair.b.standby(standby)
    limit(pair.a, SLOW)
    migrate(pair.a, pair.b, "--no-wait", "--timeout", "1s", "--compress", "off", *AT_ONCE, *options)
    pair.b.wait_state("POSTCOPY", process=destination)
    pair.a.wait_state("POSTCOPY", process=source)
    return source, destination


# --- the corpus ---

def there_and_back(pair, guest, cpus, more=()):
    def move(here, there, source, standby):
        destination = there.standby(standby)
        limit(here, SLOW)
        migrate(here, there, *AT_ONCE)
        await_moved(there, source, destination)
        if guest != "irq":  # it changes nothing in the moment that its little memory takes
            require("-> POSTCOPY: " in source.log(), "it was no postcopy", source.log())
        limit(here, None)
        return destination

    test_migrate.there_and_back(pair, guest, cpus, moves=2, move=move, more=more)


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
    source = busy_guest(pair)
    before = assert_well(pair)
    pair.a.perdure("stop", pair.vm)
    destination = pair.b.standby()
    limit(pair.a, SLOW)
    migrate(pair.a, pair.b, *AT_ONCE)
    await_moved(pair.b, source, destination)
    require(pair.b.status()["run_state"] == "paused", "it is not paused there", pair.b.status())
    pair.b.perdure("resume", pair.vm)
    assert_well(pair, before)


def test_all_memory_once(pair):
    """--postcopy: what the guest changed in the first pass follows, and what it waits for comes first."""
    source = busy_guest(pair)
    before = assert_well(pair)
    destination = pair.b.standby()
    qmp, there = Qmp(pair.a), Qmp(pair.b)
    out = migrate(pair.a, pair.b, "--postcopy", "--downtime", "1ms")
    require(out.startswith("moved in ") and "pages were waited for" in out, "the command says", out)
    m = qmp.execute("query-migrate")
    require(told(qmp, "completed") == ["setup", "active", "postcopy-active", "completed"], "events at the source")
    require(told(there, "completed") == ["active", "postcopy-active", "completed"], "events at the destination")
    qmp.close()
    there.close()
    require(m["status"] == "completed" and m["ram"]["passes"] == 1 and m["ram"]["remaining"] == 0, "the control socket says", m)
    require(m["ram"]["postcopy-requests"] > 0, "nobody waited for a page", m)
    await_moved(pair.b, source, destination)
    assert_well(pair, before)


def test_fits_into_the_downtime(pair):
    """Nothing has to follow a guest that changes little."""
    source = run_count(pair.a)
    before = assert_well(pair)
    destination = pair.b.standby()
    migrate(pair.a, pair.b, "--postcopy", "--downtime", "500ms")
    await_moved(pair.b, source, destination)
    require("POSTCOPY" not in source.log(), "it was a postcopy", source.log())
    assert_well(pair, before)


# --- the link ---

def cut(pair, times, cpus=1):
    """The guest waits for what it needs, and nothing else happens to it: the source makes the link anew by itself."""
    source, destination = begun(pair, guest=lambda pair: run_count(pair.a, "size=64M rate=20000", cpus, kernel="walk", memory="128M"))
    before = None
    for i in range(times):
        pair.link(False)
        pair.a.wait_state("POSTCOPY_PAUSED", process=source)
        pair.b.wait_state("POSTCOPY_PAUSED", process=destination)
        require("no sign of life" in pair.a.status()["last_error"], "the error", pair.a.status()["last_error"])
        require(query(pair.a)["status"] == "postcopy-paused", "the control socket says", query(pair.a))
        pair.link(True)
        pair.wait(lambda: query(pair.a)["recoveries"] > i, 30, "the link made anew")
    limit(pair.a, None)
    await_moved(pair.b, source, destination)
    assert_well(pair, before)


def test_cut_once(pair):
    cut(pair, 1)


def test_cut_twice(pair):
    cut(pair, 2)


def test_cut_five_times(pair):
    cut(pair, 5)


def test_cut_twice_2(pair):
    cut(pair, 2, cpus=2)


def test_cut_under_load(pair):
    """Every answered request is still counted, and no answer comes twice."""
    clients = []

    def served(pair):
        source = run_count(pair.a, "dirty=4000")
        clients.append(CountClient(pair))
        assert_well(pair)
        return source

    source, destination = begun(pair, guest=served)
    for _ in range(2):
        pair.link(False)
        pair.b.wait_state("POSTCOPY_PAUSED", process=destination)
        time.sleep(0.5)
        pair.link(True)
        pair.wait(lambda: destination.log().count("the source is back") > 0 or not source.alive(), 30, "the link made anew")
        if not source.alive():
            break
    limit(pair.a, None)
    await_moved(pair.b, source, destination)
    clients[0].finish()
    assert_well(pair)


def test_paused_and_recovered(pair):
    """By the user's word; in between nothing comes, and nothing is tried."""
    source, destination = begun(pair)
    pair.a.perdure("migrate-pause", pair.vm)
    pair.a.wait_state("POSTCOPY_PAUSED", process=source)
    pair.b.wait_state("POSTCOPY_PAUSED", process=destination)
    time.sleep(1.5)
    require(states(pair) == ["POSTCOPY_PAUSED"] * 2, "it went on by itself", states(pair))
    refused = pair.b.perdure("migrate-recover", pair.vm, check=False)
    require(refused.returncode == 1 and "belongs there" in refused.stderr, "at the destination", refused)
    refused = pair.a.perdure("migrate-recover", pair.vm, "--to", "tcp:10.99.0.2:1", check=False)
    require(refused.returncode == 1 and "cannot go on yet" in refused.stderr, "at nobody's address", refused)
    refused = pair.b.perdure("stop", pair.vm, check=False)
    require(refused.returncode == 1 and "the link is broken" in refused.stderr, "stopped, and waiting for memory", refused)
    pair.a.perdure("migrate-recover", pair.vm)  # where it was, which the failed attempt has not changed
    limit(pair.a, None)
    await_moved(pair.b, source, destination)
    assert_well(pair)


def test_frozen_source(pair):
    """It comes back, and the guest gets what it waited for."""
    source, destination = begun(pair)
    source.freeze()
    pair.b.wait_state("POSTCOPY_PAUSED", process=destination)
    source.thaw()
    limit(pair.a, None)
    await_moved(pair.b, source, destination)
    assert_well(pair)


# --- what is not possible meanwhile ---

def test_refusals(pair):
    source, destination = begun(pair)
    for host, command, text in (
            (pair.a, ("migrate-cancel", pair.vm), "runs at the destination already"),
            (pair.a, ("resume", pair.vm), "runs on the other side"),
            (pair.a, ("quit", pair.vm), "memory"),
            (pair.a, ("protect", pair.vm, "--to", pair.b.address, "--psk", pair.psk), "POSTCOPY"),
            (pair.b, ("protect", pair.vm, "--to", pair.a.address, "--psk", pair.psk), "POSTCOPY"),
            (pair.b, ("migrate", pair.vm, "--to", pair.a.address, "--psk", pair.psk), "POSTCOPY"),
            (pair.b, ("migrate-pause", pair.vm), "at its source"),
            (pair.b, ("migrate-cancel", pair.vm), "runs")):
        done = host.perdure(*command, check=False)
        require(done.returncode == 1 and text in done.stderr, " ".join(command), done.returncode, done.stderr)
    pair.b.perdure("stop", pair.vm)
    pair.b.perdure("resume", pair.vm)
    limit(pair.a, None)
    await_moved(pair.b, source, destination)
    assert_well(pair)


# --- either side ends ---

def test_cancel_before_the_switch(pair):
    source = busy_guest(pair)
    before = assert_well(pair)
    destination = pair.b.standby()
    limit(pair.a, SLOW)
    migrate(pair.a, pair.b, "--no-wait", "--compress", "off", "--postcopy")
    pair.a.perdure("migrate-cancel", pair.vm)
    goes_on_here(pair, before)
    pair.b.wait_state("LISTENING", process=destination)
    require(source.alive(), "the source is gone")


def test_source_dies_after_the_switch(pair):
    """It takes the guest with it. The destination says so, and ends when it is told to, whoever waits for a page."""
    source, destination = begun(pair)
    source.kill()
    pair.b.wait_state("POSTCOPY_PAUSED", process=destination)
    require("was lost" in pair.b.status()["last_error"], "the error", pair.b.status()["last_error"])
    pair.b.perdure("quit", pair.vm, "--force")
    require(destination.wait(60) == 0, "exit", destination.popen.returncode, destination.log())


def test_destination_dies_after_the_switch(pair):
    """Nothing of the guest runs where only the rest of it is."""
    source, destination = begun(pair)
    destination.kill()
    pair.a.wait_state("POSTCOPY_PAUSED", process=source)
    require(not ask(pair, "status", wait_ms=300, check=False), "half a guest answers")
    again = pair.b.standby()
    pair.wait(lambda: "no session waits here" in pair.a.status()["last_error"], 30, "a refusal", lambda: pair.a.status()["last_error"])
    require(states(pair) == ["POSTCOPY_PAUSED", "LISTENING"], "states", states(pair))
    require(again.alive(), "the new standby ended")
    pair.a.perdure("quit", pair.vm, "--force")
    require(source.wait(60) == 0, "exit", source.popen.returncode, source.log())


def test_killed_at_any_moment(pair):
    """Whichever side dies: where the guest still is it is well, and half of it runs nowhere."""
    numbers = random.Random(int(os.environ.get("SEED", "1")))
    source = run_count(pair.a, "dirty=64")
    here, there = pair.a, pair.b
    for i in range(12):
        before = assert_well(pair)
        destination = there.standby()
        migrate(here, there, "--no-wait", "--arbiter", "file:" + pair.arbiter, "--timeout", "1s", "--postcopy", "--downtime", "1ms")
        time.sleep(numbers.uniform(0, 0.08))
        victim, left, at = (source, destination, there) if i % 2 else (destination, source, here)
        victim.kill()
        state = settled(pair, at, left)
        if state == "UNPROTECTED":
            assert_well(pair, before)
            here, there = (at, there if at is here else here)
        else:  # it was with the victim, or half of it
            require(state in (("LISTENING", "POSTCOPY_PAUSED") if left is destination else ("ended", "FENCED", "POSTCOPY_PAUSED")),
                    "the side that is left", state)
            left.kill()
            left = run_count(here, "dirty=64")
        source = left


def settled(pair, host, process):
    """What the side that is left comes to."""
    seen = []

    def there():
        seen[:] = ["ended" if not process.alive() else host.status()["state"]]
        return seen[0] in ("ended", "UNPROTECTED", "LISTENING", "FENCED", "POSTCOPY_PAUSED")

    pair.wait(there, 30, "an end of the migration", lambda: str(seen))
    return seen[0]


if __name__ == "__main__":
    run_tests("postcopy", globals())
