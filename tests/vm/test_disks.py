#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writable disks of a protected machine, one scenario a function: test_disks.py [--build build] [test_NAME...]

The guest `log` answers a request when its record is on all of its disks; tests/lib/disklog.py reads them from outside."""
import filecmp
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from disklog import DISK_BYTES, disk_options, judge, make_disk  # noqa: E402
from scenario import CountClient, ask, assert_well, require, run_count, run_tests  # noqa: E402


def make_disks(host, count, size=DISK_BYTES):
    return [make_disk(os.path.join(host.dir, "disk%d.img" % i), size) for i in range(count)]


def record_of(path):
    """The disk record beside an image, as a dictionary; empty: there is none."""
    try:
        with open(path + ".perdure", encoding="ascii") as f:
            return dict(line.rstrip("\n").partition(" ")[::2] for line in f)
    except FileNotFoundError:
        return {}


def roles(paths):
    return [record_of(path).get("role") for path in paths]


class Disks:
    """Primary with disks on a, backup with disks of its own on b, PROTECTED; the client is answered."""

    def __init__(self, pair, count=1, protect=(), cpus=1):
        self.pair = pair
        self.on = {pair.a: make_disks(pair.a, count), pair.b: make_disks(pair.b, count)}
        self.primary = run_count(pair.a, kernel="log", cpus=cpus, extra=disk_options(self.on[pair.a]))
        self.backup = pair.b.standby(disk_options(self.on[pair.b]))
        self.client = CountClient(pair)
        pair.a.protect(pair.b, "--verify", "5", *protect)

    def finish(self, winner):
        """The client is content, and so are the disks of the side that runs."""
        assert_well(self.pair)
        self.client.finish()
        counter = ask(self.pair, "status")["counter"]
        judge(self.on[winner], counter)

    def try_run(self, host, *options):
        return host.perdure("run", "--name", self.pair.vm, "--kernel", "builtin:log", "--console", "null", *options,
                            *disk_options(self.on[host]), check=False, timeout=20)


def wait_roles(pair, paths, role):
    """A backup says good-bye before it writes its records."""
    pair.wait(lambda: roles(paths) == [role] * len(paths), 10, "records that say " + role, lambda: str(roles(paths)))


def test_takeover_with_two_disks(pair):
    disks = Disks(pair, count=2)
    require(roles(disks.on[pair.a]) == ["primary"] * 2 and roles(disks.on[pair.b]) == ["standby"] * 2, "records",
            roles(disks.on[pair.a]), roles(disks.on[pair.b]))
    time.sleep(0.5)
    require(pair.a.status()["last_error"] == "", "an error", pair.a.status()["last_error"])
    disks.primary.kill()
    pair.b.wait_state("UNPROTECTED", process=disks.backup)
    disks.finish(pair.b)
    wait_roles(pair, disks.on[pair.b], "clean")


def test_failback_and_swap(pair):
    """The returned host is the standby by one command; only what differs travels, and the roles change both ways."""
    disks = Disks(pair)
    time.sleep(0.3)
    disks.primary.kill()
    pair.b.wait_state("UNPROTECTED", process=disks.backup)
    refused = disks.try_run(pair.a)
    require(refused.returncode == 1 and "--force-stale" in refused.stderr and "older" in refused.stderr, "the old primary's disk ran",
            refused.returncode, refused.stderr)
    require(roles(disks.on[pair.a]) == ["superseded"], "record", roles(disks.on[pair.a]))
    standby = pair.a.standby(disk_options(disks.on[pair.a]))
    pair.b.protect(pair.a, "--verify", "5")
    time.sleep(0.3)
    pair.b.perdure("swap", pair.vm)
    pair.a.wait_state("PROTECTED", process=standby)
    disks.finish(pair.a)
    pair.a.perdure("unprotect", pair.vm)
    wait_roles(pair, disks.on[pair.a], "clean")
    wait_roles(pair, disks.on[pair.b], "superseded")
    pair.wait(lambda: not any(name.endswith("-journal") for host in (pair.a, pair.b) for name in os.listdir(host.dir)), 10, "no journal left")


def test_backup_lost_then_unprotected(pair):
    disks = Disks(pair)
    disks.backup.kill()
    pair.a.wait_state("UNPROTECTED", process=disks.primary)
    wait_roles(pair, disks.on[pair.a], "clean")
    require(roles(disks.on[pair.b]) == ["standby"], "the lost standby's record", roles(disks.on[pair.b]))
    refused = disks.try_run(pair.b)
    require(refused.returncode == 1 and "standby's" in refused.stderr, "a lost standby's disk ran", refused.stderr)
    disks.finish(pair.a)


def test_second_run_does_not_disarm_the_first(pair):
    """A service manager that starts the machine twice: refused before anything is claimed, and the backup still takes over."""
    disks = Disks(pair)
    for options in ((), ("--force-stale",)):
        refused = disks.try_run(pair.a, *options)
        require(refused.returncode == 1 and "in use" in refused.stderr, "not refused as in use", refused.stderr)
        refused = disks.try_run(pair.b, *options)
        require(refused.returncode == 1 and "in use" in refused.stderr, "not refused as in use", refused.stderr)
    require(roles(disks.on[pair.a]) == ["primary"] and roles(disks.on[pair.b]) == ["standby"], "records", roles(disks.on[pair.a]),
            roles(disks.on[pair.b]))
    disks.primary.kill()
    pair.b.wait_state("UNPROTECTED", process=disks.backup)
    disks.finish(pair.b)


def test_journal_gone(pair):
    """A record that names a journal is not complete without it."""
    disks = Disks(pair)
    disks.backup.kill()
    disks.backup.wait()
    os.unlink(disks.on[pair.b][0] + ".perdure-journal")
    refused = disks.try_run(pair.b, "--force-stale")
    require(refused.returncode == 1 and "journal" in refused.stderr, "run without its journal", refused.stderr)
    require(roles(disks.on[pair.b]) == ["standby"], "record", roles(disks.on[pair.b]))


def test_forced_standby_is_a_whole_epoch(pair):
    """Both are gone; the standby's disk is run by force: its journal is replayed, and every record is there."""
    disks = Disks(pair, count=2, protect=("--interval", "20ms"))
    time.sleep(0.5)
    acknowledged = disks.client.result()["acknowledged"]
    disks.backup.kill()
    disks.primary.kill()
    process = pair.b.run("builtin:count", "", extra=["--force-stale", *disk_options(disks.on[pair.b])])
    pair.b.wait_state("UNPROTECTED", process=process)
    newest = judge(disks.on[pair.b], 1)
    # The last acknowledged epochs were in the backup's memory alone; what both lost at once is bounded by that.
    require(newest > acknowledged // 2, "far too few records", newest, acknowledged)


def test_killed_in_the_first_sync(pair):
    """Half a disk is no disk: nobody starts it by mistake, and the next sync mends it."""
    big = 96 << 20
    disks = [make_disk(os.path.join(host.dir, "disk0.img"), big) for host in (pair.a, pair.b)]
    primary = run_count(pair.a, extra=disk_options(disks[:1]))
    backup = pair.b.standby(disk_options(disks[1:]))
    protect = subprocess.Popen(pair.a.command(["protect", pair.vm, "--to", pair.b.address, "--psk", pair.psk]), env=pair.a.env(),
                               stderr=subprocess.DEVNULL)
    pair.wait(lambda: 0 < pair.a.status()["disks"]["sync_left"] < big * 3 // 4, 30, "a sync half done", lambda: str(pair.a.status()))
    backup.kill()
    protect.wait(30)
    pair.a.wait_state("UNPROTECTED", process=primary)
    require(record_of(disks[1])["role"] == "sync-target", "record", record_of(disks[1]))
    refused = pair.b.perdure("run", "--name", pair.vm, "--kernel", "builtin:count", "--console", "null", *disk_options(disks[1:]), check=False)
    require(refused.returncode == 1 and "half overwritten" in refused.stderr, "half a disk ran", refused.stderr)
    pair.b.standby(disk_options(disks[1:]))
    pair.a.protect(pair.b)
    pair.a.perdure("unprotect", pair.vm)
    require(filecmp.cmp(*disks, shallow=False), "the disks differ after the sync")


def test_refusals(pair):
    """Named on both sides, and the guest goes on."""
    disk = make_disks(pair.a, 1)
    run_count(pair.a, extra=disk_options(disk))
    client = CountClient(pair)
    small = make_disk(os.path.join(pair.b.dir, "small.img"), DISK_BYTES // 2)
    same = pair.b.perdure("standby", "--name", pair.vm, "--listen", pair.b.address, "--psk", pair.psk, *disk_options(disk), check=False, timeout=20)
    require(same.returncode == 1 and "in use" in same.stderr, "a standby on the primary's own image", same.stderr)
    for options, text in (([], "disk0"), (disk_options([small]), "disk0")):
        standby = pair.b.standby(options)
        refused = pair.a.protect(pair.b, check=False)
        require(refused.returncode == 1 and text in refused.stderr, "not refused by name", text, refused.stderr)
        standby.kill()
        standby.wait()
    client.finish()


def test_newest_copy_is_not_overwritten(pair):
    disks = Disks(pair)
    pair.a.perdure("unprotect", pair.vm)
    disks.client.result()
    disks.backup.kill()
    pair.a.perdure("quit", pair.vm)
    disks.primary.wait()
    refused = pair.a.perdure("standby", "--name", pair.vm, "--listen", pair.a.address, "--psk", pair.psk, *disk_options(disks.on[pair.a]),
                             check=False, timeout=20)
    require(refused.returncode == 1 and "newest copy" in refused.stderr, "the newest copy was offered", refused.stderr)


def test_full_disk_at_the_standby(pair):
    """No room for the journal: both sides say so, and the guest goes on unprotected."""
    disks = [make_disks(pair.a, 1), None]
    place = os.path.join(pair.b.dir, "small")
    os.mkdir(place)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d" % (2 * DISK_BYTES), "tmpfs", place], check=True)
    try:
        disks[1] = [make_disk(os.path.join(place, "disk0.img"))]
        primary = run_count(pair.a, kernel="log", extra=disk_options(disks[0]))
        backup = pair.b.standby(disk_options(disks[1]))
        client = CountClient(pair)
        refused = pair.a.protect(pair.b, check=False)
        require(refused.returncode == 1 and "No space left" in refused.stderr, "not named at the primary", refused.stderr)
        require("No space left" in backup.log(), "not named at the standby", backup.log())
        pair.a.wait_state("UNPROTECTED", process=primary)
        client.finish()
        backup.kill()
        backup.wait()
    finally:
        subprocess.run(["umount", place], check=True)


if __name__ == "__main__":
    run_tests("disks", globals())
