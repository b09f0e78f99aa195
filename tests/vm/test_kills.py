#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The small guests under many kills: the primary is killed, the backup takes over and is protected to a new process on the other host, again and
again. `walk` finds torn or lost pages, `irq` lost or stuck interrupts, the client of `count` lost or repeated requests. `log` has as many writable
disks as processors; there it is the primary, the backup or the link between them that dies, and every acknowledged record is on the disks of the side that
runs.

    test_kills.py [--build build] [--kills 50] [--seed N] [GUEST-CPUS...]        all of them, or those named: walk-1 walk-2 count-1 ...

Closes with "kills: N passed, N failed, N skipped"; a test is one guest with one number of processors.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from disklog import disk_options, judge, make_disk, write_pattern  # noqa: E402
from pair import Failure, Pair  # noqa: E402
from scenario import CORPUS, need_kvm  # noqa: E402

GUEST_IP = "10.98.0.10"
PATIENCE = 10  # seconds: the machine may be busy with other things


class Test:
    def __init__(self, pair, build, guest, cpus, seed):
        self.pair = pair
        self.client_program = os.path.join(build, "tests/vm/count_client")
        self.guest = guest
        self.cpus = cpus
        self.random = random.Random(seed)
        self.extra = []
        self.standby_extra = []
        if guest == "irq":
            disk = os.path.join(pair.dir, "disk.img")
            write_pattern(disk)
            self.extra = ["--disk", "id=disk0,readonly=on,path=" + disk]
            self.standby_extra = self.extra

    def guest_status(self):
        client = self.pair.client(self.client_program, "--address", GUEST_IP, "--wait-ms", 5000, "--status",
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = client.communicate(timeout=30)
        if client.returncode != 0:
            raise Failure("the guest does not answer: %s" % err.strip())
        return json.loads(out)

    def assert_sound(self, status, before):
        """No error found by the guest, and the same boot as before."""
        if status["errors"] or status["state"] != 1:
            raise Failure("the guest found an error: %s" % status)
        if before and status["boot_id"] != before["boot_id"]:
            raise Failure("the guest is not the one that ran before: %s, %s" % (before, status))

    def goes_on(self, first, second):
        """Every processor runs, and interrupts of the disk come; a lost one would stop them for ever."""
        return (all(second["heartbeat"][cpu] > first["heartbeat"][cpu] for cpu in range(self.cpus))
                and (self.guest != "irq" or second["irq0"][0] > first["irq0"][0]))

    def assert_well(self, before):
        first = self.guest_status()
        self.assert_sound(first, before)
        end = time.monotonic() + PATIENCE
        while True:
            second = self.guest_status()
            self.assert_sound(second, first)
            if self.goes_on(first, second):
                return second
            if time.monotonic() > end:
                raise Failure("the guest stands still: %s, %d s before: %s" % (second, PATIENCE, first))
            time.sleep(0.02)

    def run(self, kills):
        here, there = self.pair.a, self.pair.b
        process = here.run("builtin:" + self.guest, "ip=%s cpus=%d quiet=1 %s" % (GUEST_IP, self.cpus, CORPUS[self.guest]), self.cpus,
                           extra=self.extra)
        here.wait_state("UNPROTECTED", process=process)
        status = self.assert_well(None)
        client = self.start_client() if self.guest == "count" else None
        for kill in range(kills):
            standby = there.standby(self.standby_extra)
            here.protect(there, "--verify", 5)
            time.sleep(self.random.uniform(0.05, 0.4))
            if here.status()["last_error"]:
                raise Failure("kill %d: %s" % (kill, here.status()["last_error"]))
            process.kill()
            there.wait_state("UNPROTECTED", timeout=20, process=standby)
            status = self.assert_well(status)
            process = standby
            here, there = there, here
        if client:
            self.end_client(client)

    def start_client(self):
        return self.pair.client(self.client_program, "--address", GUEST_IP, "--seconds", 3600, stdout=subprocess.PIPE, text=True)

    def end_client(self, client):
        client.terminate()
        self.judge(json.loads(client.communicate(timeout=20)[0].strip().splitlines()[-1]))

    @staticmethod
    def judge(result):
        if not result["acknowledged"] or result["lost"] or result["duplicated"] or result["errors"] or result["reboots"]:
            raise Failure("the client: %s" % result)
        print("    %s requests acknowledged, none lost, none repeated; longest outage %.0f ms" % (result["acknowledged"], result["max_gap_ms"]))


class LogTest(Test):
    """Which side runs is what the arbiter says; the other one is ended and becomes a new standby on the disks that it had."""

    def __init__(self, pair, build, guest, cpus, seed):
        super().__init__(pair, build, guest, cpus, seed)
        self.disks = {host: [make_disk(os.path.join(host.dir, "disk%d.img" % i)) for i in range(cpus)] for host in (pair.a, pair.b)}

    def strike(self, primary, backup):
        """The primary, the backup or both links."""
        what = self.random.choice(["primary"] * 5 + ["backup"] * 3 + ["link"] * 2)
        if what == "primary":
            primary.kill()
        elif what == "backup":
            backup.kill()
        else:
            self.pair.link(False)

    def winner(self, processes):
        """The side that goes on, of those that live."""
        def running():
            return [host for host, process in processes.items() if process.alive() and host.status()["state"] == "UNPROTECTED"]

        self.pair.wait(running, 30, "a side that runs", lambda: "".join(host.name + str(host.status()) for host in processes))
        return running()[0]

    def judge_disks(self, host):
        """The guest goes on writing, so its counter is asked for first."""
        judge(self.disks[host], self.guest_status()["counter"])

    def run(self, kills):
        here, there = self.pair.a, self.pair.b
        process = here.run("builtin:log", "ip=%s cpus=%d quiet=1 %s" % (GUEST_IP, self.cpus, CORPUS["log"]), self.cpus,
                           extra=disk_options(self.disks[here]))
        here.wait_state("UNPROTECTED", process=process)
        status = self.assert_well(None)
        client = self.start_client()
        for kill in range(kills):
            standby = there.standby(disk_options(self.disks[there]))
            here.protect(there, "--verify", 5, "--timeout", "1s")
            time.sleep(self.random.uniform(0.05, 0.4))
            if here.status()["last_error"]:
                raise Failure("kill %d: %s" % (kill, here.status()["last_error"]))
            processes = {here: process, there: standby}
            self.strike(process, standby)
            host = self.winner(processes)
            other = there if host is here else here
            if processes[other].alive():
                processes[other].kill()
            processes[other].wait()
            self.pair.link(True)
            status = self.assert_well(status)
            self.judge_disks(host)
            here, there, process = host, other, processes[host]
        self.end_client(client)
        self.judge_disks(here)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    need_kvm("kills")
    build = os.path.abspath(options.build)
    names = options.names or ["%s-%d" % (guest, cpus) for guest in CORPUS for cpus in (1, 2)]
    passed = failed = 0
    for name in names:
        guest, cpus = name.split("-")
        begin = time.monotonic()
        try:
            with Pair(build) as pair:
                try:
                    (LogTest if guest == "log" else Test)(pair, build, guest, int(cpus), options.seed).run(options.kills)
                except BaseException:
                    for process in pair.processes:
                        print("    --- log of pid %d on %s:\n%s%s" % (process.pid, process.host.name, process.log()[-3000:], process.output()[-500:]))
                    raise
            passed += 1
            print("kills: %s survived %d kills (%.0f s)" % (name, options.kills, time.monotonic() - begin), flush=True)
        except Exception:  # the next guest is a test of its own
            failed += 1
            traceback.print_exc()
            print("kills: %s FAILED (seed %d)" % (name, options.seed), flush=True)
    print("kills: %d passed, %d failed, 0 skipped" % (passed, failed))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
