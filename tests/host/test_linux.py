#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux under perdure on one test host, without protection: it boots, ends as it should, and survives a state file.

    test_linux.py [--perdure build/perdure] [WORD...]
"""
import runner
from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import

MANY = 2000


def boots_with(cluster, cpus):
    cluster.run_guest(cluster.a, cpus)
    assert cluster.state(cluster.a) == "UNPROTECTED"
    with Client() as client:
        client.wait_more(MANY)


def test_boot_one_cpu(cluster):
    """One vCPU; redis serves."""
    boots_with(cluster, 1)


def test_boot_two_cpus(cluster):
    """Two vCPUs, both of which Linux has found."""
    boots_with(cluster, 2)
    cluster.a.run("grep -q 'GUEST-READY.*2 cpus' /run/guest.log")


def test_guest_ends(cluster):
    """Reboot and panic start it anew in the same process, power-off ends the process with 0."""
    job = cluster.run_guest(cluster.a)
    for boots, word in ((2, "reboot"), (3, "panic")):
        tell_guest(word)
        wait_until(lambda n=boots: cluster.guest_boots(cluster.a) == n, 90, f"the guest is back after {word}")
        assert redis_answers() and job.running
    tell_guest("poweroff")
    assert job.wait(30) == 0, job.code


def test_stop_and_resume(cluster):
    """A stopped guest says nothing; a resumed one goes on where it was."""
    cluster.run_guest(cluster.a)
    with Client() as client:
        client.wait_more(100)
        cluster.a.run("perdure stop web")
        count = client.replies
        stopped = cluster.a.run("sleep 2; perdure status web --json").out
        assert client.replies <= count + 8, "replies on their way, and no more"
        cluster.a.run("perdure resume web")
        client.wait_more(100)
        assert client.longest_gap() > 1.5, stopped


def test_save_and_restore(cluster):
    """`quit` writes the state, another process goes on from it: the same connection counts on."""
    job = cluster.run_guest(cluster.a, more="--save-on-exit /run/state")
    with Client() as client:
        client.wait_more(100)
        cluster.a.run("perdure quit web")
        assert job.wait(60) == 0, cluster.a.run("cat /run/perdure-run.log").out
        job = cluster.restore_guest(cluster.a, "/run/state")
        client.wait_more(MANY, timeout=90)
        assert job.running


if __name__ == "__main__":
    runner.main(globals(), "Linux under perdure on a test host")
