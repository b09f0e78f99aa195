#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What Linux does with its disk, its power button and its RAM, alone and under protection.

    test_devices.py [--perdure build/perdure] [--long] [WORD...]
"""
import hashlib
import os
import tempfile

import runner
from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import

DISK, DISK_SIZE = "/run/disk", 4 << 20
READ_DISK = "echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/vda"
SOME = 3  # readings of the whole disk
VERIFIED = 20
CYCLES = 50

# Writes fresh bytes to the next 256 KiB of the disk, in a circle, and counts; what it reads back is the same, or it says so.
WRITE_ON = """n=0; while n=$((n+1)); at=$((n%16*4)); do
 dd if=/dev/urandom of=/tmp/w bs=64k count=4; dd if=/tmp/w of=/dev/vda bs=64k seek=$at conv=fsync,notrunc; echo 3 >/proc/sys/vm/drop_caches;
 dd if=/dev/vda bs=64k skip=$at count=4 | cmp - /tmp/w >&2 && echo $n || echo differs; done 2>/dev/null""".replace("\n", "")


def make_disk(*hosts):
    """The same random bytes on each host. Returns what sha256sum says of them."""
    content = os.urandom(DISK_SIZE)
    with tempfile.NamedTemporaryFile() as f:
        f.write(content)
        f.flush()
        for host in hosts:
            host.push(f.name, DISK)
    return f"{hashlib.sha256(content).hexdigest()}  -"


def test_read_only_disk(cluster):
    """Read over and over while the host under the guest goes: every reading is what is there."""
    digest = make_disk(cluster.a, cluster.b)
    cluster.protected_guest(devices=f"--disk path={DISK},id=disk0,readonly=on")
    assert ask_guest("cat /sys/block/vda/ro") == "1"
    with GuestShell(f"while {READ_DISK}; do :; done") as shell:
        assert [shell.next_line() for _ in range(SOME)] == [digest] * SOME
        cluster.a.power_cut()
        assert [shell.next_line() for _ in range(3 * SOME)] == [digest] * 3 * SOME
    cluster.wait_took_over(cluster.b)
    cluster.assert_hosts_showed("A", "B")


def test_writable_disk(cluster):
    """What the guest wrote and flushed before it switched itself off is in the file."""
    before = make_disk(cluster.a)
    job = cluster.run_guest(cluster.a, more=f"--disk path={DISK},id=disk0")
    written = ask_guest(f"dd if=/dev/urandom of=/dev/vda bs=64k count=40 seek=8 conv=fsync 2>/dev/null && {{ {READ_DISK}; }}")
    assert len(written) == len(before) and written != before
    tell_guest("poweroff")
    assert job.wait(30) == 0
    assert cluster.a.run(f"sha256sum <{DISK}").out.strip() == written


def test_power_button(cluster):
    """Linux hears the button and ends in order, and the backup ends with it: nobody "saves" this guest."""
    run, _ = cluster.protected_guest()
    cluster.a.run("perdure powerdown web")
    assert run.wait(90) == 0
    cluster.a.run("grep -q 'GUEST-SHUTDOWN redis has ended' /run/guest.log")
    wait_until(lambda: cluster.state(cluster.b) in ("", "LISTENING"), 60, "B has seen the end")
    cluster.assert_hosts_showed("A")


def test_verified_memory(cluster):
    """After every checkpoint B's RAM is compared with A's, under load, and B takes over after that as ever."""
    cluster.protected_guest(protect="--verify 1")
    with Client() as client:
        wait_until(lambda: cluster.status(cluster.a)["checkpoint"]["verified"] >= VERIFIED, 90, "epochs are verified")
        client.wait_more(1)
        cluster.wait_protected(cluster.a, cluster.b)
        cluster.a.power_cut()
        client.wait_more(1, timeout=90)
    cluster.assert_hosts_showed("A", "B")


def assert_random_and_ports():
    """Linux takes its entropy from the host, sees its console and its channel by name, and is not held up by one that nobody listens to."""
    assert ask_guest("cat /sys/class/misc/hw_random/rng_current") == "virtio_rng.0"
    assert ask_guest("dd if=/dev/hwrng bs=100 count=50 iflag=fullblock 2>/dev/null | wc -c") == "5000"
    assert ask_guest("cat /sys/class/virtio-ports/*/name") == "org.perdure.test"
    assert ask_guest("dd if=/dev/zero bs=1000 count=500 2>/dev/null >/dev/hvc0 && echo written") == "written"


def test_random_and_ports(cluster):
    """virtio-rng and virtio-console as Linux's own drivers use them, before and after a takeover."""
    devices = "--channel id=agent,name=org.perdure.test,unix=/run/agent --channel id=hvc,console=on,unix=/run/hvc"
    cluster.run_guest(cluster.a, more=devices)
    assert_random_and_ports()
    cluster.standby(cluster.b, devices)
    cluster.protect(cluster.a, cluster.b)
    assert_random_and_ports()
    cluster.a.power_cut()
    cluster.wait_took_over(cluster.b)
    assert_random_and_ports()
    cluster.assert_hosts_showed("A", "B")


def long_test_save_and_restore_under_io(cluster):
    """Its state is saved and restored again and again while it writes to its disk: nothing is lost, and nothing stands still."""
    make_disk(cluster.a)
    disk = f"--disk path={DISK},id=disk0"
    job = cluster.run_guest(cluster.a, cpus=2, more=f"{disk} --save-on-exit /run/state")
    with GuestShell(WRITE_ON) as shell:
        numbers = iter(range(1, 1 << 30))
        for _ in range(CYCLES):
            for _ in range(SOME):
                assert shell.next_line() == str(next(numbers))
            cluster.a.run("perdure quit web")
            assert job.wait(60) == 0
            job = cluster.restore_guest(cluster.a, "/run/state", f"{disk} --save-on-exit /run/state")
            cluster.wait_state(cluster.a, "UNPROTECTED")
        assert shell.next_line() == str(next(numbers))


if __name__ == "__main__":
    runner.main(globals(), "Linux's disk, power button and memory")
