# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts as network namespaces, and perdure on them: what demo, vm tests and benchmarks are written with.

    with Pair(build="build") as pair:
        a, b = pair.a, pair.b
        primary = a.run(kernel="build/guests/count.elf", cmdline="ip=10.98.0.10")
        backup = b.standby()
        a.perdure("protect", pair.vm, "--to", b.address)
        primary.kill()
        b.wait_state("UNPROTECTED")

Needs root. Everything it starts it ends, by pid; everything it makes is under one temporary directory and one name prefix.
"""
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

GUEST_IP = "10.98.0.10"
GUEST_MAC = "52:54:00:98:00:10"
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Failure(Exception):
    """A test's expectation that did not hold, in words."""


class Process:
    """One perdure process in one namespace."""

    def __init__(self, host, args, console):
        self.host = host
        self.console = console
        self.log_path = os.path.join(host.dir, "perdure-%d.log" % host.pair.next_number())
        self.log_file = open(self.log_path, "wb")
        self.popen = subprocess.Popen(host.command(args), env=host.env(), stdin=subprocess.DEVNULL, stdout=self.log_file,
                                      stderr=subprocess.STDOUT)
        host.pair.processes.append(self)

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def kill(self):
        """A power cut, as far as a process has one."""
        if self.alive():
            self.popen.send_signal(signal.SIGKILL)
        return self.popen.wait()

    def freeze(self):
        self.popen.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.popen.send_signal(signal.SIGCONT)

    def wait(self, timeout=20):
        return self.popen.wait(timeout)

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def output(self):
        """What the guest wrote to its console."""
        try:
            with open(self.console, errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def wait_output(self, text, timeout=30):
        self.host.pair.wait(lambda: text in self.output(), timeout, "'%s' on the console of %s" % (text, self.host.name),
                            lambda: self.output()[-2000:] + self.log()[-2000:], lambda: not self.alive())


class Host:
    def __init__(self, pair, letter, link, port=7700, run_dir=None):
        self.pair = pair
        self.name = letter
        self.netns = "%s-%s" % (pair.prefix, letter)
        self.dir = os.path.join(pair.dir, run_dir or letter)
        self.link = link
        self.address = "tcp:%s:%d" % (link, port)
        self.extra_env = {}
        os.makedirs(self.dir)

    def env(self):
        return dict(os.environ, XDG_RUNTIME_DIR=self.dir, **self.extra_env)

    def command(self, args):
        return ["ip", "netns", "exec", self.netns, self.pair.program] + [str(a) for a in args]

    def perdure(self, *args, check=True, timeout=60):
        """A command of the CLI; its standard output. check: a failure is the test's."""
        try:
            done = subprocess.run(self.command(args), env=self.env(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=timeout)
        except subprocess.TimeoutExpired as expired:
            raise Failure("on %s: perdure %s: no end within %g s: %s" % (self.name, " ".join(map(str, args)), timeout, expired.stderr)) from None
        if check and done.returncode != 0:
            raise Failure("on %s: perdure %s: exit %d: %s" % (self.name, " ".join(map(str, args)), done.returncode, done.stderr.strip()))
        return done if not check else done.stdout

    def start(self, *args):
        """A perdure process with these options and a console in a file."""
        console = os.path.join(self.dir, "console-%d" % self.pair.next_number())
        return Process(self, list(args) + ["--console", "file:" + console], console)

    def run(self, kernel, cmdline="", cpus=1, memory="64M", extra=()):
        return self.start("run", "--name", self.pair.vm, "--cpus", cpus, "--memory", memory, "--kernel", kernel, "--cmdline", cmdline,
                          "--net", "tap=tap0,id=net0,mac=" + GUEST_MAC, *extra)

    def standby(self, extra=(), net="id=net0,tap=tap0", name=None, key=True):
        """Waits until it listens. key: True the pair's, a path another one, None none (--insecure)."""
        process = self.start("standby", "--name", name or self.pair.vm, "--listen", self.address, *(["--net", net] if net else []),
                             *(["--psk", self.pair.psk if key is True else key] if key else ["--insecure"]), *extra)
        self.wait_state("LISTENING", process=process, name=name)
        return process

    def protect(self, to, *extra, timeout=60, check=True):
        """Until PROTECTED. A kill is seen at once; silence counts late (5 s), since the test machine may be busy. What extra repeats, it
        replaces."""
        return self.perdure("protect", self.pair.vm, "--to", to.address, "--psk", self.pair.psk, "--arbiter", "file:" + self.pair.arbiter,
                            "--timeout", "5s", *extra, timeout=timeout, check=check)

    def status(self, name=None):
        done = self.perdure("status", name or self.pair.vm, "--json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {"state": "none", "error": done.stderr.strip()}

    def wait_state(self, state, timeout=30, process=None, name=None):
        seen = {}

        def there():
            seen.clear()
            seen.update(self.status(name))
            return seen["state"] == state

        self.pair.wait(there, timeout, "state %s on %s" % (state, self.name), lambda: json.dumps(seen) + (process.log() if process else ""),
                       (lambda: not process.alive()) if process else None)
        return seen


class Pair:
    numbers = itertools.count()  # several may be there at once

    def __init__(self, build="build", vm="web"):
        self.program = os.path.join(TOP, build, "perdure")
        self.vm = vm
        self.prefix = "pd%d-%d" % (os.getpid(), next(Pair.numbers))
        self.processes = []
        self.helpers = []
        self.number = 0

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="perdure-pair-")
        self.arbiter = os.path.join(self.dir, "arbiter")
        self.psk = os.path.join(self.dir, "key")
        os.mkdir(self.arbiter)
        try:
            self.netns("up")
            self.a = Host(self, "a", "10.99.0.1")
            self.b = Host(self, "b", "10.99.0.2")
            self.a.perdure("keygen", self.psk)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        for helper in self.helpers:
            helper.kill()
            helper.wait()
        for process in self.processes:
            if process.alive():
                process.popen.kill()
                process.popen.wait()
            process.log_file.close()
        self.netns("down")
        shutil.rmtree(self.dir, ignore_errors=True)

    def netns(self, action):
        subprocess.run([os.path.join(TOP, "scripts/netns-pair"), action, self.prefix], check=True)

    def client(self, *command, **popen):
        """A process on the public network (10.98.0.1)."""
        return subprocess.Popen(["ip", "netns", "exec", self.prefix + "-c"] + [str(c) for c in command], **popen)

    def neighbour(self, host):
        """Another user of the same host: the same network, its own control sockets."""
        return Host(self, host.name, host.link, 7700 + self.next_number(), "%s-%d" % (host.name, self.number))

    def link(self, up):
        """The path between the two hosts."""
        subprocess.run(["ip", "-n", self.a.netns, "link", "set", "peer", "up" if up else "down"], check=True)

    def next_number(self):
        self.number += 1
        return self.number

    @staticmethod
    def wait(condition, timeout, what, detail=lambda: "", hopeless=None):
        end = time.monotonic() + timeout
        while not condition():
            if hopeless and hopeless():
                raise Failure("no %s: the process ended: %s" % (what, detail()))
            if time.monotonic() > end:
                raise Failure("no %s within %g s: %s" % (what, timeout, detail()))
            time.sleep(0.02)
