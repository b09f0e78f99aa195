#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration with disks whose image both hosts see (shared=on), one scenario a function: test_shared_disks.py [--build build] [test_NAME...]

The two hosts are namespaces of one machine, so they see one file system and each other's locks. After every step it is tried what somebody else would:
a second `run` of the image is refused as long as the guest runs anywhere, and possible when it has ended.
"""
import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from disklog import disk_options, judge, make_disk  # noqa: E402
from scenario import CountClient, ask, assert_well, require, run_count, run_tests  # noqa: E402
from test_disk_errors import FailingHost  # noqa: E402
from test_disks import record_of  # noqa: E402
from test_migrate import await_moved, goes_on_here, limit, migrate, settled  # noqa: E402
from test_postcopy import AT_ONCE, query  # noqa: E402

IN_USE = "is in use by another machine or program"


def shared_options(*paths):
    return [option + ",shared=on" if option.startswith("path=") else option for option in disk_options(paths)]


def try_run(host, image, *options):
    return host.perdure("run", "--name", "other", "--kernel", "builtin:log", "--console", "null", "--disk", "id=disk0,path=" + image, *options, check=False)


def assert_taken(pair, *images):
    """By the guest: nobody else gets it on either host, to write or to read."""
    for image in images:
        for host in pair.a, pair.b:
            done = try_run(host, image)
            require(done.returncode == 1 and IN_USE in done.stderr, "a second machine got the image", host.name, done)
        done = try_run(pair.a, image + ",readonly=on")
        require(done.returncode == 1 and "being written" in done.stderr, "a reader got the image", done)


def assert_free(host, image):
    """Its guest has ended: another machine may have it."""
    process = host.start("run", "--name", "other", "--kernel", "builtin:log", "--disk", "id=disk0,path=%s,shared=on" % image)
    host.wait_state("UNPROTECTED", process=process, name="other")
    process.kill()


class Shared:
    """The guest `log` on a with a shared disk, and a client that is answered."""

    def __init__(self, pair, cmdline="", cpus=1, memory="64M", copied=0, disks=1):
        self.pair = pair
        self.images = [make_disk(os.path.join(pair.dir, "shared%d.img" % i)) for i in range(disks)]
        self.copies = {host: [make_disk(os.path.join(host.dir, "copied%d.img" % i)) for i in range(copied)] for host in (pair.a, pair.b)}
        self.source = run_count(pair.a, cmdline, cpus, memory, self.options(pair.a), "log")
        self.before = assert_well(pair)
        self.client = CountClient(pair)

    def options(self, host):
        copied = [option.replace("id=disk", "id=copied") for option in disk_options(self.copies[host])]
        return shared_options(*self.images) + copied

    def standby(self, host=None):
        host = host or self.pair.b
        return host.standby(self.options(host))

    def judge(self, host):
        judge(self.images + self.copies[host], ask(self.pair, "status")["counter"])

    def goes_on_here(self):
        """After a migration that did not happen."""
        goes_on_here(self.pair, self.before)
        assert_taken(self.pair, *self.images)

    def finish(self, host, process):
        """The guest is well on host, and was from the beginning. Then it ends."""
        assert_well(self.pair, self.before)
        assert_taken(self.pair, *self.images)
        self.client.finish()
        counter = ask(self.pair, "status")["counter"]
        host.perdure("quit", self.pair.vm)
        require(process.wait() == 0, "the end", process.log())
        judge(self.images + self.copies[host], counter)
        for image in self.images:
            require(not record_of(image), "a record of copies beside a shared disk", record_of(image))
            assert_free(self.pair.a, image)

    def move(self, standby, *options):
        """From a to b, to its end."""
        migrate(self.pair.a, self.pair.b, *options)
        await_moved(self.pair.b, self.source, standby)
        self.finish(self.pair.b, standby)


class Gate:
    """An arbiter (command:PATH) whose answer to the destination waits until the test says what it is."""

    def __init__(self, pair, grant_first=False):
        """grant_first: the claim counts before its answer is given."""
        self.pair = pair
        self.dir = os.path.join(pair.dir, "gate")
        os.mkdir(self.dir)
        self.program = os.path.join(self.dir, "arbiter")
        with open(self.program, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\ncd %s\nif [ $PERDURE_SIDE = primary ]; then test ! -e silent || exit 2; test ! -e granted; exit; fi\n%stouch asked\n"
                    "while [ ! -e answer ]; do sleep 0.05; done\nexit $(cat answer)\n" % (self.dir, "touch granted\n" if grant_first else ""))
        os.chmod(self.program, 0o755)

    def options(self):
        return "--arbiter", "command:" + self.program

    def await_claim(self):
        """The destination has its disks, and has not run yet."""
        self.pair.wait(lambda: os.path.exists(os.path.join(self.dir, "asked")), 20, "the destination's claim")

    def be_silent(self):
        """To the source."""
        with open(os.path.join(self.dir, "silent"), "w", encoding="ascii"):
            pass

    def answer(self, status):
        path = os.path.join(self.dir, "answer")
        with open(path + ".new", "w", encoding="ascii") as f:
            f.write(str(status))
        os.rename(path + ".new", path)


def lock_byte(image, number):
    """A lock in the manner of image_lock.h, by somebody who does not look for others. The file."""
    f = open(image, "r+b")
    fcntl.fcntl(f, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, number, 1, 0))
    return f


# --- it moves ---

def there_and_back(pair, cpus, moves=4, options=(), rate=None, **more):
    shared = Shared(pair, cpus=cpus, **more)
    here, there, process = pair.a, pair.b, shared.source
    for _ in range(moves):
        destination = shared.standby(there)
        assert_taken(pair, *shared.images)
        if rate:
            limit(here, rate)
        migrate(here, there, *options)
        await_moved(there, process, destination)
        if rate:
            limit(here, None)
        assert_well(pair, shared.before)
        assert_taken(pair, *shared.images)
        here, there, process = there, here, destination
    shared.finish(here, process)


def test_there_and_back(pair):
    there_and_back(pair, 1)


def test_there_and_back_2(pair):
    """Two processors, and two disks."""
    there_and_back(pair, 2, disks=2)


def test_with_a_copied_disk(pair):
    there_and_back(pair, 1, copied=1)


def test_postcopy(pair):
    there_and_back(pair, 1, 2, AT_ONCE, "80mbit")


def test_postcopy_2(pair):
    there_and_back(pair, 2, 2, AT_ONCE, "80mbit", copied=1)


def test_stopped(pair):
    """A guest that stands still has its disk all the same."""
    shared = Shared(pair)
    destination = shared.standby()
    pair.a.perdure("stop", pair.vm)
    migrate(pair.a, pair.b)
    await_moved(pair.b, shared.source, destination)
    require(pair.b.status()["run_state"] == "paused", "it is not paused there", pair.b.status())
    assert_taken(pair, *shared.images)
    pair.b.perdure("resume", pair.vm)
    shared.finish(pair.b, destination)


def is_hanging(pair):
    """The client sends all the time, and nothing is carried out."""
    before = ask(pair, "status", check=False)
    time.sleep(0.3)
    return not before or ask(pair, "status")["counter"] == before["counter"]


def test_in_flight(pair):
    """What the source is still writing is over before the destination may begin: a late write would land on a newer one."""
    fault = FailingHost(pair, pair.a)
    shared = Shared(pair)
    pair.a.extra_env = {}
    destination = shared.standby()
    fault.hang("write", "shared0.img")
    pair.wait(lambda: is_hanging(pair), 10, "a request that hangs")
    migrate(pair.a, pair.b, "--no-wait")
    pair.wait(lambda: pair.b.status()["state"] == "MIGRATING", 10, "a migration under way")
    time.sleep(2)
    require(pair.a.status()["state"] == "MIGRATING" and pair.b.status()["state"] == "MIGRATING", "it did not wait", pair.a.status(), pair.b.status())
    assert_taken(pair, *shared.images)
    fault.heal()
    await_moved(pair.b, shared.source, destination)
    shared.finish(pair.b, destination)


def test_saved_and_restored(pair):
    """On the way through a file a disk is nobody's; then it is the restored guest's."""
    state = os.path.join(pair.dir, "state")
    image = make_disk(os.path.join(pair.dir, "shared0.img"))
    source = run_count(pair.a, extra=shared_options(image) + ["--save-on-exit", state], kernel="log")
    before = assert_well(pair)
    source.popen.terminate()
    require(source.wait(30) == 0, "exit", source.popen.returncode, source.log())
    again = pair.a.start("run", "--name", pair.vm, "--restore", state, "--net", "id=net0,tap=tap0", *shared_options(image))
    pair.a.wait_state("UNPROTECTED", process=again)
    assert_well(pair, before)
    assert_taken(pair, image)


# --- it does not, and goes on here ---

def cannot_lock(pair, *options, **more):
    """Somebody came in between at the destination, against the rules. It says so, and the guest has its disk here."""
    shared = Shared(pair, **more)
    destination = shared.standby()
    rude = lock_byte(shared.images[-1], 201)
    done = migrate(pair.a, pair.b, *options, check=False)
    require(done.returncode == 1 and "disk%d" % (len(shared.images) - 1) in done.stderr and IN_USE in done.stderr, "the error", done.stderr)
    shared.goes_on_here()
    rude.close()
    pair.b.wait_state("LISTENING", process=destination)
    shared.move(destination, *options)


def test_cannot_lock(pair):
    cannot_lock(pair, copied=1)


def test_cannot_lock_in_postcopy(pair):
    cannot_lock(pair, *AT_ONCE)


def test_one_of_two_cannot_be_locked(pair):
    cannot_lock(pair, disks=2)


def test_cannot_be_flushed(pair):
    """The kernel tells once that it could not write. We have heard it, so the guest is told again."""
    fault = FailingHost(pair, pair.a)
    shared = Shared(pair, "retry=1")
    pair.a.extra_env = {}
    destination = shared.standby()
    shared.client.popen.terminate()  # nothing of the guest's own is flushed meanwhile
    shared.client.popen.wait()
    fault.fail("sync", "shared0.img")
    done = migrate(pair.a, pair.b, check=False)
    fault.heal()
    require(done.returncode == 1 and "disk0" in done.stderr and "Input/output error" in done.stderr, "the error", done.stderr)
    shared.goes_on_here()
    require("failed" not in shared.source.output(), "the guest was told too early", shared.source.output())
    shared.client = CountClient(pair)
    pair.wait(lambda: "the flush failed" in shared.source.output(), 10, "the guest told of it", shared.source.output)
    pair.b.wait_state("LISTENING", process=destination)
    shared.move(destination)


def under_way(pair, *options, **more):
    """A migration in its first pass, which takes long. The shared disks, the destination."""
    shared = Shared(pair, **more)
    destination = shared.standby()
    migrate(pair.a, pair.b, "--no-wait", "--compress", "off", "--max-bandwidth", "64K", *options)
    pair.wait(lambda: query(pair.a)["ram"]["transferred"] > 64 << 10, 20, "memory on its way")
    require(pair.a.status()["state"] == "MIGRATING", "it is over already", pair.a.status())
    return shared, destination


def moves_now(shared, destination):
    shared.pair.b.wait_state("LISTENING", process=destination)
    shared.move(destination)


def test_cancel(pair):
    shared, destination = under_way(pair)
    pair.a.perdure("migrate-cancel", pair.vm)
    shared.goes_on_here()
    moves_now(shared, destination)


def test_destination_dies_in_the_passes(pair):
    shared, destination = under_way(pair)
    destination.kill()
    shared.goes_on_here()
    moves_now(shared, shared.standby())


def test_destination_freezes_in_the_passes(pair):
    shared, destination = under_way(pair)
    destination.freeze()
    shared.goes_on_here()
    destination.thaw()
    moves_now(shared, destination)


def test_destination_dies_with_the_disk(pair):
    """It has the lock, and the arbiter has not answered: the lock goes with it, and the guest goes on here."""
    shared, gate = Shared(pair), Gate(pair)
    destination = shared.standby()
    migrate(pair.a, pair.b, "--no-wait", *gate.options())
    gate.await_claim()
    assert_taken(pair, *shared.images)
    destination.kill()
    shared.goes_on_here()
    gate.answer(1)
    shared.move(shared.standby())


def test_destination_dies_with_the_guest(pair):
    """The arbiter gave it the guest, which is lost with it like that of any host that dies. Its disk is whole, and nobody's."""
    shared, gate = Shared(pair), Gate(pair, grant_first=True)
    destination = shared.standby()
    migrate(pair.a, pair.b, "--no-wait", *gate.options())
    gate.await_claim()
    destination.kill()
    pair.a.wait_state("FENCED", process=shared.source)
    gate.answer(0)
    require(not ask(pair, "status", wait_ms=300, check=False), "the guest runs here all the same")
    judge(shared.images, shared.client.result()["acknowledged"])
    assert_free(pair.b, shared.images[0])


def test_arbiter_denies(pair):
    """The destination had the disk already; it is back before the source hears of it."""
    shared, gate = Shared(pair), Gate(pair)
    destination = shared.standby()
    migrate(pair.a, pair.b, "--no-wait", *gate.options())
    gate.await_claim()
    gate.answer(1)
    shared.goes_on_here()
    require("denied" in pair.a.status()["last_error"], "the error", pair.a.status()["last_error"])
    pair.b.wait_state("LISTENING", process=destination)
    shared.move(destination)


def test_path_cut_at_the_switch(pair):
    """The source is granted the guest while the destination still has the disk: until that is over it runs nowhere."""
    shared, gate = Shared(pair), Gate(pair)
    destination = shared.standby()
    migrate(pair.a, pair.b, "--no-wait", "--timeout", "1s", *gate.options())
    gate.await_claim()
    pair.link(False)
    pair.wait(lambda: "stands still until it has its disks again" in shared.source.log(), 20, "the guest that waits", shared.source.log)
    require(not ask(pair, "status", wait_ms=300, check=False), "two have the disk")
    assert_taken(pair, *shared.images)
    gate.answer(1)
    shared.goes_on_here()
    pair.link(True)
    pair.b.wait_state("LISTENING", process=destination)
    shared.move(destination)


def test_a_person_is_wrong(pair):
    """It runs there, whatever is said here: the disk knows."""
    shared, gate = Shared(pair), Gate(pair)
    destination = shared.standby()
    gate.be_silent()
    migrate(pair.a, pair.b, "--no-wait", "--timeout", "1s", *gate.options())
    gate.await_claim()
    pair.link(False)
    pair.a.wait_state("ASKING", process=shared.source)
    gate.answer(0)
    pair.b.wait_state("UNPROTECTED", process=destination)
    with subprocess.Popen(pair.a.command(["migrate-cancel", pair.vm, "--force"]), env=pair.a.env(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
        pair.wait(lambda: "stands still until it has its disks again" in shared.source.log(), 20, "the guest that waits", shared.source.log)
        assert_well(pair, shared.before)
        shared.source.popen.terminate()
        require(shared.source.wait(30) == 0, "the end", shared.source.log())
        command.wait()
    shared.finish(pair.b, destination)


def test_told_to_end_while_it_waits(pair):
    """A process that ends does not let its guest run for a last moment without its disk."""
    shared, gate = Shared(pair), Gate(pair)
    destination = shared.standby()
    migrate(pair.a, pair.b, "--no-wait", "--timeout", "1s", *gate.options())
    gate.await_claim()
    pair.link(False)
    pair.wait(lambda: "stands still until it has its disks again" in shared.source.log(), 20, "the guest that waits", shared.source.log)
    counter = shared.client.result()["acknowledged"]
    shared.source.popen.terminate()
    require(shared.source.wait(30) == 0, "the end", shared.source.log())
    gate.answer(1)
    pair.b.wait_state("LISTENING", process=destination)
    judge(shared.images, counter)
    assert_free(pair.a, shared.images[0])


# --- the source dies ---

def test_source_dies_in_the_passes(pair):
    """The guest with it; its disk is nobody's."""
    shared, destination = under_way(pair)
    shared.source.kill()
    pair.b.wait_state("LISTENING", process=destination)
    judge(shared.images, shared.client.result()["acknowledged"])
    assert_free(pair.b, shared.images[0])


def test_source_dies_at_the_switch(pair):
    """The guest is the destination's then, with its disk."""
    shared, gate = Shared(pair), Gate(pair)
    destination = shared.standby()
    migrate(pair.a, pair.b, "--no-wait", *gate.options())
    gate.await_claim()
    shared.source.kill()
    assert_taken(pair, *shared.images)
    gate.answer(0)
    pair.b.wait_state("UNPROTECTED", process=destination)
    shared.finish(pair.b, destination)


def test_killed_at_any_moment(pair):
    """Whichever side dies: the guest is where its disk is, or nowhere, and then anybody may have it."""
    numbers = random.Random(int(os.environ.get("SEED", "1")))
    image = make_disk(os.path.join(pair.dir, "shared0.img"))
    options = shared_options(image)
    here, there, source = pair.a, pair.b, run_count(pair.a, extra=options, kernel="log")
    for i in range(10):
        before = assert_well(pair)
        destination = there.standby(options)
        migrate(here, there, "--no-wait", "--arbiter", "file:" + pair.arbiter)
        time.sleep(numbers.uniform(0, 0.12))
        victim, left, at = (source, destination, there) if i % 2 else (destination, source, here)
        victim.kill()
        state = settled(pair, at, left)
        if state == "UNPROTECTED":
            assert_well(pair, before)
            assert_taken(pair, image)
            here, there = (at, there if at is here else here)
        else:
            require(state == "LISTENING" if left is destination else state in ("ended", "FENCED"), "the side that is left", state)
            assert_free(here, image)
            left.kill()
            left = run_count(here, extra=options, kernel="log")
        source = left


# --- refusals ---

def refused(pair, standby, text):
    """Before anything moves, in one clear line, and the guest is well. The standby is waited for, and ended."""
    before = assert_well(pair)
    process = pair.b.standby(standby)
    done = migrate(pair.a, pair.b, check=False)
    require(done.returncode == 1 and text in done.stderr and "disk0" in done.stderr, "the error", done.stderr)
    require("-> MIGRATING" not in pair.a.perdure("status", pair.vm, "--json"), "it began")
    process.kill()
    assert_well(pair, before)


def test_both_must_say_so(pair):
    image = make_disk(os.path.join(pair.dir, "shared0.img"))
    copy = shutil.copy(image, os.path.join(pair.b.dir, "copy.img"))
    small = make_disk(os.path.join(pair.dir, "small.img"), 4 << 20)
    run_count(pair.a, extra=shared_options(image), kernel="log")
    refused(pair, disk_options([copy]), "the machine's image is shared (shared=on)")
    refused(pair, shared_options(copy), "nobody writes to")
    refused(pair, shared_options(small), "4194304 bytes")
    assert_taken(pair, image)


def test_a_copied_one_is_not_shared(pair):
    image = make_disk(os.path.join(pair.a.dir, "disk0.img"))
    run_count(pair.a, extra=disk_options([image]), kernel="log")
    refused(pair, shared_options(image), "the machine's image is not shared")
    assert_taken(pair, image)


def test_the_copy_that_was_left_is_not_shared(pair):
    """What its record calls old is not what a guest runs on."""
    disks = {host: make_disk(os.path.join(host.dir, "disk0.img")) for host in (pair.a, pair.b)}
    source = run_count(pair.a, extra=disk_options([disks[pair.a]]), kernel="log")
    destination = pair.b.standby(disk_options([disks[pair.b]]))
    migrate(pair.a, pair.b)
    await_moved(pair.b, source, destination)
    standby = ["standby", "--name", pair.vm, "--listen", pair.a.address, "--insecure", *shared_options(disks[pair.a])]
    done = pair.a.perdure(*standby, check=False)
    require(done.returncode == 1 and "superseded" in done.stderr, "the standby began", done)
    pair.a.standby(["--force-stale", *shared_options(disks[pair.a])])


def test_not_protected(pair):
    """A failover goes on from an epoch, and the disk would be further."""
    shared = Shared(pair)
    shared.standby()
    for options in (), ("--check",):
        done = pair.a.protect(pair.b, *options, check=False)
        require(done.returncode == 1 and "disk0 is shared (shared=on)" in done.stderr and len(done.stderr.strip().splitlines()) == 1, "the error", done.stderr)
    require(pair.a.status()["state"] == "UNPROTECTED", "the state", pair.a.status())
    assert_well(pair, shared.before)


if __name__ == "__main__":
    run_tests("shared-disks", globals())
