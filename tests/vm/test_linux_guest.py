#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demo's Linux guest is made of, as far as it can be seen without booting it (tests/host/test_demo.py does): process 1 in namespaces
of its own, the choice of a kernel, the initrd: test_linux_guest.py [--build build] [test_NAME...]"""
import lzma
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from initramfs import Missing  # noqa: E402
from linux_guest import initrd_tree, usable_kernel, virtualization  # noqa: E402
from pair import GUEST_IP  # noqa: E402
from scenario import CountClient, ask, assert_well, require, run_tests  # noqa: E402


# --- process 1 ---

def run_process(pair, *options, card="eth0"):
    """guests/linux/count as process 1 of namespaces on host a, with a card that is one end of a cable to the public network."""
    subprocess.run(["ip", "-n", pair.a.netns, "link", "add", card, "type", "veth", "peer", "name", card + "-end"], check=True)
    subprocess.run(["ip", "-n", pair.a.netns, "link", "set", card + "-end", "master", "br0", "up"], check=True)
    return start_process(pair, *options)


def start_process(pair, *options):
    program = os.path.join(os.path.dirname(pair.program), "guests/linux/count")
    process = subprocess.Popen(["ip", "netns", "exec", pair.a.netns, "unshare", "--pid", "--mount", "--fork", "--kill-child", program, *options],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    pair.helpers.append(process)
    return process


def read_until(process, text):
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return
    require(False, "no '%s'" % text, seen)


def test_answers_as_count(pair):
    process = run_process(pair, "ip=" + GUEST_IP, "pages=16", "dirty=3")
    read_until(process, "count: running")
    before = assert_well(pair)
    require((before["name"], before["cpus"]) == ("count", 1), "the name", before)
    client = CountClient(pair)
    pair.wait(lambda: ask(pair, "status")["counter"] > 500, 20, "500 requests")
    result = client.finish()
    after = assert_well(pair, before)
    require(after["clients"] == 1 and after["counter"] >= result["acknowledged"], "the counter", after, result)
    ask(pair, "print", "said by the client")
    read_until(process, "said by the client")
    require(not ask(pair, "triple-fault", check=False), "what it cannot do was carried out")
    assert_well(pair, after)


def test_a_lost_guest_is_found(pair):
    """A new one in place of the old knows of nothing that was acknowledged: the client must see it."""
    process = run_process(pair, "ip=" + GUEST_IP)
    read_until(process, "count: running")
    client = CountClient(pair)
    pair.wait(lambda: ask(pair, "status")["counter"] > 100, 20, "100 requests")
    process.kill()
    process.wait()
    read_until(start_process(pair, "ip=" + GUEST_IP), "count: running")
    pair.wait(lambda: ask(pair, "status")["counter"] > 0, 20, "requests to the new guest")
    result = client.result()
    require(result["lost"] > 100 and result["reboots"] == 1, "the loss was not seen", result)


def test_ends(pair):
    """In a process namespace power-off and reset are the death of its process 1."""
    process = run_process(pair, "ip=" + GUEST_IP)
    for op in ("poweroff", "reset"):
        read_until(process, "count: running")
        ask(pair, op)
        require(process.wait(20) != 0, "it ended by itself")
        process = start_process(pair, "ip=" + GUEST_IP)


def test_gives_up(pair):
    """Says what is missing, and ends."""
    process = run_process(pair, "ip=10.98.0.999")
    read_until(process, "ip=")
    process.wait(20)
    process = start_process(pair)
    read_until(process, "ip=")
    process.wait(20)
    subprocess.run(["ip", "-n", pair.a.netns, "link", "set", "eth0", "name", "eth1"], check=True)
    process = start_process(pair, "ip=" + GUEST_IP)
    read_until(process, "eth0")
    process.wait(20)


# --- kernel and initrd ---

def put(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(content)


def install(root, release, modules, built_in=(), image=True):
    """A kernel below root. modules: file -> the files that it needs."""
    base = f"{root}/lib/modules/{release}"
    if image:
        put(f"{root}/boot/vmlinuz-{release}", b"kernel")
    for path in modules:
        content = b"module " + path.encode()
        put(f"{base}/{path}", lzma.compress(content) if path.endswith(".xz") else content)
    put(f"{base}/modules.dep", "".join(f"{path}: {' '.join(needs)}\n" for path, needs in modules.items()).encode())
    put(f"{base}/modules.builtin", "".join(f"{path}\n" for path in built_in).encode())


VIRTIO = {"v/virtio.ko.xz": [], "v/virtio_ring.ko.xz": ["v/virtio.ko.xz"], "v/virtio-pci.ko": ["v/virtio_ring.ko.xz", "v/virtio.ko.xz"],
          "n/virtio_net.ko": ["v/virtio_ring.ko.xz", "v/virtio.ko.xz"]}


def order(tree):
    return tree.entries["/lib/modules/order"][1].decode().split()


def test_modules_in_order_and_unpacked(pair):
    install(pair.dir, "6.1.0-9-test", VIRTIO)
    tree = initrd_tree(pair.program, "6.1.0-9-test", pair.dir)
    require(order(tree) == ["virtio.ko", "virtio_ring.ko", "virtio-pci.ko", "virtio_net.ko"], "the order", order(tree))
    require(tree.entries["/lib/modules/virtio.ko"][1] == b"module v/virtio.ko.xz", "the content", tree.entries["/lib/modules/virtio.ko"])


def test_choice_of_a_kernel(pair):
    """The running one, else the newest that is whole."""
    program = pair.program
    for release in ("6.1.0-9-test", "6.1.0-10-test"):
        install(pair.dir, release, VIRTIO)
    install(pair.dir, "5.10.0-1-test", {}, ["v/virtio_pci.ko", "n/virtio_net.ko"])
    install(pair.dir, "6.1.0-11-test", VIRTIO, image=False)
    install(pair.dir, "6.1.0-12-test", {"v/virtio_pci.ko": []})
    install(pair.dir, "6.1.0-13-test", {"v/virtio_pci.ko": [], "n/virtio_net.ko.new": []})
    put(f"{pair.dir}/boot/vmlinuz-6.1.0-14-test", b"kernel without modules")
    require(usable_kernel(program, pair.dir, "none")[0] == "6.1.0-10-test", "not the newest", usable_kernel(program, pair.dir, "none")[0])
    require(usable_kernel(program, pair.dir, "6.1.0-9-test")[0] == "6.1.0-9-test", "not the running one")
    release, tree = usable_kernel(program, pair.dir, "5.10.0-1-test")
    require((release, order(tree)) == ("5.10.0-1-test", []), "not the running one with all of it built in", release, order(tree))


def no_kernel(pair):
    try:
        return "found " + usable_kernel(pair.program, pair.dir, "none")[0]
    except Missing as missing:
        return str(missing)


def test_no_kernel(pair):
    """The reason is said."""
    os.makedirs(f"{pair.dir}/boot")
    require("no kernel" in no_kernel(pair), "the reason", no_kernel(pair))
    install(pair.dir, "6.1.0-1-test", {"v/virtio_pci.ko": []})
    require("6.1.0-1-test has no virtio_net" in no_kernel(pair), "the reason", no_kernel(pair))


def test_the_processor(pair):
    for flags, want in (("fpu vmx sse", "vmx"), ("fpu sse svm", "svm"), ("fpu svm_lock avmx", None)):
        put(f"{pair.dir}/proc/cpuinfo", f"processor\t: 0\nmodel name\t: svm vmx\nflags\t\t: {flags}\nbugs\t\t: svm\n".encode())
        require(virtualization(pair.dir) == want, "for " + flags, virtualization(pair.dir))


if __name__ == "__main__":
    run_tests("linux-guest", globals())
