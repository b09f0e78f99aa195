#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Redis over two test hosts: nothing that a client was told is lost, and nothing is told twice.

    test_redis.py --perdure build/perdure [--long] [WORD...]     all scenarios, or those whose name has one of the words

In every scenario a Linux guest with redis in its memory runs on host A and is protected to B, with etcd as the arbiter. A
client has one TCP connection, sends INCR and never sends one again: reply i has to be i, before, across and after what
happens. The guest also counts aloud (guestd.c), and the frames that either host emits are recorded: a moment of the guest
that was seen from both hosts is output that left without being acknowledged.
"""
import time

import runner
from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import

SOME = 30  # replies that show that the service goes on; on an idle machine a hundred come in a second


def tell_gap(client):
    print(f"    {client.replies} replies, longest gap {client.longest_gap():.1f} s", flush=True)


def test_a_power_cut(cluster):
    """A loses power; and when it is back as the standby, B does. The guest has two processors."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest(cpus=2)
    with Client() as client:
        client.wait_more(SOME)
        a.power_cut()
        client.wait_more(SOME, timeout=90)
        cluster.wait_took_over(b)
        cluster.assert_hosts_showed("A", "B")
        cluster.replace(a)
        cluster.protect(b, a)
        client.wait_more(SOME)
        b.power_cut()
        client.wait_more(SOME, timeout=90)
        tell_gap(client)
    cluster.assert_hosts_showed("A", "B", "A")


def test_a_frozen(cluster):
    """A stands still until B has taken over, and then goes on: too late, and it has to notice before it says anything."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest()
    with Client() as client:
        client.wait_more(SOME)
        a.freeze()
        client.wait_more(SOME, timeout=90)
        a.thaw()
        thawed = time.monotonic()
        client.wait_more(SOME)
        cluster.wait_state(a, "FENCED")
        fenced = time.monotonic()
        client.wait_more(SOME)
        tell_gap(client)
        time.sleep(3)
    # Frames that B had acknowledged, and that stood in A's queues when it froze, may still leave: their beacons tell.
    cluster.assert_hosts_showed("A", "B")
    late = cluster.guest_frames(a, fenced)
    assert not late, f"{len(late)} frames from a fenced host"
    print(f"    {len(cluster.guest_frames(a, thawed))} acknowledged frames left A when it went on")
    cluster.wait_state(b, "UNPROTECTED")


def test_path_cut(cluster):
    """A and B lose each other while both see the client and etcd: exactly one goes on."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest()
    with Client() as client:
        client.wait_more(SOME)
        a.partition(REPLICATION)
        client.wait_more(SOME, timeout=90)
        outcome = wait_until(lambda: cluster.settled(), 90, "one side goes on and the other has stopped")
        client.wait_more(SOME)
        spans = [span.host for span in cluster.spans()]
        assert spans == (["A"] if outcome == "A" else ["A", "B"]), (outcome, spans)
        a.heal(REPLICATION)
        client.wait_more(SOME)
        assert cluster.settled() == outcome, "the healed path changed who runs"
        winner, loser = (a, b) if outcome == "A" else (b, a)
        cluster.end_perdure(loser)
        cluster.standby(loser)
        cluster.protect(winner, loser)
        client.wait_more(SOME)
        winner.power_cut()
        client.wait_more(SOME, timeout=90)
        tell_gap(client)


def test_b_power_cut(cluster):
    """B loses power: the guest does not notice, and is protected to the new B, which is worth as much."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest()
    with Client() as client:
        client.wait_more(SOME)
        b.power_cut()
        cluster.wait_state(a, "UNPROTECTED")
        client.wait_more(SOME)
        cluster.assert_hosts_showed("A")
        cluster.replace(b)
        cluster.protect(a, b)
        client.wait_more(SOME)
        a.power_cut()
        client.wait_more(SOME, timeout=90)
        tell_gap(client)
    cluster.assert_hosts_showed("A", "B")


def restart_while_protected(cluster, word):
    """The guest starts anew (in one step on both sides) and is still protected: A may lose power after it."""
    a, b = cluster.a, cluster.b
    cluster.protected_guest()
    with Client() as client:
        client.wait_more(SOME)
        client.stop()
    boots = len({span.boot for span in cluster.spans()})
    tell_guest(word)
    wait_until(lambda: len({span.boot for span in cluster.spans()}) > boots, 120, "the guest has booted again")
    wait_until(redis_answers, 60, "redis in it answers")
    cluster.wait_protected(a, b)
    with Client() as client:
        client.wait_more(SOME)
        a.power_cut()
        client.wait_more(SOME, timeout=90)
        tell_gap(client)
    cluster.assert_hosts_showed("A", "A", "B")


def test_guest_reboot(cluster):
    """The guest reboots while it is protected."""
    restart_while_protected(cluster, "reboot")


def test_guest_panic(cluster):
    """The guest panics while it is protected; its kernel is told to reboot then."""
    restart_while_protected(cluster, "panic")


def test_guest_poweroff(cluster):
    """The guest switches itself off: both sides end, and B never "saves" a machine that was switched off."""
    run, _ = cluster.protected_guest()
    with Client() as client:
        client.wait_more(SOME)
        client.stop()
    tell_guest("poweroff")
    assert run.wait(60) == 0
    wait_until(lambda: cluster.state(cluster.b) in ("", "LISTENING"), 60, "B has seen the end")
    time.sleep(15)
    assert cluster.state(cluster.b) in ("", "LISTENING")
    assert not redis_answers()
    cluster.assert_hosts_showed("A")


def test_ten_swaps(cluster):
    """Ten planned changes of role in a row, over one connection; each leaves the guest protected to where it came from."""
    cluster.protected_guest()
    primary, backup = cluster.a, cluster.b
    order = [primary.name]
    with Client() as client:
        for _ in range(10):
            client.wait_more(SOME)
            primary.run("perdure swap web", timeout=90)
            primary, backup = backup, primary
            order.append(primary.name)
            cluster.wait_protected(primary, backup)
        client.wait_more(SOME)
        tell_gap(client)
    cluster.assert_hosts_showed(*order)


def long_test_ten_power_cuts(cluster):
    """Whoever runs the guest loses power, ten times in a row, over one connection."""
    cluster.protected_guest()
    primary, backup = cluster.a, cluster.b
    order = [primary.name]
    with Client() as client:
        for _ in range(10):
            client.wait_more(SOME)
            primary.power_cut()
            client.wait_more(SOME, timeout=90)
            cluster.wait_took_over(backup)
            primary, backup = backup, primary
            order.append(primary.name)
            cluster.replace(backup)
            cluster.protect(primary, backup)
    cluster.assert_hosts_showed(*order)


if __name__ == "__main__":
    runner.main(globals(), "redis over two test hosts")
