# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness's end of the control port of a test host; agent.c is the other end and describes the frames."""
import os
import socket
import struct
import threading
import time

HEADER = struct.Struct("<IIB")
CHUNK = 256 * 1024

# Every limit of the tests is given for a machine that has nothing else to do. It ends what hangs, and is no assertion: on a machine
# that builds or tests something else too, all of them are worth as many times more.
PATIENCE = 5


class HostLost(Exception):
    """The test host ended (or never answered) while something waited for it."""


class CommandFailed(Exception):
    """A command in a test host ended with something else than 0."""


class Job:
    """One command in a test host. Grows while it runs; `code` is None until it ended."""

    def __init__(self, link, number, line):
        self._link, self.number, self.line = link, number, line
        self._output = {"O": bytearray(), "R": bytearray()}
        self.code, self.lost = None, False

    @property
    def out(self):
        with self._link.changed:
            return self._output["O"].decode(errors="replace")

    @property
    def err(self):
        with self._link.changed:
            return self._output["R"].decode(errors="replace")

    @property
    def running(self):
        return self.code is None and not self.lost

    def wait(self, timeout=60):
        """Waits for the end and returns the exit status. TimeoutError leaves the job running."""
        with self._link.changed:
            if not self._link.changed.wait_for(lambda: not self.running, timeout * PATIENCE):
                raise TimeoutError(f"still running after {timeout} s: {self.line}")
        if self.lost:
            raise HostLost(self.line)
        return self.code

    def kill(self, signal=15):
        """To the command and everything it started."""
        self._link.send("K", self.number, bytes([signal]))


class AgentLink:
    """Owns @sock. Every method may be called by any thread."""

    def __init__(self, sock: socket.socket):
        self._sock = sock
        self.changed = threading.Condition()
        self._send_lock = threading.Lock()
        self._jobs, self._next = {}, 1
        self._hello, self._closed = False, False
        threading.Thread(target=self._receive, daemon=True).start()

    def wait_hello(self, timeout):
        """True once the agent has started, False after @timeout or when the host ended."""
        with self.changed:
            self.changed.wait_for(lambda: self._hello or self._closed, timeout * PATIENCE)
            return self._hello and not self._closed

    def spawn(self, line):
        job = self._new_job(line)
        self.send("X", job.number, line.encode())
        return job

    def push(self, source, path, mode, timeout):
        """Copies a file of this machine into the host."""
        job = self._new_job(f"push {source} to {path}")
        self.send("P", job.number, struct.pack("<I", mode) + path.encode())
        with open(source, "rb") as f:
            while chunk := f.read(CHUNK):
                self.send("D", job.number, chunk)
        self.send("C", job.number, b"")
        error = job.wait(timeout)
        if error:
            raise CommandFailed(f"{job.line}: {os.strerror(error)}")

    def send(self, kind, number, payload):
        frame = HEADER.pack(len(payload), number, ord(kind)) + payload
        try:
            with self._send_lock:
                self._sock.sendall(frame)
        except OSError as error:
            raise HostLost(f"the control port is closed: {error}") from None

    def close(self):
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _new_job(self, line):
        with self.changed:
            job = Job(self, self._next, line)
            self._next += 1
            self._jobs[job.number] = job
            job.lost = self._closed
        return job

    def _receive(self):
        try:
            while True:
                length, number, kind = HEADER.unpack(self._read(HEADER.size))
                self._handle(number, chr(kind), self._read(length))
        except OSError:
            pass
        with self.changed:
            self._closed = True
            for job in self._jobs.values():
                job.lost = job.code is None
            self.changed.notify_all()
        self._sock.close()

    def _read(self, length):
        data = bytearray()
        while len(data) < length:
            part = self._sock.recv(length - len(data))
            if not part:
                raise OSError("closed")
            data += part
        return bytes(data)

    def _handle(self, number, kind, payload):
        with self.changed:
            job = self._jobs.get(number)
            if kind == "H":
                self._hello = True
            elif kind == "E" and job:
                job.code = struct.unpack("<i", payload)[0]
                del self._jobs[number]
            elif job:
                job._output[kind] += payload
            self.changed.notify_all()


def wait_until(condition, timeout, what, poll=0.2):
    """Calls @condition until it returns something true, and returns that; TimeoutError names @what."""
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(poll)
