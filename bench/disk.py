#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a disk is: perdure against Debian's QEMU, the same guest on the same raw image.

    bench/disk.py [--build build] [--quick] [--only randread4k,...] [--rounds N]

The guest `disk` (guests/disk.c) polls one virtio-blk queue; under QEMU it is a -bios image on virtio-blk-pci, cache=writeback, with each of
its aio engines. A row is one kind of work; in each round every monitor does it once, in an order that turns, each in a fresh process. The
image is in the page cache: what is measured is the way of a request through the monitor, and what a flush costs. Steal time is recorded;
a measurement with much of it is repeated. Closes with one line for scripts: ratios of medians to the better QEMU, higher is better.
"""
import argparse
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time

STEAL_MAX = 5  # ticks in a measurement
TRIES = 3
MEMORY = "64M"
IMAGE_MIB = 128
SECTOR = 512

ROWS = {
    "randread4k": "op=read order=random block=4K depth=16",
    "randwrite4k": "op=write order=random block=4K depth=16",
    "seqread4k": "op=read order=sequential block=4K depth=16",
    "seqwrite4k": "op=write order=sequential block=4K depth=16",
    "randread1m": "op=read order=random block=1M depth=4",
    "randwrite1m": "op=write order=random block=1M depth=4",
    "seqread1m": "op=read order=sequential block=1M depth=4",
    "seqwrite1m": "op=write order=sequential block=1M depth=4",
    "oneread4k": "op=read order=random block=4K depth=1",
    "flush4k": "op=write order=random block=4K depth=1 flush=1",
    "flush16x4k": "op=write order=random block=4K depth=16 flush=16",
}


def steal_ticks():
    with open("/proc/stat") as f:
        return int(f.readline().split()[8])


def make_image(path):
    """Sector s begins with 64 * s, as the guest expects it (guests/guest_abi.h)."""
    per_mib = (1 << 20) // SECTOR
    with open(path, "wb") as f:
        for mib in range(IMAGE_MIB):
            f.write(b"".join(struct.pack("<Q", 64 * s) + bytes(SECTOR - 8) for s in range(mib * per_mib, (mib + 1) * per_mib)))
        os.fsync(f.fileno())


class Bench:
    def __init__(self, build, folder, seconds):
        self.build, self.folder, self.seconds = build, folder, seconds
        self.image = os.path.join(folder, "disk.img")
        self.discarded = 0
        self.tsc_khz = subprocess.run([os.path.join(build, "bench/tsckhz")], capture_output=True, text=True, check=True).stdout.strip()
        make_image(self.image)

    # --- monitors: each a command that runs the guest with a console in a file ---

    def perdure(self, cmdline, console):
        return [os.path.join(self.build, "perdure"), "run", "--name", "bench-disk", "--memory", MEMORY, "--kernel", "builtin:disk",
                "--cmdline", cmdline, "--disk", "id=d,path=" + self.image, "--console", "file:" + console]

    def qemu(self, cmdline, console, aio):
        return ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "kvm", "-cpu", "host,arch-capabilities=off", "-m", MEMORY,
                "-bios", os.path.join(self.build, "guests/disk.bin"), "-fw_cfg", "name=opt/perdure.cmdline,string=" + cmdline,
                "-chardev", "file,id=c,path=" + console, "-serial", "chardev:c",
                "-drive", "if=none,id=d,format=raw,cache=writeback,aio=%s,file=%s" % (aio, self.image),
                "-device", "virtio-blk-pci,drive=d,disable-legacy=on"]

    def monitors(self):
        return {
            "perdure": self.perdure,
            "qemu-threads": lambda cmdline, console: self.qemu(cmdline, console, "threads"),
            "qemu-io_uring": lambda cmdline, console: self.qemu(cmdline, console, "io_uring"),
        }

    # --- one measurement ---

    def settle(self):
        """The image on the medium and in the page cache."""
        with open(self.image, "rb") as f:
            os.fdatasync(f.fileno())
            while f.read(1 << 20):
                pass

    def once(self, command, work):
        console = os.path.join(self.folder, "console")
        open(console, "wb").close()
        self.settle()
        line = "%s seconds=%d warm=300 tsc_khz=%s" % (work, self.seconds, self.tsc_khz)
        env = dict(os.environ, XDG_RUNTIME_DIR=self.folder)
        stolen = steal_ticks()
        with open(os.path.join(self.folder, "log"), "wb") as log:
            process = subprocess.Popen(command(line, console), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            result = self.result(process, console)
        finally:
            process.kill()
            process.wait()
        result["steal"] = steal_ticks() - stolen
        return result

    def result(self, process, console):
        deadline = time.monotonic() + 20 * self.seconds + 60
        while time.monotonic() < deadline and process.poll() is None:
            with open(console, errors="replace") as f:
                text = f.read()
            done = re.search(r"^disk: operations=.*$", text, re.M)
            if done and text.endswith("\n"):
                n = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", done.group(0))}
                n["rate"] = n["operations"] / (n["us"] / 1e6)
                return n
            if re.search(r"^(DATA|DISK|disk: no)", text, re.M):
                break
            time.sleep(0.05)
        with open(os.path.join(self.folder, "log"), errors="replace") as f:
            sys.exit("bench disk: no result: %s\n%s" % (open(console, errors="replace").read(), f.read()))

    def clean(self, command, work):
        seen = []
        for _ in range(TRIES):
            seen.append(self.once(command, work))
            if seen[-1]["steal"] <= STEAL_MAX:
                break
            self.discarded += 1
        return min(seen, key=lambda r: r["steal"])

    def row(self, work, rounds):
        monitors = list(self.monitors().items())
        seen = {name: [] for name, _ in monitors}
        for i in range(rounds):
            for name, command in monitors[i % len(monitors):] + monitors[:i % len(monitors)]:
                seen[name].append(self.clean(command, work))
        return seen


def show(row, seen):
    for name, results in seen.items():
        rates = [r["rate"] for r in results]
        middle = sorted(results, key=lambda r: r["rate"])[len(results) // 2]
        print("%-12s %-14s %9.0f %9.0f | %9.1f | %8.0f %8.0f %9.0f | %8.0f | %d" % (
            row, name, min(rates), statistics.median(rates), statistics.median(rates) * middle["bytes"] / max(middle["operations"], 1) / 1e6,
            middle["mean_ns"] / 1e3, middle["p50_ns"] / 1e3, middle["p99_ns"] / 1e3, middle["flush_mean_ns"] / 1e3,
            max(r["steal"] for r in results)), flush=True)


def ratio(seen):
    medians = {name: statistics.median(r["rate"] for r in results) for name, results in seen.items()}
    return medians["perdure"] / max(rate for name, rate in medians.items() if name.startswith("qemu"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--quick", action="store_true", help="three rounds of one second")
    parser.add_argument("--only", help="rows, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default="/var/tmp", help="where the image lies")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(ROWS)
    ratios = {}
    with tempfile.TemporaryDirectory(prefix="bench-disk-", dir=options.dir) as folder:
        bench = Bench(os.path.abspath(options.build), folder, 1 if options.quick else 3)
        print("%-12s %-14s %9s %9s | %9s | %8s %8s %9s | %8s | %s" % ("work", "monitor", "1/s min", "1/s p50", "MB/s p50", "mean us", "p50 us",
                                                                     "p99 us", "flush us", "steal"))
        for name in names:
            seen = bench.row(ROWS[name], 3 if options.quick else options.rounds)
            show(name, seen)
            ratios[name] = ratio(seen)
            print("%-12s %-14s %.2f of the better QEMU" % (name, "", ratios[name]), flush=True)
        print("%d measurements thrown away for steal above %d ticks; load %s" % (bench.discarded, STEAL_MAX, open("/proc/loadavg").read().split()[0]))
    print("bench disk: " + " ".join("%s_vs_qemu=%.2f" % (n, ratios[n]) for n in ("randwrite4k", "seqread1m") if n in ratios))


if __name__ == "__main__":
    main()
