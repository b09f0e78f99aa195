#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A database on a disk moves between two test hosts: the client notices nothing, and its disk comes along.

    test_migrate.py [--perdure build/perdure] [--long] [WORD...]

As in test_disks.py redis in the guest appends to its file and flushes before it answers. A client has one TCP connection with many requests on
their way (as redis-benchmark has), never sends one again, and wants the i-th reply to be i. The guest also counts aloud, and what either host emits is
recorded: it never runs on both. In the end e2fsck and redis-check-aof judge the disk, and redis starts from it once more.
"""
import runner
from cluster import ARBITER, PORT, TIMEOUT, DiskCluster
from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import

SOME = 50  # replies that show that the service goes on
DEPTH = 16  # requests on their way
MOVE_TIMEOUT = 180
PRECOPY = "--downtime 500ms"  # an emulated host takes its time, also for the switch
POSTCOPY = "--postcopy --downtime 1ms"


class MigrationCluster(DiskCluster):
    """A guest that moves from host to host."""

    def migrate(self, host, peer, how):
        """Returns what the command says."""
        return host.run(f"perdure migrate web --to tcp:{peer.replication_address}:{PORT} --arbiter {ARBITER} --timeout {TIMEOUT} {how} "
                        f"{self.security}", timeout=MOVE_TIMEOUT).out.strip()

    def move(self, source, host, peer, how):
        """From @host, where the job @source runs it, to @peer. Returns the job that runs it now."""
        destination = self.standby(peer)
        print(f"    {host.name} to {peer.name}: {self.migrate(host, peer, how)}", flush=True)
        assert source.wait(60) == 0, f"the source ended with {source.code}"
        fetched = host.run("grep -q 'fetches the rest' /run/perdure-*.log", check=False).code == 0
        assert fetched == (how == POSTCOPY), "fetched" if fetched else "not fetched"
        assert host.run("pidof perdure", check=False).code == 1, "something runs on at the source"
        assert destination.running and self.state(peer) == "UNPROTECTED", self.status(peer)
        roles = {h.name: self.role(h) for h in (host, peer)}
        assert roles == {host.name: "superseded", peer.name: "clean"}, roles
        self.assert_refused(host, "older than the copy")
        return destination


def move_to_and_fro(cluster, moves, how=PRECOPY):
    """Over one connection; then the guest is switched off, and what its disk holds is all that the client was told."""
    here, there = cluster.a, cluster.b
    job, order = cluster.run_guest(here), [here.name]
    with Client(depth=DEPTH) as client:
        client.wait_more(SOME)
        for _ in range(moves):
            job = cluster.move(job, here, there, how)
            here, there = there, here
            order.append(here.name)
            client.wait_more(SOME)
        print(f"    {client.replies} replies, longest gap {client.longest_gap():.1f} s", flush=True)
        client.stop()
    cluster.assert_hosts_showed(*order)
    cluster.end_guest(here)
    start_from_disk(cluster, here, client)
    cluster.check_disks(here)


def start_from_disk(cluster, host, client):
    """Once more, by itself."""
    cluster.run_guest(host)
    with Client(after=client) as after:
        after.wait_more(SOME)
        after.stop()
    cluster.end_guest(host)


def test_there_and_back(cluster):
    """A guest under load moves to B, and back to A, where its standby found the copy that it had left."""
    move_to_and_fro(cluster, 2)


def long_test_by_postcopy(cluster):
    """The guest runs there, under load, while part of its memory is still to come; and so it comes back."""
    move_to_and_fro(cluster, 2, POSTCOPY)


def long_test_ten_moves(cluster):
    """The same, ten times back and forth: twenty moves."""
    move_to_and_fro(cluster, 20)


if __name__ == "__main__":
    runner.main(globals(), "a database on a disk moves between two test hosts", MigrationCluster)
