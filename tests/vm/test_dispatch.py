#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One port of a host for all its machines (perdure standby --any), and what a service manager is told and does:
test_dispatch.py [--build build] [test_NAME...]"""
import os
import re
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from scenario import CountClient, assert_well, require, run_count, run_tests  # noqa: E402


class Dispatcher:
    """perdure standby --any on a host, and at the end the processes that it started."""

    def __init__(self, host, config, key=True):
        self.host, self.pair = host, host.pair
        path = os.path.join(host.dir, "standby.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write(("psk %s\n" % self.pair.psk if key else "insecure\n") + config)
        self.process = host.start("standby", "--any", "--listen", host.address, "--config", path)
        self.pair.wait(lambda: "listening for all" in self.process.log(), 10, "dispatcher", self.process.log, lambda: not self.process.alive())

    def children(self):
        return [int(pid) for pid in re.findall(r"started its standby, process (\d+)", self.process.log())]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        for pid in self.children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


CONFIG = "[web]\nnet id=net0,tap=tap0\n[spare-*]\nnet id=net0,tap=tap0\n"


def test_one_port_and_a_failover(pair):
    """The standby process is started when its primary comes, outlives the dispatcher, and takes over."""
    primary = run_count(pair.a)
    client = CountClient(pair)
    with Dispatcher(pair.b, CONFIG) as d:
        pair.a.protect(pair.b, "--check")
        pair.a.protect(pair.b)
        pair.b.wait_state("STANDBY")
        require(len(d.children()) == 1, "one process for the machine", d.process.log())
        d.process.kill()
        primary.kill()
        pair.b.wait_state("UNPROTECTED")
        assert_well(pair)
        client.finish()


def test_without_a_key(pair):
    run_count(pair.a)
    with Dispatcher(pair.b, CONFIG, key=False):
        pair.a.perdure("protect", pair.vm, "--to", pair.b.address, "--insecure", "--arbiter", "manual")
        pair.b.wait_state("STANDBY")


def test_a_dispatcher_that_comes_later(pair):
    """The machine's process is there already; a new dispatcher finds it."""
    run_count(pair.a)
    with Dispatcher(pair.b, CONFIG) as first:
        pair.a.protect(pair.b)
        first.process.kill()
        pair.a.perdure("unprotect", pair.vm)
        pair.b.wait_state("LISTENING")
        with Dispatcher(pair.b, CONFIG) as second:
            pair.a.protect(pair.b)
            require(not second.children(), "a second process for the machine", second.process.log())


def test_swap_and_back(pair):
    """A run that shares the port is reached by it after it became the backup."""
    run_count(pair.a, extra=["--listen", "shared", "--psk", pair.psk])
    with Dispatcher(pair.a, CONFIG) as a, Dispatcher(pair.b, CONFIG):
        pair.a.protect(pair.b)
        pair.a.perdure("swap", pair.vm)
        pair.b.wait_state("PROTECTED")
        pair.b.perdure("unprotect", pair.vm)
        pair.a.wait_state("LISTENING")
        pair.b.protect(pair.a)
        pair.a.wait_state("STANDBY")
        require(not a.children(), "a process beside the one that is there", a.process.log())
        assert_well(pair)


def test_strangers(pair):
    """A machine that the file does not have, one that is no machine, silence: refused, and the next one is served."""
    run_count(pair.a)
    with Dispatcher(pair.b, "[other]\nnet id=net0,tap=tap0\n") as d:
        done = pair.a.protect(pair.b, check=False)
        require(done.returncode == 1, "protect of a machine that the standby does not have", done)
        pair.wait(lambda: "no section for a machine web" in d.process.log(), 5, "reason in the log", d.process.log)
        require(not d.children(), "a process was started", d.process.log())
    with Dispatcher(pair.b, CONFIG) as d:
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x02ab", b"\0" * 100, b""):
            code = "import socket,sys; s=socket.create_connection((%r, %d)); s.sendall(%r); s.settimeout(20); s.recv(1) if %r else None" % (
                pair.b.link, 7700, garbage, bool(garbage))
            subprocess.run(["ip", "netns", "exec", pair.a.netns, sys.executable, "-c", code], timeout=60, check=False, capture_output=True)
        require(not d.children(), "a process was started", d.process.log())
        pair.a.protect(pair.b)
        assert_well(pair)


def test_wrong_key(pair):
    other = os.path.join(pair.dir, "other-key")
    pair.a.perdure("keygen", other)
    run_count(pair.a)
    with Dispatcher(pair.b, CONFIG) as d:
        done = pair.a.perdure("protect", pair.vm, "--to", pair.b.address, "--psk", other, check=False)
        require(done.returncode == 1 and "authentication failed" in done.stderr, "protect with a wrong key", done)
        pair.wait(lambda: "authentication failed" in d.process.log(), 5, "reason in the log", d.process.log)
        pair.a.protect(pair.b)


def test_idle(pair):
    standby = pair.b.start("standby", "--name", "spare", "--listen", "shared", "--psk", pair.psk, "--idle", "1s")
    require(standby.wait(20) == 0 and "no primary came" in standby.log(), "end of an idle standby", standby.log())


def test_usage(pair):
    for options in (["--any"], ["--any", "--listen", "tcp:127.0.0.1:0"], ["--any", "--config", "/dev/null", "--listen", "shared"],
                    ["--any", "--config", "/dev/null", "--listen", "tcp:127.0.0.1:0", "--name", "x"]):
        done = pair.b.perdure("standby", *options, check=False)
        require(done.returncode == 2 and done.stderr.count("\n") == 1, "usage", options, done)
    done = pair.b.perdure("standby", "--any", "--config", "/nonexistent", "--listen", "tcp:127.0.0.1:0", check=False)
    require(done.returncode == 1 and "/nonexistent" in done.stderr, "a file that is not there", done)


def test_notify_and_shutdown(pair):
    """READY=1 comes when the guest runs; shutdown presses the button, and swaps a protected machine."""
    path = os.path.join(pair.dir, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(20)
        os.environ["NOTIFY_SOCKET"] = path
        try:
            primary = run_count(pair.a)
        finally:
            del os.environ["NOTIFY_SOCKET"]
        require(notify.recv(100) == b"READY=1", "READY=1")
        backup = pair.b.standby()
        pair.a.protect(pair.b)
        pair.a.perdure("shutdown", pair.vm)
        require(primary.wait(20) == 0, "exit of the former primary", primary.log())
        require(notify.recv(100) == b"STOPPING=1", "STOPPING=1")
    pair.b.wait_state("UNPROTECTED")
    assert_well(pair)
    done = pair.b.perdure("shutdown", pair.vm, "--timeout", "1s", check=False)
    # `count` does not listen to its button: what it is told to do is not done, and that is said.
    require(done.returncode == 1 and "still runs" in done.stderr, "shutdown of a guest that does not", done)
    require(backup.alive(), "it ended all the same", backup.log())


def test_sigterm_after_the_end_began(pair):
    """A service manager asks in its own way, and then sends SIGTERM: to a process that ends in order already."""
    path = os.path.join(pair.dir, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(20)
        os.environ["NOTIFY_SOCKET"] = path
        try:
            machine = run_count(pair.a)
        finally:
            del os.environ["NOTIFY_SOCKET"]
        require(notify.recv(100) == b"READY=1", "READY=1")
        quitting = subprocess.Popen(pair.a.command(["quit", pair.vm]), env=pair.a.env())
        require(notify.recv(100) == b"STOPPING=1", "STOPPING=1")
    machine.popen.send_signal(signal.SIGTERM)
    require(machine.wait(20) == 0 and quitting.wait(20) == 0, "exit", machine.log())


def complete(host, *words):
    """What bash offers at the end of these words."""
    program = host.pair.program
    script = 'source contrib/completion/perdure; shopt -s expand_aliases; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _perdure; printf "%s\\n" "${COMPREPLY[@]}"'
    env = dict(host.env(), PATH=os.path.dirname(program) + ":" + os.environ["PATH"])
    done = subprocess.run(["bash", "-c", script, "bash", "perdure"] + list(words), env=env, capture_output=True, text=True, check=True, timeout=30,
                          cwd=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    require(not done.stderr, "completion complains", done.stderr)
    return set(done.stdout.split())


def test_completion(pair):
    """Every command and every option that --help knows."""
    commands = set(re.findall(r"(?m)^  ([a-z-]+) ", pair.a.perdure("--help")))
    require(len(commands) > 15 and complete(pair.a, "") == commands | {"--help", "--version"}, "commands", complete(pair.a, ""))
    for command in commands:
        options = set(re.findall(r"(?m)^  (--[a-z-]+)", pair.a.perdure(command, "--help")))
        require(complete(pair.a, command, "--") == options | {"--help"}, "options of " + command, complete(pair.a, command, "--"))
    require(complete(pair.a, "pro") == {"protect"}, "a command's beginning")
    require(complete(pair.a, "protect", "web", "--arbiter", "m") == {"manual"}, "an option's value")
    require("docs" in complete(pair.a, "protect", "web", "--psk", "d"), "a file", complete(pair.a, "protect", "web", "--psk", "d"))
    run_count(pair.a)
    require(complete(pair.a, "status", "") == {"web"}, "machines", complete(pair.a, "status", ""))


if __name__ == "__main__":
    run_tests("dispatch", globals())
