# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guest the demo runs: Linux, where this machine has the processor and a kernel for it, else the embedded `count`.

Both answer the same requests (guests/guest_abi.h). Linux takes a kernel of this machine as it is, and an initrd of one program
(guests/linux/count.c) and the modules for a virtio-net that this kernel does not have built in.

    guest = choose("auto", build="build", ip="10.98.0.10")
    print(guest.name, guest.why)
    host.run(guest.kernel, guest.cmdline, memory=guest.memory, extra=guest.options)
"""
import os
import re
from dataclasses import dataclass, field

from initramfs import Missing, Tree, installed_kernels, kernel_image

MODULES = ["virtio_pci", "virtio_net"]


@dataclass
class Guest:
    name: str
    why: str
    kernel: str  # as `perdure run --kernel` takes it
    cmdline: str
    memory: str
    options: list = field(default_factory=list)  # more words for `perdure run`


def virtualization(root=""):
    """vmx, svm or None. Without either KVM emulates the guest's kernel, which Linux would need many minutes to boot with."""
    with open(f"{root}/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        found = re.search(r"^flags\s*:.*\b(vmx|svm)\b", f.read(), re.M)
    return found and found[1]


def initrd_tree(program, release, root=""):
    tree = Tree()
    tree.console()
    tree.file(program, "/init")
    tree.modules(release, MODULES, root)
    return tree


def usable_kernel(program, root="", running=os.uname().release):
    """A release and the content of its initrd: the running kernel if it can be had, else the newest. Missing says why none will do."""
    releases = installed_kernels(root=root)
    reason = "/boot has no kernel that can be read and has its modules in /lib/modules"
    for release in sorted(releases, key=lambda r: r != running):
        try:
            return release, initrd_tree(program, release, root)
        except Missing as missing:
            reason = str(missing)
    raise Missing(reason)


def linux(build, ip, why):
    release, tree = usable_kernel(f"{build}/guests/linux/count")
    initrd = tree.write(f"{build}/guests/linux/initrd-{release}")
    return Guest(f"Linux {release}", why, kernel_image(release), f"console=ttyS0 quiet panic=-1 -- ip={ip}", "256M", ["--initrd", initrd])


def count(ip, why):
    return Guest("count", why, "builtin:count", f"ip={ip}", "64M")


def choose(wanted, build, ip):
    """@wanted: auto, count or linux. Raises Missing when Linux is wanted and cannot be had."""
    feature = virtualization()
    if wanted == "count":
        return count(ip, "asked for")
    if wanted == "linux":
        return linux(build, ip, "asked for" if feature else "asked for; this processor has neither vmx nor svm: it boots for many minutes")
    if not feature:
        return count(ip, "embedded: this processor shows neither vmx nor svm, so Linux would take many minutes to boot")
    try:
        return linux(build, ip, f"this processor has {feature}, and /boot the kernel")
    except Missing as missing:
        return count(ip, f"embedded: no Linux: {missing}")
