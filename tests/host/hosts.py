# SPDX-License-Identifier: GPL-2.0-or-later
"""Test hosts: machines that a test may cut off, freeze and unplug. This module is all that a test imports.

    from hosts import *

    net = Net()                                  # once, first of all: moves this process into a network of its own
    images = images.build(perdure="build/perdure")
    with Etcd() as etcd, Host(net, "A", images) as a, Host(net, "B", images) as b:
        start_hosts(a, b)
        a.run("perdure run ... ")                # waits, and raises unless it exits with 0
        job = b.spawn("perdure standby ...")     # goes on in the background: job.out, job.code, job.kill()
        with Client() as client:                 # INCR over one connection, the i-th reply is i
            client.wait_more(100)
            a.power_cut()                        # or a.freeze(); a.thaw(); a.partition(REPLICATION); a.heal(REPLICATION)
            client.wait_more(100)
            print(client.longest_gap())

A host is a QEMU machine in software emulation, because nested KVM works there on any build machine. Its name is a letter,
which decides its addresses (network.py). A host that has been cut off starts again with start(), from nothing but
its image: its files are in RAM, except those on its DataDisk (/data there), if it has one. Freezing stops the QEMU process, so the host finds the time gone when it goes on.

A host has one processor: with two, nested SVM in QEMU 7.2 fails now and then (HACKING.md).
"""
import os
import signal
import socket
import sys
import threading

import images
from agentlink import AgentLink, CommandFailed, HostLost, Job, wait_until
from datadisk import DataDisk
from network import (GUEST_ADDRESS, GUEST_MAC, HARNESS_ADDRESS, PUBLIC, REPLICATION, Capture, Net, OutputEscaped,
                     beacon_spans)
from services import Client, ClientError, Etcd, GuestShell, ask_guest, redis_answers, start_process, tell_guest

__all__ = ["AgentLink", "Capture", "Client", "ClientError", "CommandFailed", "DataDisk", "Etcd", "GUEST_ADDRESS", "GUEST_MAC",
           "GuestShell", "HARNESS_ADDRESS", "Host", "HostLost", "Job", "Net", "OutputEscaped", "PUBLIC", "REPLICATION",
           "ask_guest", "beacon_spans", "cut_power", "images", "redis_answers", "start_hosts", "start_process", "tell_guest", "wait_until"]

BOOT_TIMEOUT = 120
BOOT_ATTEMPTS = 3


class Host:
    """One test host. start(), power_cut() and close() belong to the main thread, the rest to any."""

    def __init__(self, net, name, image, log_dir=None, memory_mib=1536, cpus=1, disk=None):
        number = 10 + 1 + ord(name) - ord("A")
        self.net, self.name, self._image = net, name, image
        self.address, self.replication_address = f"10.77.0.{number}", f"10.78.0.{number}"
        self._macs = {PUBLIC: f"52:54:00:77:01:{number:02x}", REPLICATION: f"52:54:00:77:02:{number:02x}"}
        self.taps = {PUBLIC: f"pub{name}", REPLICATION: f"rep{name}"}
        self._memory_mib, self._cpus, self.disk = memory_mib, cpus, disk
        self._log_dir = log_dir or os.path.dirname(image.host)
        self._process, self._link = None, None
        self.boots = 0
        net.add_tap(self.taps[PUBLIC], "br-pub")
        net.add_tap(self.taps[REPLICATION], "br-rep")

    @property
    def console_log(self):
        """The path of what the host's kernel and init said in this boot."""
        return f"{self._log_dir}/console-{self.name}-{os.getpid()}-{self.boots}"

    @property
    def pid(self):
        return self._process.pid

    def start(self, wait=True):
        """Power on. With wait=False, wait_ready() has to follow."""
        assert threading.current_thread() is threading.main_thread(), "a host dies with the thread that started it"
        assert not self._process, f"host {self.name} is on"
        ours, theirs = socket.socketpair()
        self.boots += 1
        with theirs:
            self._process = start_process(self._command(theirs.fileno()), f"{self._log_dir}/qemu-{self.name}.log",
                                          pass_fds=[theirs.fileno()])
        self._link = AgentLink(ours)
        if wait:
            self.wait_ready()

    def wait_ready(self):
        """Until commands can run there. A machine that hangs while it boots is started again: no test has begun yet."""
        for attempt in range(1, BOOT_ATTEMPTS + 1):
            if self._link.wait_hello(BOOT_TIMEOUT):
                return
            print(f"host {self.name}: no answer from boot {attempt}, see {self.console_log}", file=sys.stderr)
            self.power_cut()
            if attempt < BOOT_ATTEMPTS:
                self.start(wait=False)
        raise HostLost(f"host {self.name} does not boot, see {self.console_log}")

    def _command(self, control_fd):
        # The TSC runs as fast on every host: without other clocks none measures its own again.
        clocks = f"tsc_early_khz={self._image.tsc_khz} tsc=reliable hpet=disable pmtmr=0"
        cmdline = (f"console=ttyS0 quiet loglevel=4 panic=-1 host.name={self.name} host.public={self.address}/24 "
                   f"host.replication={self.replication_address}/24 {clocks}")
        command = ["qemu-system-x86_64", "-name", f"perdure-{self.name}", "-accel", "tcg,thread=multi", "-cpu", "max",
                   "-M", "q35", "-smp", str(self._cpus), "-m", str(self._memory_mib), "-nodefaults", "-no-user-config",
                   "-no-reboot", "-display", "none", "-serial", f"file:{self.console_log}",
                   "-kernel", self._image.kernel, "-initrd", self._image.host, "-append", cmdline,
                   "-chardev", f"socket,id=control,fd={control_fd}", "-device", "virtio-serial-pci",
                   "-device", "virtserialport,chardev=control,name=perdure.control"]
        for link in (PUBLIC, REPLICATION):
            command += ["-netdev", f"tap,id={link},ifname={self.taps[link]},script=no,downscript=no",
                        "-device", f"virtio-net-pci,netdev={link},mac={self._macs[link]},romfile="]
        if self.disk:
            command += ["-drive", f"if=none,id=data,format=raw,file={self.disk.path}", "-device", "virtio-blk-pci,drive=data"]
        return command

    # Commands in the host

    def spawn(self, line):
        """Starts a shell command and returns its Job."""
        return self._link.spawn(line)

    def run(self, line, timeout=60, check=True):
        """Runs a shell command to its end and returns its Job; with check, anything but exit status 0 raises."""
        job = self.spawn(line)
        job.wait(timeout)
        if check and job.code != 0:
            raise CommandFailed(f"host {self.name}: exit {job.code}: {line}\n{job.out}{job.err}")
        return job

    def push(self, source, path, mode=0o755, timeout=120):
        """Copies a file into the host."""
        self._link.push(source, path, mode, timeout)

    def push_program(self, source, path):
        """Copies a program into the host, with the libraries that the host lacks."""
        self.push(source, path)
        libraries = images.shared_libraries(source)
        missing = self.run("for f in " + " ".join(libraries) + "; do [ -e $f ] || echo $f; done", check=False)
        for library in missing.out.split():
            self.push(library, library)

    # Misfortune

    def power_cut(self):
        """The host is gone at once and says nothing more."""
        self._process.kill()
        self._process.wait()
        self._link.close()
        self._process = None

    def freeze(self):
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.pid, signal.SIGCONT)

    def partition(self, link):
        """Pulls the cable of PUBLIC or REPLICATION."""
        self.net.set_link(self.taps[link], False)

    def heal(self, link):
        self.net.set_link(self.taps[link], True)

    # Observation

    def capture(self):
        """Records every frame that the host emits into the public net from now on."""
        return Capture(self.taps[PUBLIC])

    @property
    def console(self):
        with open(self.console_log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def close(self):
        """Off, and its cables are gone: the name is free again."""
        if self._process:
            self.power_cut()
        for tap in self.taps.values():
            self.net.remove_tap(tap)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def start_hosts(*hosts):
    """Starts several side by side and waits for all."""
    for host in hosts:
        host.start(wait=False)
    for host in hosts:
        host.wait_ready()


def cut_power(*hosts):
    """Of several in one moment: none sees another's end."""
    for host in hosts:
        host.freeze()
    for host in hosts:
        host.power_cut()
