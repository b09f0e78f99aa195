#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A database on a disk over two test hosts: what it answered is on its disk, wherever and whenever it starts again.

    test_disks.py [--perdure build/perdure] [--long] [WORD...]

Redis in the guest appends to its file and flushes before it answers (appendfsync always). A client has one TCP connection, sends INCR and
never sends one again: reply i has to be i across every takeover. Where the guest loses its memory a new client goes on with the counter: all
that the first one was told is there. The hosts' disks (datadisk.py) outlive power cuts; at the end e2fsck and redis-check-aof judge them.
"""
import random
import time

import runner
from cluster import DiskCluster
from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import

SOME = 10  # replies that show that the service goes on
MORE_DISK = 192  # MiB that make a sync last


def serves_on(client):
    """What @client was told is there, and redis goes on. Returns a client that has ended again."""
    with Client(after=client) as after:
        after.wait_more(SOME)
        after.stop()
    return after


def go_on(cluster, host, client, more=""):
    """Boots the guest from a surviving disk."""
    cluster.run_guest(host, more=more)
    return serves_on(client)


# While protected


def test_power_cut_and_failback(cluster):
    """A loses power, B goes on. A is back: its copy is refused, one command makes it the standby, and it gets its role back."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest()
    with Client() as client:
        client.wait_more(SOME)
        a.power_cut()
        client.wait_more(SOME, timeout=90)
        cluster.wait_took_over(b)
        a.start()
        cluster.assert_refused(a, "older than the copy", "start it as a standby")
        cluster.standby(a)
        cluster.protect(b, a)
        client.wait_more(SOME)
        b.run("perdure swap web", timeout=90)
        cluster.wait_protected(a, b)
        client.wait_more(SOME)
        client.stop()
    cluster.end_protected_guest(a, b)
    cluster.assert_hosts_showed("A", "B", "A")


def test_both_power_cut(cluster):
    """Both lose power, and then each tries to start the guest by itself: A, whose disk has everything, and only A."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest()
    with Client() as client:
        client.wait_more(SOME)
        cut_power(a, b)
        client.stop()
    start_hosts(a, b)
    cluster.assert_refused(b, "standby's")
    client = go_on(cluster, a, client)
    cluster.assert_refused(b, "standby's")
    cluster.standby(b)
    cluster.protect(a, b)
    with Client(after=client) as client:
        client.wait_more(SOME)
        client.stop()
    cluster.end_protected_guest(a, b)
    assert {span.host for span in cluster.spans()} == {"A"}


def test_frozen(cluster):
    """A stands still for longer than the timeout and goes on: B runs, A's copy is given up, and runs nowhere."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest()
    with Client() as client:
        client.wait_more(SOME)
        a.freeze()
        client.wait_more(SOME, timeout=90)
        a.thaw()
        cluster.wait_state(a, "FENCED")
        cluster.wait_role(a, "superseded")
        cluster.end_perdure(a)
        cluster.assert_refused(a, "older than the copy")
        client.wait_more(SOME)
        client.stop()
    cluster.assert_hosts_showed("A", "B")
    cluster.end_guest(b)
    cluster.check_disks(b)


def test_path_cut(cluster):
    """A and B lose each other: who lost has a copy that does not run, until it is the standby. Then the other loses power."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest()
    with Client() as client:
        client.wait_more(SOME)
        a.partition(REPLICATION)
        client.wait_more(SOME, timeout=90)
        winner, loser = (a, b) if wait_until(cluster.settled, 90, "one side goes on, the other has stopped") == "A" else (b, a)
        cluster.end_perdure(loser)
        cluster.assert_refused(loser)
        a.heal(REPLICATION)
        cluster.standby(loser)
        cluster.protect(winner, loser)
        client.wait_more(SOME)
        winner.power_cut()
        client.wait_more(SOME, timeout=90)
        client.stop()
    cluster.end_guest(loser)
    cluster.check_disks(loser)


# In a sync


def test_power_cut_in_first_sync(cluster):
    """A loses power when half its disk is on B: half a disk is none, A's is whole. A second sync then does what the first did not."""
    a, b = cluster.a, cluster.b
    cluster.lengthen_disks(MORE_DISK)
    cluster.run_guest(a)
    cluster.standby(b)
    with Client() as client:
        client.wait_more(SOME)
        cluster.protect_until(a, b, 0.7)
        client.wait_more(1)
        a.power_cut()
        client.stop()
    cluster.wait_state(b, "LISTENING")
    cluster.end_perdure(b)
    cluster.assert_refused(b, "half overwritten")
    a.start()
    client = go_on(cluster, a, client)
    cluster.standby(b)
    cluster.protect(a, b)
    cluster.end_protected_guest(a, b)


def test_b_power_cut(cluster):
    """B loses power in the sync, and again while protected: the client notices neither. The third B is worth as much as the first."""
    a, b = cluster.a, cluster.b
    cluster.lengthen_disks(MORE_DISK)
    cluster.run_guest(a)
    cluster.standby(b)
    with Client() as client:
        cluster.protect_until(a, b, 0.7)
        b.power_cut()
        cluster.wait_state(a, "UNPROTECTED")
        client.wait_more(SOME)
        b.start()
        cluster.assert_refused(b, "half overwritten")
        cluster.standby(b)
        cluster.protect(a, b)
        client.wait_more(SOME)
        b.power_cut()
        cluster.wait_state(a, "UNPROTECTED")
        client.wait_more(SOME)
        cluster.wait_role(a, "clean")
        b.start()
        cluster.assert_refused(b, "standby's")
        cluster.standby(b)
        cluster.protect(a, b)
        client.wait_more(SOME)
        a.power_cut()
        client.wait_more(SOME, timeout=90)
        client.stop()
    cluster.end_guest(b)
    cluster.check_disks(b)
    cluster.assert_hosts_showed("A", "B")


def long_test_power_cuts_in_failback_sync(cluster):
    """B runs since a takeover, and A's old copy is half overwritten when A loses power; then, in the next try, B does."""
    a, b = cluster.a, cluster.b
    cluster.lengthen_disks(MORE_DISK)
    cluster.protected_guest()
    with Client() as client:
        client.wait_more(SOME)
        a.power_cut()
        client.wait_more(SOME, timeout=90)
        cluster.wait_took_over(b)
        a.start()
        cluster.make_noise(a, MORE_DISK)
        cluster.standby(a)
        cluster.protect_until(b, a, 0.7)
        a.power_cut()
        cluster.wait_state(b, "UNPROTECTED")
        client.wait_more(SOME)
        a.start()
        cluster.assert_refused(a, "half overwritten")
        cluster.make_noise(a, MORE_DISK)
        cluster.standby(a)
        cluster.protect_until(b, a, 0.7)
        b.power_cut()
        client.stop()
    cluster.wait_state(a, "LISTENING")
    cluster.end_perdure(a)
    cluster.assert_refused(a, "half overwritten")
    b.start()
    go_on(cluster, b, client)
    cluster.standby(a)
    cluster.protect(b, a)
    cluster.end_protected_guest(b, a)


# In a change of roles


def long_test_takeover_cut_short(cluster):
    """A is gone, and B loses power when it asks the arbiter, a moment after the answer, and when it runs. No two copies start by
    themselves; the one that the arbiter let run has all that a client was told, by its journal if need be."""
    a, b = cluster.a, cluster.b
    client = None
    for moment in ("asking", "answered", "running"):
        cluster.run_guest(a)
        cluster.standby(b)
        cluster.protect(a, b)
        with Client(after=client) as client:
            client.wait_more(SOME)
            client.stop()
        time.sleep(5)  # the last epochs are in the journal: what is lost with both hosts at once is not asked here
        cut_takeover(cluster, moment)
        start_hosts(a, b)
        runner_up, client = start_after_takeover(cluster, client)
        print(f"    {moment}: {runner_up.name} ran", flush=True)
        if runner_up is b:
            a, b = b, a
        cluster.end_guest(a)
    cluster.check_disks(a)


def cut_takeover(cluster, moment):
    """Etcd stands still, so the takeover lasts as long as it is to."""
    a, b = (cluster.a, cluster.b) if cluster.state(cluster.b) == "STANDBY" else (cluster.b, cluster.a)
    cluster.etcd.freeze()
    a.power_cut()
    cluster.wait_state(b, "ASKING")
    if moment != "asking":
        cluster.etcd.thaw()
    if moment == "answered":
        time.sleep(random.uniform(0, 1.5))
    if moment == "running":
        cluster.wait_took_over(b)
    b.power_cut()
    cluster.etcd.thaw()


def start_after_takeover(cluster, client):
    """What their units would try, on both. Returns who ran, by itself or else by force, and what the client has become."""
    roles = {host: cluster.role(host) for host in (cluster.a, cluster.b)}
    backup = cluster.a if roles[cluster.b] == "primary" else cluster.b
    primary = cluster.a if backup is cluster.b else cluster.b
    print(f"    records: {roles[primary]}, {roles[backup]}", flush=True)
    by_itself = try_run(cluster, backup)
    if by_itself:
        cluster.assert_refused(primary, "older than the copy")
        return backup, go_on_running(cluster, backup, client)
    if try_run(cluster, primary):
        cluster.assert_refused(backup, "standby's")
        return primary, go_on_running(cluster, primary, client)
    return backup, go_on(cluster, backup, client, "--force-stale")


def try_run(cluster, host):
    """Whether `perdure run` by itself runs there."""
    try:
        cluster.run_guest(host)
        return True
    except CommandFailed as refused:
        print(f"    {host.name}: {str(refused).strip().splitlines()[-1]}", flush=True)
        return False


def go_on_running(cluster, host, client):
    assert cluster.state(host) == "UNPROTECTED"
    return serves_on(client)


def long_test_power_cut_in_swap(cluster):
    """Whoever it hits, at whatever moment of a swap: one side goes on with all that the client was told, or nobody does before power is back."""
    primary, backup = cluster.a, cluster.b
    cluster.protected_guest()
    for victim in ("primary", "backup") * 3:
        with Client() as client:
            client.wait_more(SOME)
            primary.spawn("perdure swap web")
            time.sleep(random.uniform(0, 1.5))
            lost, left = (primary, backup) if victim == "primary" else (backup, primary)
            lost.power_cut()
            state = cluster.wait_state(left, "UNPROTECTED", "FENCED", "LISTENING", timeout=90)
            print(f"    {victim} lost power: {left.name} is {state}", flush=True)
            if state == "UNPROTECTED":
                client.wait_more(SOME, timeout=90)
            client.stop()
        lost.start()
        if state == "UNPROTECTED":
            cluster.assert_refused(lost)
            primary, backup = left, lost
        else:
            cluster.end_perdure(left)
            cluster.assert_refused(left)
            primary, backup = start_after_swap(cluster, lost, left, client)
        cluster.standby(backup)
        cluster.protect(primary, backup)
    cluster.end_protected_guest(primary, backup)


def start_after_swap(cluster, lost, left, client):
    """Who lost power has the newest copy, unless its record says that it never ran from it. Returns the new primary, and the other."""
    if cluster.role(lost) == "standby":
        cluster.assert_refused(lost, "standby's")
        go_on(cluster, left, client, "--force-stale")
        return left, lost
    go_on(cluster, lost, client)
    return lost, left


# Longer


def long_test_guest_starts_anew(cluster):
    """The guest reboots and panics under protection: the same disk on both sides, and A may lose power after it."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest()
    client = None
    for word in ("reboot", "panic"):
        with Client(after=client) as client:
            client.wait_more(SOME)
            client.stop()
        boots = cluster.guest_boots(a)
        tell_guest(word)
        wait_until(lambda n=boots: cluster.guest_boots(a) > n, 120, f"the guest is back after {word}")
        cluster.wait_protected(a, b)
    with Client(after=client) as client:
        client.wait_more(SOME)
        a.power_cut()
        client.wait_more(SOME, timeout=90)
        client.stop()
    cluster.end_guest(b)
    cluster.check_disks(b)


def long_test_ten_failovers_and_failbacks(cluster):
    """Over one connection: A loses power, comes back as the standby, and gets its role back; ten times in a row."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest()
    order = ["A"]
    with Client() as client:
        for _ in range(10):
            client.wait_more(SOME)
            a.power_cut()
            client.wait_more(SOME, timeout=90)
            cluster.wait_took_over(b)
            a.start()
            cluster.assert_refused(a, "older than the copy")
            cluster.standby(a)
            cluster.protect(b, a)
            client.wait_more(SOME)
            b.run("perdure swap web", timeout=90)
            cluster.wait_protected(a, b)
            order += ["B", "A"]
        client.wait_more(SOME)
        client.stop()
    cluster.end_protected_guest(a, b)
    cluster.assert_hosts_showed(*order)


if __name__ == "__main__":
    runner.main(globals(), "a database on a disk over two test hosts", DiskCluster)
