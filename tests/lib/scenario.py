# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario of the vm tier is written with, on top of pair.py: the `count` guest and its client, frames on the wire, the control
socket, and a runner that gives each test_* function a Pair of its own.

    def test_takeover(pair):
        primary = run_count(pair.a)
        client = CountClient(pair)
        pair.b.standby()
        pair.a.protect(pair.b)
        primary.kill()
        pair.b.wait_state("UNPROTECTED")
        client.finish()

    if __name__ == "__main__":
        run_tests("pair", globals())
"""
import argparse
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from pair import GUEST_IP, GUEST_MAC, Failure, Pair

CLONE_NEWNET = 0x40000000
ETH_P_ALL, PACKET_OUTGOING = 3, 4


def require(condition, what, *details):
    if not condition:
        raise Failure(what + "".join(": %s" % (d,) for d in details))


# --- the guest ---

# The small guests, and what they do while something happens to them.
CORPUS = {
    "walk": "size=8M rate=20000",
    "count": "dirty=4",
    "irq": "timer=periodic hz=100",
    "log": "dirty=2",
}

def run_count(host, cmdline="", cpus=1, memory="64M", extra=(), kernel="count"):
    """The guest `count` (or another) on host, answering."""
    process = host.run("builtin:" + kernel, ("ip=%s cpus=%d %s" % (GUEST_IP, cpus, cmdline)).strip(), cpus, memory, extra)
    process.wait_output("running")
    return process


def client_program(pair):
    return os.path.join(os.path.dirname(pair.program), "tests/vm/count_client")


def ask(pair, op, *values, wait_ms=5000, resend_ms=50, check=True):
    """One request to the guest: "status", "reset", ... Its status, or whether it was answered."""
    client = pair.client(client_program(pair), "--address", GUEST_IP, "--wait-ms", wait_ms, "--resend-ms", resend_ms, "--" + op, *values,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = client.communicate(timeout=wait_ms / 1000 + 20)
    if check:
        require(client.returncode == 0, "the guest does not answer", op, err.strip())
    return json.loads(out) if out else client.returncode == 0


def assert_sound(status, before):
    require(not status["errors"] and status["state"] == 1, "the guest found an error", status)
    require(not before or status["boot_id"] == before["boot_id"], "the guest is not the one that ran before", before, status)


def assert_well(pair, before=None):
    """The guest found no error, is the one that was booted `before`, and goes on. Its status."""
    first = ask(pair, "status")
    assert_sound(first, before)
    end = time.monotonic() + 10  # the machine may be busy with other things
    while True:
        status = ask(pair, "status")
        assert_sound(status, first)
        if all(status["heartbeat"][cpu] > first["heartbeat"][cpu] for cpu in range(status["cpus"])):
            return status
        require(time.monotonic() < end, "a processor stands still", first, status)
        time.sleep(0.02)


class CountClient:
    """Sends numbered requests until finish(), which judges: nothing that was acknowledged is lost, nothing was done twice."""

    def __init__(self, pair, *options):
        self.pair = pair
        self.popen = pair.client(client_program(pair), "--address", GUEST_IP, "--seconds", 3600, *options, stdout=subprocess.PIPE, text=True)
        pair.helpers.append(self.popen)

    def result(self):
        self.popen.terminate()
        return json.loads(self.popen.communicate(timeout=20)[0].strip().splitlines()[-1])

    def finish(self, reboots=0):
        """Answered until the end, too. The result."""
        counter = ask(self.pair, "status")["counter"]
        self.pair.wait(lambda: ask(self.pair, "status")["counter"] > counter, 5, "more requests carried out")
        r = self.result()
        require(r["acknowledged"], "the client was never answered", r)
        require(not r["lost"] and not r["duplicated"] and not r["errors"], "the client found a broken promise", r)
        require(r["reboots"] == reboots, "the guest was rebooted", r)
        return r


# --- the wire ---

def in_namespace(name, fn):
    """What fn() returns, run by a thread inside a network namespace; a socket made there stays there."""
    result = []

    def run():
        with open("/var/run/netns/" + name, encoding="ascii") as f:
            if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), CLONE_NEWNET) == 0:
                result.append(fn())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    require(result, "cannot work in the network namespace " + name)
    return result[0]


def packet_socket(pair, port):
    def make():
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # of no protocol yet: until it is bound it would see every interface
        s.bind((port, ETH_P_ALL))
        return s

    return in_namespace(pair.prefix + "-c", make)


class Frames:
    """Every frame of the guest that leaves one host: `with Frames(pair, "a") as frames: ...`; then (time, frame) in frames.seen."""

    def __init__(self, pair, host):
        self.seen = []
        self.ending = False
        self.socket = packet_socket(pair, "port-" + host)
        self.socket.settimeout(0.1)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        guest = bytes.fromhex(GUEST_MAC.replace(":", ""))
        while not self.ending:
            try:
                frame, address = self.socket.recvfrom(65536)
            except socket.timeout:
                continue
            if address[2] != PACKET_OUTGOING and frame[6:12] == guest:
                self.seen.append((time.monotonic(), frame))

    def since(self, moment):
        return [frame for at, frame in self.seen if at >= moment]

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending = True
        self.thread.join()
        self.socket.close()


def ask_who_has(pair):
    """An ARP request for the guest, to everyone: also a side whose MAC the switch no longer knows hears it and would answer."""
    mac = bytes.fromhex("02000000c0de")
    frame = b"\xff" * 6 + mac + bytes.fromhex("0806" "0001080006040001") + mac + socket.inet_aton("10.98.0.2") + b"\0" * 6 \
        + socket.inet_aton(GUEST_IP)
    s = packet_socket(pair, "port-a")
    s.send(frame.ljust(60, b"\0"))
    s.close()


# --- the control socket ---

class Qmp:
    """A client of a process's control socket. path: another program's that speaks QMP."""

    def __init__(self, host, name=None, path=None):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path or os.path.join(host.dir, "perdure", (name or host.pair.vm) + ".sock"))
        self.lines = self.socket.makefile("r")  # not "rw": a write throws away what is read and not yet returned
        self.events = []
        self.greeting = self.read()
        require("QMP" in self.greeting, "no greeting", self.greeting)
        self.execute("qmp_capabilities")

    def read(self):
        line = self.lines.readline()
        require(line, "the control socket was closed")
        return json.loads(line)

    def answer(self):
        """Of the last request; the events before it are kept."""
        while True:
            message = self.read()
            if "event" not in message:
                return message
            self.events.append(message)

    def send(self, line):
        self.socket.sendall(line.encode() + b"\n")

    def ask(self, command, **arguments):
        self.send(json.dumps({"execute": command, "arguments": arguments}))
        return self.answer()

    def execute(self, command, **arguments):
        answer = self.ask(command, **arguments)
        require("return" in answer, command, answer)
        return answer["return"]

    def wait_event(self, name):
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event
            try:
                message = self.read()
            except TimeoutError:
                raise Failure("no event %s within 20 s; others: %s" % (name, self.events)) from None
            require("event" in message, "an answer that nobody waits for", message)
            self.events.append(message)

    def close(self):
        self.lines.close()  # it holds the socket open, too
        self.socket.close()


# --- the runner ---

def tell(pair):
    """What a reader of a failure wants to know."""
    text = ""
    for process in pair.processes:
        state = "alive" if process.alive() else "exit %s" % process.popen.returncode
        text += "    --- pid %d on %s (%s): %s\n%s\n    --- its console: %s\n" % (
            process.pid, process.host.name, state, " ".join(map(str, process.popen.args[5:])), process.log()[-4000:], process.output()[-600:])
    return text


def assert_clean(pair):
    """No process crashed, and no sanitizer complained."""
    for process in pair.processes:
        log = process.log()
        require("runtime error:" not in log and "Sanitizer" not in log, "a sanitizer's report", log[-4000:])
        crashed = not process.alive() and process.popen.returncode in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL,
                                                                       -signal.SIGFPE)
        require(not crashed, "a process crashed", process.popen.returncode, log[-2000:])


def run_one(name, function, build):
    """Whether it passed; what it says comes out in one piece."""
    begin = time.monotonic()
    text = ""
    try:
        with Pair(build) as pair:
            try:
                function(pair)
                assert_clean(pair)
            except BaseException:
                text = tell(pair)
                raise
    except Exception:  # the next one is a test of its own
        print("%s%sFAILED: %s (%.1f s)" % (text, traceback.format_exc(), name, time.monotonic() - begin), flush=True)
        return False
    print("ok: %s (%.1f s)" % (name, time.monotonic() - begin), flush=True)
    return True


def need_kvm(suite):
    """Without it nothing here can run, and that is a failure: nobody asked to skip."""
    if os.geteuid() != 0:
        why = "the tests make network namespaces: run them as root"
    elif not os.access("/dev/kvm", os.R_OK | os.W_OK):
        why = "/dev/kvm cannot be used here: this machine (or virtual machine) offers no KVM"
    else:
        return
    print("%s: %s\n%s: 0 passed, 1 failed, 0 skipped" % (suite, why, suite))
    sys.exit(1)


def run_tests(suite, namespace):
    """All test_* of the namespace, or those named on the command line; closes with "SUITE: N passed, N failed, N skipped"."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="as many at the same time")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    tests = {name: fn for name, fn in namespace.items() if name.startswith("test_") and callable(fn)}
    if options.list:
        print("\n".join(tests))
        return
    need_kvm(suite)
    build = os.path.abspath(options.build)
    names = options.names or list(tests)
    with ThreadPoolExecutor(options.jobs) as pool:
        passed = list(pool.map(lambda name: run_one(name, tests[name], build), names))
    print("%s: %d passed, %d failed, 0 skipped" % (suite, sum(passed), len(passed) - sum(passed)))
    sys.exit(0 if all(passed) else 1)
