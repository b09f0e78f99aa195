#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a live migration costs: how long the guest stands still by its own clock, how long all of it takes, how many bytes travel; beside QEMU.

    bench/migrate.py [--build build] [--quick] [--rounds N]

Source and destination are two processes on this machine, in two network namespaces with a link (TCP; no TLS on either side). The guest `dirty` has filled its memory, and
then writes so many pages a second; it notes the gaps in its own clock, the longest of which is the downtime. Under Debian's QEMU the same guest is a -bios image; its
migration is run as it comes (downtime-limit 300 ms), and tuned (20 and 5 ms, without its bandwidth limit), on one channel and on four. Monitors take turns. The destination
gets memory that was in use a moment before: a virtual machine pays several times more for memory that its own host has to find first. Steal time is recorded; a measurement with much of it is repeated.
A migration that does not end in half a minute (QEMU's own limit on the bandwidth, and a guest that writes faster) is called that, and measured no more. Closes with one line for scripts: medians of 1 GiB and 10,000 pages a second.
"""
import argparse
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "lib"))
from pair import GUEST_IP, GUEST_MAC, Pair  # noqa: E402
from scenario import Qmp  # noqa: E402

STEAL_MAX = 10  # ticks in a measurement
TRIES = 3
FIRST_PAGE = 4096  # the guest's window begins at 16 MiB
PORT = 7701
LIMIT = 30  # seconds: it will not end by itself
UNLIMITED = 20 << 30
QEMUS = {
    "qemu": {},
    "qemu-dl20": {"downtime-limit": 20},
    "qemu-dl5": {"downtime-limit": 5},
    "qemu-mfd4-dl5": {"downtime-limit": 5, "multifd-channels": 4},
}


POSTCOPY_STRIDE = 7919  # else what the guest writes next is always there already: both push on behind what was asked for


def percentile(buckets, width_ns, share):
    """Of a histogram, in us: the middle of the bucket. 0: it is empty."""
    left = sum(buckets) * share
    for i, n in enumerate(buckets):
        left -= n
        if n and left <= 0:
            return (i + 0.5) * width_ns / 1e3
    return 0.0


def steal_ticks():
    with open("/proc/stat") as f:
        return int(f.readline().split()[8])


class Ballast:
    """Memory in use, until it is let go."""

    def __init__(self, mib):
        self.memory = mmap.mmap(-1, mib << 20)
        for at in range(0, mib << 20, 4096):
            self.memory[at] = 1

    def drop(self):
        self.memory.close()


class Guest:
    """`dirty`, through its own network."""

    def __init__(self, bench, pair):
        self.bench, self.pair = bench, pair

    def client(self, *args):
        out = self.pair.client(os.path.join(self.bench.build, "tests/vm/count_client"), "--address", GUEST_IP, *args, stdout=subprocess.PIPE, text=True)
        return out.communicate(timeout=60)[0]

    def status(self):
        return json.loads(self.client("--wait-ms", "5000", "--resend-ms", "50", "--status"))

    def control(self, **values):
        self.client("--control", ",".join("%s=%d" % v for v in values.items()))

    def fill(self, mib, rate, stride=1):
        """Writes to every page once, then to a window of them at the rate."""
        pages = mib * 256 - FIRST_PAGE - 1024
        self.control(rate=1000000, pages=pages, reset=1)
        while self.status()["pages_written"] < pages:
            time.sleep(0.1)
        self.control(rate=rate, pages=min(20000, pages), stride=stride, reset=1)
        time.sleep(0.5)
        self.control(rate=rate, pages=min(20000, pages), stride=stride, reset=1)


class Bench:
    def __init__(self, build):
        self.build = build
        self.discarded = 0

    def cmdline(self):
        return "ip=%s quiet=1 rate=0 pages=1" % GUEST_IP

    def perdure(self, pair, mib, rate, postcopy=False):
        a, b = pair.a, pair.b
        a.run("builtin:dirty", self.cmdline(), memory="%dM" % mib)
        a.wait_state("UNPROTECTED")
        b.standby(key=None)
        guest, ballast = Guest(self, pair), Ballast(mib + 128)
        guest.fill(mib, rate, POSTCOPY_STRIDE if postcopy else 1)
        qmp = Qmp(a)
        ballast.drop()
        qmp.execute("migrate", uri=b.address, insecure=True, postcopy=postcopy, **{"timeout-us": 5000000, "downtime-us": 1000 if postcopy else 20000})
        m = self.await_end(qmp)
        qmp.close()
        return m and self.result(guest, m, m["total-time"], m["downtime-us"] / 1e3)

    def await_end(self, qmp):
        """None: it does not end."""
        until = time.monotonic() + LIMIT
        while True:
            m = qmp.execute("query-migrate")
            if m["status"] in ("failed", "cancelled") or (m["status"] == "completed" and m["total-time"]):  # QEMU says that a moment later
                break
            if time.monotonic() > until:
                return None
            time.sleep(0.01)
        if m["status"] != "completed":
            sys.exit("bench migrate: the migration is %s: %s" % (m["status"], m))
        return m

    def start_qemu(self, pair, host, mib, *more):
        path = os.path.join(host.dir, "qmp")
        command = ["ip", "netns", "exec", host.netns, "qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "kvm", "-cpu",
                   "host,arch-capabilities=off", "-m", str(mib), "-bios", os.path.join(self.build, "guests/dirty.bin"), "-fw_cfg",
                   "name=opt/perdure.cmdline,string=" + self.cmdline(), "-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no,vhost=off", "-device",
                   "virtio-net-pci,netdev=n,disable-legacy=on,mac=" + GUEST_MAC, "-qmp", "unix:%s,server=on,wait=off" % path, *more]
        pair.helpers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        while not os.path.exists(path):
            time.sleep(0.02)
        return Qmp(host, path=path)

    def qemu(self, pair, mib, rate, parameters, postcopy=False):
        source = self.start_qemu(pair, pair.a, mib)
        destination = self.start_qemu(pair, pair.b, mib, "-incoming", "defer")
        for qmp in source, destination:
            if "multifd-channels" in parameters:
                qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "multifd", "state": True}])
            if postcopy:
                qmp.execute("migrate-set-capabilities", capabilities=[{"capability": c, "state": True} for c in ("postcopy-ram", "postcopy-preempt")])
            if parameters:
                qmp.execute("migrate-set-parameters", **dict(parameters, **{"max-bandwidth": UNLIMITED}))
        guest, ballast = Guest(self, pair), Ballast(mib + 128)
        guest.fill(mib, rate, POSTCOPY_STRIDE if postcopy else 1)
        ballast.drop()
        destination.execute("migrate-incoming", uri="tcp:%s:%d" % (pair.b.link, PORT))
        source.execute("migrate", uri="tcp:%s:%d" % (pair.b.link, PORT))
        if postcopy:
            while source.execute("query-migrate").get("ram", {}).get("dirty-sync-count", 0) < 2:
                time.sleep(0.002)
            source.execute("migrate-start-postcopy")
        m = self.await_end(source)
        result = m and self.result(guest, m, m["total-time"], m["downtime"])
        source.close()
        destination.close()
        return result

    @staticmethod
    def result(guest, m, total, downtime):
        status = guest.status()
        if status["errors"]:
            sys.exit("bench migrate: the guest found an error: %s" % status)
        return {"gap": status["gap_max_us"] / 1e3, "sum": status["gap_sum_us"] / 1e3, "total": total, "said": downtime,
                "bytes": m["ram"]["transferred"] / 1e6, "faults": sum(status["slow_writes"]),
                "fault50": percentile(status["slow_writes"], status["slow_writes_ns"], 0.5),
                "fault99": percentile(status["slow_writes"], status["slow_writes_ns"], 0.99)}

    def clean(self, measure):
        seen = []
        for _ in range(TRIES):
            stolen = steal_ticks()
            with Pair(self.build) as pair:
                result = measure(pair)
            if not result:
                return None
            seen.append(dict(result, steal=steal_ticks() - stolen))
            if seen[-1]["steal"] <= STEAL_MAX:
                break
            self.discarded += 1
        return min(seen, key=lambda r: r["steal"])

    def row(self, mib, rate, rounds):
        monitors = [("perdure", lambda pair: self.perdure(pair, mib, rate))]
        monitors += [(name, lambda pair, p=p: self.qemu(pair, mib, rate, p)) for name, p in QEMUS.items()]
        if rate:
            monitors += [("perdure-postcopy", lambda pair: self.perdure(pair, mib, rate, True)),
                         ("qemu-postcopy", lambda pair: self.qemu(pair, mib, rate, {"downtime-limit": 5}, True))]
        seen = {name: [] for name, _ in monitors}
        for i in range(rounds):
            turn = i % len(monitors)
            for name, measure in monitors[turn:] + monitors[:turn]:
                if None not in seen[name]:
                    seen[name].append(self.clean(measure))
        return seen


def spread(results, key):
    values = [r[key] for r in results]
    return "%8.1f [%.1f..%.1f]" % (statistics.median(values), min(values), max(values))


def show(mib, rate, seen):
    for name, results in seen.items():
        if None in results:
            print("%5d %6d %-16s | does not end in %d s" % (mib, rate, name, LIMIT), flush=True)
            continue
        faults = "%3.0f %3.0f (%.0f)" % tuple(statistics.median(r[k] for r in results) for k in ("fault50", "fault99", "faults"))
        print("%5d %6d %-16s | %-26s | %-26s | %8.1f | %8.1f | %-14s | %d" % (
            mib, rate, name, spread(results, "gap"), spread(results, "total"), statistics.median(r["said"] for r in results),
            statistics.median(r["bytes"] for r in results), faults if "postcopy" in name else "", max(r["steal"] for r in results)), flush=True)


def median(seen, names, key):
    return min(statistics.median(r[key] for r in seen[name]) for name in names if None not in seen[name])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--quick", action="store_true", help="1 GiB and 10,000 pages a second only")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    bench = Bench(os.path.abspath(options.build))
    print("%5s %6s %-16s | %-26s | %-26s | %8s | %8s | %-14s | %s" % ("MiB", "pages/s", "monitor", "guest's worst gap ms", "total ms", "it said", "MB sent",
                                                                     "fault us 50 99", "steal"))
    for mib in (1024,) if options.quick else (256, 1024):
        for rate in (10000,) if options.quick else (0, 10000, 50000):
            rows = bench.row(mib, rate, options.rounds)
            show(mib, rate, rows)
            if mib == 1024 and rate == 10000:
                closing = rows
    print("%d measurements thrown away for steal above %d ticks" % (bench.discarded, STEAL_MAX))
    tuned = [name for name in QEMUS if name != "qemu"]
    print("bench migrate: downtime_ms=%.1f qemu_default_downtime_ms=%.1f qemu_best_downtime_ms=%.1f total_ms=%.0f qemu_best_total_ms=%.0f fault_us_p50=%.0f" % (
        median(closing, ["perdure"], "gap"), median(closing, ["qemu"], "gap"), median(closing, tuned, "gap"), median(closing, ["perdure"], "total"),
        median(closing, list(QEMUS), "total"), median(closing, ["perdure-postcopy"], "fault50")))


if __name__ == "__main__":
    main()
