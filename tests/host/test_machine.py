#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests of the machine (tests/vm) on the KVM of a test host: nested pages and TSC offsets, which the build machine's KVM may lack.

    test_machine.py [--perdure build/perdure] [WORD...]

A test host has one processor: what these guests' processors do at the same time is for the build machine.
"""
import runner
from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import

PROGRAMS = ["test_machine", "test_machine_irq", "test_machine_state"]
TIMEOUT = 300


class OneHost:
    """`with OneHost(...) as host` starts and ends it."""

    def __init__(self, net, image, log_dir):
        self.host = Host(net, "A", image, log_dir=log_dir)

    def __enter__(self):
        self.host.start()
        return self.host

    def __exit__(self, *_):
        self.host.close()


def passes(host, program):
    job = host.run(f"cd /root && exec ./{program} 2>&1", timeout=TIMEOUT, check=False)
    assert job.code == 0, job.out


def test_machine(host):
    passes(host, "test_machine")


def test_machine_irq(host):
    passes(host, "test_machine_irq")


def test_machine_state(host):
    """Among them: the TSCs of a machine's processors stay together, whenever each was read."""
    passes(host, "test_machine_state")


if __name__ == "__main__":
    runner.main(globals(), "the machine's tests on another KVM", OneHost, programs=[f"tests/vm/{p}" for p in PROGRAMS])
