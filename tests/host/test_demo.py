#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`make demo` on a machine that has what Linux guests need: scripts/demo as it is, in one test host.

    test_demo.py [--build build]

The host gets python, ip and bash, the kernel in /boot and the modules of the guest where Debian has them, and what
`make demo-programs` built. The demo has to choose Linux by itself: it gets the processor that all guests in test hosts have, and time.
"""
import argparse
import os
import re
import shutil
import sys
import tempfile

from cluster import GUEST_CPU
from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import
from in_host import show_until_end
from images import TOP
# images has shown where these are
import linux_guest
from initramfs import Missing, kernel_image, module_files

PLACE = "/root/perdure"
PROGRAMS = ["perdure", "tests/vm/count_client", "guests/linux/count"]
FILES = ["scripts/demo", "scripts/netns-pair", "tests/lib/pair.py", "tests/lib/initramfs.py", "tests/lib/linux_guest.py"]
MEMORY_MIB = 3072  # the guest's is there three times: primary, its shadow, backup
PATIENCE, TIMEOUT = 600, 2400


def add_python(tree):
    """The interpreter and its library, as installed here."""
    tree.program("/usr/bin/python3")
    for directory, folders, files in os.walk(os.path.dirname(os.__file__)):
        folders[:] = [f for f in folders if f not in ("__pycache__", "test", "idlelib", "lib2to3", "ensurepip")]
        for name in files:
            if name.endswith(".py"):
                tree.file(f"{directory}/{name}")
            elif name.endswith(".so"):
                tree.program(f"{directory}/{name}")


def add_guest_kernel(tree, release):
    """Where scripts/demo looks for it."""
    tree.file(kernel_image(release))
    for name in ("modules.dep", "modules.builtin"):
        tree.file(f"/lib/modules/{release}/{name}")
    for path in module_files(release, linux_guest.MODULES):
        tree.file(path)


def add_demo(tree, build):
    for name in PROGRAMS:
        tree.program(f"{build}/{name}", f"{PLACE}/build/{name}")
    for name in FILES:
        tree.file(f"{TOP}/{name}", f"{PLACE}/{name}")


def build_image(build):
    def more(tree, release):
        add_python(tree)
        tree.program("/bin/bash")
        tree.program("/bin/ip", "/usr/sbin/ip")
        tree.symlink("/var/run", "/run")
        add_guest_kernel(tree, release)
        add_demo(tree, build)

    return images.build(f"{build}/host-demo", modules=["veth"], more=more)


def judge(job):
    """The demo judges itself; what is left is that it ran what it should."""
    require(job.code == 0, f"the demo ended with {job.code}")
    require(re.search(r"guest: +Linux \S+ \(this processor has svm", job.out), "the guest was not Linux")
    require(re.search(r"^demo: acknowledged=[1-9]\d* lost=0 duplicated=0 ", job.out, re.M), "no closing line with lost=0")
    require(re.search(r"^without output holding [1-9]\d* acknowledged requests were lost", job.out, re.M), "nothing was lost without holding")


def require(condition, what):
    if not condition:
        raise AssertionError(what)


def run_demo(image, log_dir):
    with Host(Net(), "A", image, log_dir, MEMORY_MIB) as host:
        host.start()
        job = host.spawn(f"cd {PLACE}; PATH=/usr/sbin:/usr/bin:$PATH exec scripts/demo --cpu {GUEST_CPU} --patience {PATIENCE}")
        show_until_end(job, TIMEOUT)
    judge(job)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=f"{TOP}/build")
    build = os.path.abspath(parser.parse_args().build)
    log_dir = tempfile.mkdtemp(prefix="perdure-host-")
    try:
        run_demo(build_image(build), log_dir)
    except Missing as missing:
        sys.exit(f"{sys.argv[0]}: {missing}")
    except (AssertionError, HostLost) as error:
        print(f"FAILED: {error}; logs: {log_dir}\ndemo-linux: 0 passed, 1 failed, 0 skipped")
        sys.exit(1)
    shutil.rmtree(log_dir)
    print("demo-linux: 1 passed, 0 failed, 0 skipped")


if __name__ == "__main__":
    main()
