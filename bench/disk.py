#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a disk is: perdure against Debian's QEMU, the same guest on the same raw image.

    bench/disk.py [--build build] [--quick] [--only randread4k,...] [--rounds N]

The guest `disk` (guests/disk.c) polls one virtio-blk queue; under QEMU it is a -bios image on virtio-blk-pci, cache=writeback, with each of
its aio engines. A row is one kind of work; in each round every monitor does it once, in an order that turns, each in a fresh process. The
image is in the page cache: what is measured is the way of a request through the monitor, and what a flush costs. The same once more under
protection (rows of writes, and one of reads): primary and backup are two processes on this machine, in two network namespaces with a link (TCP, TLS with a
pre-shared key), each with an image of its own on the same disk. "cpu us" is processor time a request, of all the monitor's threads but the one that runs the
guest; and of the backup's. Steal time is recorded; a measurement with much of it is repeated. Closes with one line for scripts: ratios of medians, to the
better QEMU and to the unprotected run, higher is better.
"""
import argparse
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "lib"))
from disklog import disk_options  # noqa: E402
from pair import Pair  # noqa: E402

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
PROTECTED = [name for name, work in ROWS.items() if "op=write" in work] + ["randread4k"]
PROTECT_WARM_MS = 8000  # until then it is protected, or the measurement is none


def steal_ticks():
    with open("/proc/stat") as f:
        return int(f.readline().split()[8])


def processor_ns(pid):
    """What a monitor's threads have run, without those that run the guest (vcpu0; QEMU: CPU 0/KVM)."""
    total = 0
    for thread in os.listdir("/proc/%d/task" % pid):
        folder = "/proc/%d/task/%s/" % (pid, thread)
        try:
            with open(folder + "comm") as comm, open(folder + "schedstat") as stat:
                total += 0 if comm.read().startswith(("vcpu", "CPU ")) else int(stat.read().split()[0])
        except OSError:
            pass  # it has ended
    return total


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
        self.copy = shutil.copyfile(self.image, os.path.join(folder, "copy.img"))

    # --- monitors: each does a kind of work once, and returns what the guest says ---

    def perdure(self, work):
        return self.alone(work, lambda cmdline, console: [
            os.path.join(self.build, "perdure"), "run", "--name", "bench-disk", "--memory", MEMORY, "--kernel", "builtin:disk",
            "--cmdline", cmdline, "--disk", "id=d,path=" + self.image, "--console", "file:" + console])

    def qemu(self, work, aio):
        return self.alone(work, lambda cmdline, console: [
            "qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "kvm", "-cpu", "host,arch-capabilities=off", "-m", MEMORY,
            "-bios", os.path.join(self.build, "guests/disk.bin"), "-fw_cfg", "name=opt/perdure.cmdline,string=" + cmdline,
            "-chardev", "file,id=c,path=" + console, "-serial", "chardev:c",
            "-drive", "if=none,id=d,format=raw,cache=writeback,aio=%s,file=%s" % (aio, self.image),
            "-device", "virtio-blk-pci,drive=d,disable-legacy=on"])

    def protected(self, work):
        with Pair(self.build) as pair:
            self.settle(self.image)
            self.settle(self.copy)
            primary = pair.a.run("builtin:disk", self.cmdline(work, PROTECT_WARM_MS), memory=MEMORY, extra=disk_options([self.image]))
            backup = pair.b.standby(disk_options([self.copy]))
            pair.a.protect(pair.b)
            if "counting" in primary.output():
                sys.exit("bench disk: it took %d ms and more to be protected" % PROTECT_WARM_MS)
            result = self.result(primary.popen, primary.console, primary.log_path, backup.popen)
            status = pair.a.status()
            if status["state"] != "PROTECTED":
                sys.exit("bench disk: the protection ended: " + status["last_error"])
        for image in (self.image, self.copy):
            os.unlink(image + ".perdure")  # the next one begins as the first did
            if os.path.exists(image + ".perdure-journal"):
                os.unlink(image + ".perdure-journal")
        return result

    def monitors(self, row):
        monitors = {
            "perdure": self.perdure,
            "qemu-threads": lambda work: self.qemu(work, "threads"),
            "qemu-io_uring": lambda work: self.qemu(work, "io_uring"),
        }
        if row in PROTECTED:
            monitors["protected"] = self.protected
        return monitors

    # --- one measurement ---

    def settle(self, image):
        """On the medium and in the page cache."""
        with open(image, "rb") as f:
            os.fdatasync(f.fileno())
            while f.read(1 << 20):
                pass

    def cmdline(self, work, warm_ms):
        return "%s seconds=%d warm=%d tsc_khz=%s" % (work, self.seconds, warm_ms, self.tsc_khz)

    def alone(self, work, command):
        console, log_path = os.path.join(self.folder, "console"), os.path.join(self.folder, "log")
        open(console, "wb").close()
        self.settle(self.image)
        env = dict(os.environ, XDG_RUNTIME_DIR=self.folder)
        with open(log_path, "wb") as log:
            process = subprocess.Popen(command(self.cmdline(work, 300), console), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            return self.result(process, console, log_path)
        finally:
            process.kill()
            process.wait()

    def result(self, process, console, log_path, backup=None):
        processes = [process, backup] if backup else [process]
        deadline = time.monotonic() + 20 * self.seconds + 60
        before = None
        while time.monotonic() < deadline and process.poll() is None:
            with open(console, errors="replace") as f:
                text = f.read()
            if not before and "counting" in text:
                before = [processor_ns(p.pid) for p in processes]
            done = re.search(r"^disk: operations=.*$", text, re.M)
            if done and text.endswith("\n"):
                n = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", done.group(0))}
                n["rate"] = n["operations"] / (n["us"] / 1e6)
                n["cpu_us"] = [(processor_ns(p.pid) - ns) / 1e3 / max(n["operations"], 1) for p, ns in zip(processes, before)]
                return n
            if re.search(r"^(DATA|DISK|disk: no)", text, re.M):
                break
            time.sleep(0.02)
        with open(log_path, errors="replace") as f:
            sys.exit("bench disk: no result: %s\n%s" % (open(console, errors="replace").read(), f.read()))

    def clean(self, monitor, work):
        seen = []
        for _ in range(TRIES):
            stolen = steal_ticks()
            seen.append(monitor(work))
            seen[-1]["steal"] = steal_ticks() - stolen
            if seen[-1]["steal"] <= STEAL_MAX:
                break
            self.discarded += 1
        return min(seen, key=lambda r: r["steal"])

    def row(self, name, rounds):
        monitors = list(self.monitors(name).items())
        seen = {name: [] for name, _ in monitors}
        for i in range(rounds):
            turn = i % len(monitors)
            for monitor, measure in monitors[turn:] + monitors[:turn]:
                seen[monitor].append(self.clean(measure, ROWS[name]))
        return seen


def show(row, seen):
    for name, results in seen.items():
        rates = [r["rate"] for r in results]
        middle = sorted(results, key=lambda r: r["rate"])[len(results) // 2]
        print("%-12s %-14s %9.0f %9.0f | %9.1f | %8.0f %8.0f %9.0f | %8.0f | %-11s | %d" % (
            row, name, min(rates), statistics.median(rates), statistics.median(rates) * middle["bytes"] / max(middle["operations"], 1) / 1e6,
            middle["mean_ns"] / 1e3, middle["p50_ns"] / 1e3, middle["p99_ns"] / 1e3, middle["flush_mean_ns"] / 1e3,
            " + ".join("%.1f" % us for us in middle["cpu_us"]), max(r["steal"] for r in results)), flush=True)


def ratios_of(seen):
    """To the better QEMU; and of protected to unprotected."""
    medians = {name: statistics.median(r["rate"] for r in results) for name, results in seen.items()}
    return (medians["perdure"] / max(rate for name, rate in medians.items() if name.startswith("qemu")),
            medians["protected"] / medians["perdure"] if "protected" in medians else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--quick", action="store_true", help="three rounds of one second")
    parser.add_argument("--only", help="rows, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default="/var/tmp", help="where the image lies")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(ROWS)
    closing = {}
    with tempfile.TemporaryDirectory(prefix="bench-disk-", dir=options.dir) as folder:
        bench = Bench(os.path.abspath(options.build), folder, 1 if options.quick else 3)
        print("%-12s %-14s %9s %9s | %9s | %8s %8s %9s | %8s | %-11s | %s" % (
            "work", "monitor", "1/s min", "1/s p50", "MB/s p50", "mean us", "p50 us", "p99 us", "flush us", "cpu us", "steal"))
        for name in names:
            seen = bench.row(name, 3 if options.quick else options.rounds)
            show(name, seen)
            closing[name + "_vs_qemu"], closing["protected_" + name] = vs_qemu, protected = ratios_of(seen)
            print("%-12s %-14s %.2f of the better QEMU%s" % (name, "", vs_qemu, "; protected %.2f of unprotected" % protected if protected else ""),
                  flush=True)
        print("%d measurements thrown away for steal above %d ticks; load %s" % (bench.discarded, STEAL_MAX, open("/proc/loadavg").read().split()[0]))
    print("bench disk: " + " ".join("%s=%.2f" % (n, closing[n]) for n in ("randwrite4k_vs_qemu", "seqread1m_vs_qemu", "protected_randwrite4k")
                                    if n in closing))


if __name__ == "__main__":
    main()
