#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A database on a disk over two test hosts: what it answered is on its disk, wherever and whenever it starts again.

    test_disks.py [--perdure build/perdure] [--long] [WORD...]

Redis in the guest appends to its file and flushes before it answers (appendfsync always). A client has one TCP connection, sends INCR and
never sends one again: reply i has to be i across every takeover. Where the guest loses its memory a new client goes on with the counter: all
that the first one was told is there. The hosts' disks (datadisk.py) outlive power cuts; at the end e2fsck and redis-check-aof judge them.
"""
import runner
from cluster import DiskCluster
from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import

SOME = 10  # replies that show that the service goes on
MORE_DISK = 192  # MiB that make a sync last


def go_on(cluster, host, client, more=""):
    """Boots the guest from a surviving disk; what @client was told is there, and redis goes on. Returns a client that has ended again."""
    cluster.run_guest(host, more=more)
    with Client(after=client) as after:
        after.wait_more(SOME)
        after.stop()
    return after


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


if __name__ == "__main__":
    runner.main(globals(), "a database on a disk over two test hosts", DiskCluster)
