#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs one program of this machine in a test host, where real nested KVM is.

    in_host.py [--push FILE]... [--timeout SECONDS] PROGRAM [ARGUMENT...]

    in_host.py build/tests/vm/test_machine
    in_host.py build/perdure run --name t --memory 192M --net tap=tap0,id=n --console stdio --kernel /guest/vmlinuz \\
        --initrd /guest/initrd --cmdline "console=ttyS0 guest.ip=10.77.0.100/24"

The program is copied with its libraries and each FILE to the same path as here (relative ones below /root, where it is
started). In the host, /guest/vmlinuz and /guest/initrd are a Linux guest with redis, and tap0 leads to the network. Shows the
output as it comes and ends with the program's exit status, or 124 after the time.
"""
import argparse
import os
import shlex
import sys

from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import


def show_until_end(job, timeout):
    """Copies the output of @job to ours while it runs."""
    shown = {"out": 0, "err": 0}

    def copy():
        ended = not job.running
        for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
            text = getattr(job, name)
            stream.write(text[shown[name]:])
            stream.flush()
            shown[name] = len(text)
        return ended

    try:
        wait_until(copy, timeout, "the program ends")
        return job.wait(0)
    except TimeoutError:
        return 124


def main():
    parser = argparse.ArgumentParser(description="run a program in a test host")
    parser.add_argument("--push", action="append", default=[], metavar="FILE")
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    with Host(Net(), "A", images.build()) as host:
        host.start()
        for file in args.push:
            host.push(file, os.path.join("/root", file), os.stat(file).st_mode & 0o777)
        target = os.path.join("/root", args.program)
        host.push_program(args.program, target)
        job = host.spawn("cd /root; exec " + shlex.join([target, *args.arguments]))
        status = show_until_end(job, args.timeout)
    os.remove(host.console_log)
    sys.exit(status)


if __name__ == "__main__":
    main()
