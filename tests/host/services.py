# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs beside the test hosts, as plain processes in their network: etcd, the client, and words to the guest."""
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from agentlink import PATIENCE, wait_until
from network import GUEST_ADDRESS, HARNESS_ADDRESS

REDIS_PORT, COMMAND_PORT = 6379, 7778


def start_process(command, log, pass_fds=()):
    """A child that dies with the thread that calls this: no test leaves one behind, however it ends.

    So only a thread that lives as long as the child may call it.
    """
    with open(log, "ab") as f:
        return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], stdin=subprocess.DEVNULL,
                                stdout=f, stderr=f, pass_fds=pass_fds, start_new_session=True)


class Etcd:
    """One etcd with its data in a fresh directory: in the network of the hosts at `endpoint`."""

    def __init__(self, address=HARNESS_ADDRESS, port=2379):
        self.endpoint = f"http://{address}:{port}"
        self.directory = tempfile.mkdtemp(prefix="perdure-etcd-")
        peer = f"http://{address}:{port + 1}"
        self._process = start_process(
            ["etcd", "--name", "t", "--data-dir", f"{self.directory}/data", "--log-level", "error",
             "--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"t={peer}"],
            f"{self.directory}/log")
        try:
            wait_until(lambda: self.ctl("endpoint", "health").returncode == 0, 30, "etcd answers")
        except BaseException:
            self.stop()
            raise

    def ctl(self, *words):
        return subprocess.run(["etcdctl", "--endpoints", self.endpoint, *words], capture_output=True, text=True,
                              check=False, env={**os.environ, "ETCDCTL_API": "3"})

    def freeze(self):
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def stop(self):
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class ClientError(Exception):
    """A reply that was promised did not come, or came wrong."""


class Client(threading.Thread):
    """One TCP connection that sends INCR over and over, never sends one again, and wants the i-th reply to be i.

    depth   requests on their way at a time        pause   seconds between a reply and the next request
    after   a client that has ended, because its guest lost its memory: this one goes on with its counter. All that it was told has to be
            there, and what was on its way may be.
    """

    _keys = itertools.count(1)

    def __init__(self, address=GUEST_ADDRESS, port=REDIS_PORT, depth=4, pause=0.0, connect_timeout=60, after=None):
        super().__init__(daemon=True)
        self.replies, self.error = 0, None
        self._depth, self._pause = depth, pause
        self._key = after._key if after else f"counter-{os.getpid()}-{next(self._keys)}-{time.monotonic_ns()}"
        self._ending = threading.Event()
        self._changed = threading.Condition()
        self._gap_start, self._longest = time.monotonic(), 0.0
        self._sock = wait_until(lambda: connect(address, port), connect_timeout, f"redis at {address} accepts")
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._begin = self._resume(after) if after else 0
        self._sock.settimeout(0.5)
        self.start()

    def _resume(self, after):
        """The counter as it is now."""
        self._sock.settimeout(30 * PATIENCE)
        self._sock.sendall(f"INCRBY {self._key} 0\r\n".encode())
        now, told = int(self._sock.recv(64).strip(b":\r\n")), after.told
        if not told <= now <= told + after._depth:
            raise ClientError(f"the counter is {now}: {told} was acknowledged, and {after._depth} were on their way")
        return now

    @property
    def told(self):
        """The counter as the last reply said it."""
        return self._begin + self.replies

    def run(self):
        try:
            self._converse()
        except (OSError, ClientError) as error:
            if not self._ending.is_set():
                self.error = error
        with self._changed:
            self._changed.notify_all()

    def _converse(self):
        request = f"INCR {self._key}\r\n".encode()
        self._sock.sendall(request * self._depth)
        pending = b""
        while not self._ending.is_set():
            try:
                data = self._sock.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise ClientError("the connection was closed")
            *lines, pending = (pending + data).split(b"\r\n")
            for line in lines:
                self._count(line)
            self._ending.wait(self._pause)
            self._sock.sendall(request * len(lines))

    def _count(self, line):
        if line != b":%d" % (self.told + 1):
            raise ClientError(f"reply {self.told + 1} is {line!r}")
        with self._changed:
            now = time.monotonic()
            self._longest = max(self._longest, now - self._gap_start)
            self._gap_start = now
            self.replies += 1
            self._changed.notify_all()

    def check(self):
        """Raises what went wrong, if anything did."""
        if self.error:
            raise ClientError(f"after {self.replies} replies: {self.error}")

    def wait_more(self, count, timeout=60):
        """Waits until @count more replies have come; returns how many there are then."""
        target = self.replies + count
        with self._changed:
            self._changed.wait_for(lambda: self.replies >= target or self.error, timeout * PATIENCE)
        self.check()
        if self.replies < target:
            raise ClientError(f"{self.replies} replies, not {target}, after {timeout} s")
        return self.replies

    def longest_gap(self, reset=False):
        """Seconds between two replies at most, counting the wait that lasts now."""
        with self._changed:
            longest = max(self._longest, time.monotonic() - self._gap_start)
            if reset:
                self._longest, self._gap_start = 0.0, time.monotonic()
            return longest

    def stop(self):
        """Ends it and returns the number of replies."""
        self._ending.set()
        self.join()
        self._sock.close()
        self.check()
        return self.replies

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._ending.set()
        self.join()
        self._sock.close()
        if kind is None:
            self.check()


def connect(address, port):
    """A connection, or None."""
    try:
        return socket.create_connection((address, port), timeout=5)
    except OSError:
        return None


def redis_answers(address=GUEST_ADDRESS):
    """Whether a new connection gets an answer."""
    sock = connect(address, REDIS_PORT)
    if not sock:
        return False
    with sock:
        try:
            sock.sendall(b"PING\r\n")
            return sock.recv(64) == b"+PONG\r\n"
        except OSError:
            return False


class GuestShell:
    """Has guestd's shell do a line, over one TCP connection: the guest prints, next_line() returns it line by line."""

    def __init__(self, line, address=GUEST_ADDRESS):
        self._sock = wait_until(lambda: connect(address, COMMAND_PORT), 60, f"guestd at {address} accepts")
        self._lines = self._sock.makefile("r", encoding="utf-8")
        self._sock.sendall(line.encode() + b"\n")

    def next_line(self, timeout=90):
        """Without its end; "" is the end of the output. A line that comes too late ends the use of this object."""
        self._sock.settimeout(timeout * PATIENCE)
        return self._lines.readline().rstrip("\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._lines.close()
        self._sock.close()


def ask_guest(line, timeout=90):
    """What a line of shell prints in the guest, if that is one line."""
    with GuestShell(line) as shell:
        return shell.next_line(timeout)


def tell_guest(word, address=GUEST_ADDRESS, timeout=30):
    """Has guestd do one of "reboot", "poweroff", "panic"; returns when it answered that it will."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout * PATIENCE)
        sock.sendto(word.encode(), (address, COMMAND_PORT))
        answer = sock.recv(64)
    if answer != b"ok":
        raise ClientError(f"guest answered {answer!r} to {word}")
