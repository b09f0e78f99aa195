#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that fail under a protected machine, on either side and in each phase: test_disk_errors.py [--build build] [test_NAME...]

What docs/disks.md, part 7, says of each failure: what the guest is told, whether protection goes on, what the operator reads. The system calls of
the processes fail on chosen files (failing_io.c), or a file system is really full. The guest `log` tries again until its disk works (retry=1) and answers no
request before, so an error costs its client time and nothing else."""
import errno
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from disklog import DISK_BYTES, disk_options, judge, make_disk  # noqa: E402
from scenario import CountClient, ask, assert_well, require, run_count, run_tests  # noqa: E402
from test_disks import record_of, wait_roles  # noqa: E402

PAGE = 4096
JOURNAL = ".perdure-journal"
RECORD = ".perdure.new"


class FailingHost:
    """A host whose system calls fail as it is told; processes started before do not."""

    def __init__(self, pair, host):
        self.pair, self.host = pair, host
        self.path = os.path.join(pair.dir, "rules-" + host.name)
        with open(self.path, "wb") as f:
            f.truncate(PAGE)
        preload = os.path.join(os.path.dirname(pair.program), "tests/vm/failing_io.so")
        host.extra_env = {"LD_PRELOAD": preload, "FAILING_IO": self.path, "PERDURE_DISK_ENGINE": "threads",
                          "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}

    def fail(self, call, suffix, error=errno.EIO):
        self._write(b"%s %s %d\n" % (call.encode(), suffix.encode(), error))

    def hang(self, call, suffix):
        self.fail(call, suffix, 0)

    def heal(self):
        self._write(b"")

    def _write(self, text):
        with open(self.path, "r+b") as f:
            f.write(text.ljust(PAGE, b"\0"))


class Scene:
    """The guest `log` on a with a disk, a client that is answered, a standby on b with a disk of its own; both hosts can fail."""

    def __init__(self, pair, disk_of_a=None, disk_of_b=None):
        self.pair = pair
        self.fault = {host: FailingHost(pair, host) for host in (pair.a, pair.b)}
        self.disk = {pair.a: disk_of_a or make_disk(os.path.join(pair.a.dir, "disk0.img")),
                     pair.b: disk_of_b or make_disk(os.path.join(pair.b.dir, "disk0.img"))}
        self.primary = run_count(pair.a, cmdline="retry=1", kernel="log", extra=self.options(pair.a))
        self.backup = self.standby(pair.b)
        self.client = CountClient(pair)

    def options(self, host):
        return disk_options([self.disk[host]])

    def standby(self, host):
        return host.standby(self.options(host))

    def protect(self, *options, **more):
        return self.pair.a.protect(self.pair.b, "--verify", "5", "--interval", "10ms", *options, **more)

    def counter(self):
        return ask(self.pair, "status")["counter"]

    def assert_goes_on(self):
        before = self.counter()
        self.pair.wait(lambda: self.counter() > before + 3, 10, "requests carried out")

    def guest_is_told(self, call, process, host):
        """Arms, until the guest has read of it; heals."""
        before = process.output().count("failed")
        self.fault[host].fail(call, "disk0.img")
        self.pair.wait(lambda: process.output().count("failed") > before, 20, "the guest told of a failed " + call, process.output)
        self.fault[host].heal()
        self.assert_goes_on()

    def wait_end(self, *texts):
        """Protection ends at the primary, whose guest goes on; both sides tell why."""
        status = self.pair.a.wait_state("UNPROTECTED", process=self.primary)
        for text in texts:
            require(text in status["last_error"], "not told at the primary", text, status)
        self.assert_goes_on()

    def assert_named(self, done, *texts):
        """A command that was refused."""
        require(done.returncode == 1, "not refused", done)
        for text in texts:
            require(text in done.stderr, "not named", text, done.stderr)

    def protect_and_fail_over(self):
        """All is well again: protected, and the backup takes over with everything that was acknowledged."""
        self.protect()
        time.sleep(0.3)
        status = self.pair.a.status()
        require(status["state"] == "PROTECTED" and not status["last_error"], "not protected", status)
        self.primary.kill()
        self.pair.b.wait_state("UNPROTECTED", process=self.backup)
        self.finish(self.pair.b)

    def finish(self, winner):
        assert_well(self.pair)
        self.client.finish()
        judge([self.disk[winner]], self.counter())

    def wait_standby(self):
        """It is there again, or still: for the next protection."""
        self.pair.b.wait_state("LISTENING", process=self.backup)

    def run_by_force(self, host):
        """Both are gone, and the operator takes the copy on host."""
        acknowledged = self.client.result()["acknowledged"]
        process = host.run("builtin:count", "", extra=["--force-stale", *self.options(host)])
        host.wait_state("UNPROTECTED", process=process)
        return acknowledged


# --- the primary's disk ---

def primary_fails(pair, call):
    """The guest is told, alone and protected; protection goes on, and the sides stay equal (--verify)."""
    scene = Scene(pair)
    scene.guest_is_told(call, scene.primary, pair.a)
    scene.protect()
    scene.guest_is_told(call, scene.primary, pair.a)
    time.sleep(0.3)
    status = pair.a.status()
    require(status["state"] == "PROTECTED" and not status["last_error"], "protection suffered", status)
    scene.primary.kill()
    pair.b.wait_state("UNPROTECTED", process=scene.backup)
    scene.guest_is_told(call, scene.backup, pair.b)
    scene.finish(pair.b)


def test_primary_write_fails(pair):
    primary_fails(pair, "write")


def test_primary_read_fails(pair):
    primary_fails(pair, "read")


def test_primary_flush_fails(pair):
    primary_fails(pair, "sync")


def test_primary_cannot_be_read_in_the_sync(pair):
    scene = Scene(pair)
    scene.fault[pair.a].fail("read", "disk0.img")
    scene.assert_named(scene.protect(check=False), "disk disk0", "bytes at")
    scene.fault[pair.a].heal()
    pair.a.wait_state("UNPROTECTED", process=scene.primary)
    require(record_of(scene.disk[pair.a])["role"] == "clean", "record", record_of(scene.disk[pair.a]))
    scene.assert_goes_on()
    scene.wait_standby()
    scene.protect_and_fail_over()


def test_primary_file_system_full(pair):
    """Really full: a sparse image. The guest waits until there is room, alone or protected; but protection cannot begin, for there is no room for
    the record either."""
    with SmallFileSystem(pair.a, 1) as place:
        image = os.path.join(place.path, "disk0.img")
        with open(image, "wb") as f:
            f.truncate(DISK_BYTES)
        scene = Scene(pair, disk_of_a=image)
        pair.wait(lambda: "the write failed" in scene.primary.output(), 60, "a full disk", scene.primary.output)
        scene.assert_named(scene.protect(check=False), "disk record", "No space left")
        scene.wait_standby()
        place.resize(4)
        scene.protect()
        place.resize(place.used() + 0.1)
        pair.wait(lambda: scene.primary.output().count("the write failed") > 1, 60, "a full disk again", scene.primary.output)
        status = pair.a.status()
        require(status["state"] == "PROTECTED" and not status["last_error"], "protection suffered", status)
        place.resize(32)
        scene.assert_goes_on()
        scene.primary.kill()
        pair.b.wait_state("UNPROTECTED", process=scene.backup)
        scene.finish(pair.b)


# --- the backup's ---

def backup_fails_in_the_sync(pair, call):
    scene = Scene(pair)
    scene.fault[pair.b].fail(call, "disk0.img")
    scene.assert_named(scene.protect(check=False), "disk0", "Input/output error")
    scene.fault[pair.b].heal()
    scene.wait_end("disk0")
    require("disk0" in scene.backup.log() and "Input/output error" in scene.backup.log(), "not told at the backup", scene.backup.log())
    require(record_of(scene.disk[pair.b])["role"] == "sync-target", "record", record_of(scene.disk[pair.b]))
    scene.wait_standby()
    scene.protect_and_fail_over()


def test_backup_write_fails_in_the_sync(pair):
    backup_fails_in_the_sync(pair, "write")


def test_backup_read_fails_in_the_sync(pair):
    backup_fails_in_the_sync(pair, "read")


def test_backup_flush_fails_in_the_sync(pair):
    backup_fails_in_the_sync(pair, "sync")


def backup_fails_later(pair, call, suffix):
    """Protection ends, the guest does not notice, and after the next sync all is well."""
    scene = Scene(pair)
    scene.protect()
    scene.assert_goes_on()
    scene.fault[pair.b].fail(call, suffix)
    scene.wait_end("Input/output error")
    require("Input/output error" in scene.backup.log(), "not told at the backup", scene.backup.log())
    scene.wait_standby()
    require(record_of(scene.disk[pair.b])["role"] == "standby", "a record that names no journal", record_of(scene.disk[pair.b]))
    scene.fault[pair.b].heal()
    wait_roles(pair, [scene.disk[pair.a]], "clean")
    scene.protect_and_fail_over()


def test_backup_journal_write_fails(pair):
    backup_fails_later(pair, "write", JOURNAL)


def test_backup_journal_sync_fails(pair):
    backup_fails_later(pair, "sync", JOURNAL)


def test_backup_image_write_fails(pair):
    backup_fails_later(pair, "write", "disk0.img")


def test_backup_image_flush_fails(pair):
    backup_fails_later(pair, "sync", "disk0.img")


def test_backup_cannot_put_its_epochs_in_place_at_the_takeover(pair):
    """The backup's image hangs, so that acknowledged epochs wait in memory; then the primary dies and the image fails. The backup does not run on a
    disk that lacks them: they go into the journal, and the operator's run finds them there."""
    scene = Scene(pair)
    scene.protect()
    scene.assert_goes_on()
    scene.fault[pair.b].hang("write", "disk0.img")
    scene.assert_goes_on()
    scene.primary.kill()
    scene.fault[pair.b].fail("write", "disk0.img")
    pair.b.wait_state("LISTENING", process=scene.backup)
    require("Input/output error" in pair.b.status()["last_error"], "not told", pair.b.status())
    scene.backup.kill()
    require(record_of(scene.disk[pair.b])["role"] == "standby", "record", record_of(scene.disk[pair.b]))
    refused = pair.b.perdure("run", "--name", pair.vm, "--kernel", "builtin:count", "--console", "null", *scene.options(pair.b),
                             check=False, timeout=20)
    require(refused.returncode == 1 and "--force-stale" in refused.stderr, "not refused", refused.stderr)
    scene.fault[pair.b].heal()
    judge([scene.disk[pair.b]], scene.run_by_force(pair.b))


def test_backup_file_system_full_in_the_sync(pair):
    """Really full: there is room for the journal, not for what a sparse image needs."""
    with SmallFileSystem(pair.b, 260) as place:
        image = os.path.join(place.path, "disk0.img")
        with open(image, "wb") as f:
            f.truncate(DISK_BYTES)
        scene = Scene(pair, disk_of_b=image)
        scene.assert_named(scene.protect(check=False), "disk0", "No space left")
        scene.wait_end("disk0", "No space left")
        place.resize(300)
        scene.wait_standby()
        scene.protect_and_fail_over()


# --- records, and the way back ---

def test_record_cannot_be_written(pair):
    """No protection without it, on either side; the guest goes on, and it works later."""
    scene = Scene(pair)
    for host in (pair.a, pair.b):
        scene.fault[host].fail("sync", RECORD)
        scene.assert_named(scene.protect(check=False), "disk record")
        scene.fault[host].heal()
        pair.a.wait_state("UNPROTECTED", process=scene.primary)
        scene.assert_goes_on()
        scene.wait_standby()
    scene.protect_and_fail_over()


def test_failback_fails_and_is_repeated(pair):
    scene = Scene(pair)
    scene.protect()
    scene.assert_goes_on()
    scene.primary.kill()
    pair.b.wait_state("UNPROTECTED", process=scene.backup)
    returned = scene.standby(pair.a)
    scene.fault[pair.a].fail("write", "disk0.img")
    scene.assert_named(pair.b.protect(pair.a, check=False), "disk0")
    scene.fault[pair.a].heal()
    pair.b.wait_state("UNPROTECTED", process=scene.backup)
    scene.assert_goes_on()
    require(record_of(scene.disk[pair.a])["role"] == "sync-target", "record", record_of(scene.disk[pair.a]))
    returned.kill()
    returned = scene.standby(pair.a)
    pair.b.protect(pair.a, "--verify", "5")
    pair.b.perdure("swap", pair.vm)
    pair.a.wait_state("PROTECTED", process=returned)
    scene.finish(pair.a)


class SmallFileSystem:
    """A file system of so many MiB on host."""

    def __init__(self, host, mib):
        self.path = os.path.join(host.dir, "small")
        self.mib = mib

    def __enter__(self):
        os.mkdir(self.path)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dM" % self.mib, "tmpfs", self.path], check=True)
        return self

    def resize(self, mib):
        subprocess.run(["mount", "-o", "remount,size=%dk" % (mib * 1024), self.path], check=True)

    def used(self):
        """In MiB."""
        f = os.statvfs(self.path)
        return (f.f_blocks - f.f_bfree) * f.f_frsize / (1 << 20)

    def __exit__(self, *_):
        # The processes may still hold it; they end with the pair.
        subprocess.run(["umount", "--lazy", self.path], check=True)


if __name__ == "__main__":
    run_tests("disk-errors", globals())
