#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds what a test host and the Linux guest in it boot from.

    images.py [--out build/host] [--perdure build/perdure]     builds everything, prints the paths

Two initramfs archives, each written only when something in it changed:

    host.cpio    busybox, ip, the modules for nested KVM and for the network, the control agent (agent.c), etcdctl, the
                 etcd arbiter script, perdure with its libraries, and for it to boot: /guest/vmlinuz, /guest/initrd
    guest.cpio   busybox, redis-server, the virtio modules and guestd (guestd.c)

The kernel of both is Debian's cloud kernel as the package linux-image-cloud-amd64 installs it. The archives are not
compressed: under emulation a guest takes longer to unpack than to read.
"""
import argparse
import glob
import hashlib
import io
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))

VIRTIO_MODULES = ["virtio_pci", "virtio_net"]
HOST_MODULES = VIRTIO_MODULES + ["virtio_console", "kvm-amd", "tun", "bridge"]

HOST_INIT = """#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /tmp /run/perdure /var/tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run && mkdir -p /run/perdure
for m in $(cat /lib/modules/order); do insmod /lib/modules/$m || echo "host: insmod $m failed"; done
[ -e /dev/net/tun ] || { mkdir -p /dev/net; mknod /dev/net/tun c 10 200; }
for w in $(cat /proc/cmdline); do case $w in host.*=*) w=${w#host.}; eval "host_${w%%=*}='${w#*=}'";; esac; done
hostname "$host_name"
ip link set lo up
# br0 joins the public card and the guest's tap: the guest's address may appear behind either host.
brctl addbr br0 && ip link set br0 address "$(cat /sys/class/net/eth0/address)" && brctl addif br0 eth0
for f in forward_delay multicast_snooping; do echo 0 > /sys/class/net/br0/bridge/$f; done
tunctl -t tap0 >/dev/null && brctl addif br0 tap0
for i in eth0 tap0 br0 eth1; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; ip link set $i up; done
ip addr add "$host_public" dev br0
ip addr add "$host_replication" dev eth1
for p in /sys/class/virtio-ports/*; do [ "$(cat $p/name)" = perdure.control ] && port=/dev/${p##*/}; done
echo "host: $host_name is up after $(cut -d' ' -f1 /proc/uptime) s, kvm: $(ls /dev/kvm)"
while :; do /bin/agent "$port"; echo "host: the agent ended"; sleep 1; done
"""

GUEST_INIT = """#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for m in $(cat /lib/modules/order); do insmod /lib/modules/$m; done
for w in $(cat /proc/cmdline); do case $w in guest.ip=*) ip=${w#*=};; esac; done
ip link set lo up
ip addr add "$ip" broadcast + dev eth0
ip link set eth0 up
redis-server --save "" --appendonly no --protected-mode no --bind 0.0.0.0 --maxmemory 32mb --logfile /redis.log &
until redis-cli ping >/dev/null 2>&1; do sleep 0.1; done
exec /bin/guestd "${ip%.*}.255" "GUEST-READY $ip $(nproc) cpus after $(cut -d' ' -f1 /proc/uptime) s"
"""


class Missing(Exception):
    """Something that has to be installed first; the text says what."""


@dataclass
class Images:
    kernel: str
    host: str
    guest: str
    tsc_khz: int


def kernel_release():
    """The newest cloud kernel that has both its image and its modules here."""
    found = [k[len("/boot/vmlinuz-"):] for k in glob.glob("/boot/vmlinuz-*-cloud-amd64")]
    found = [r for r in found if os.path.isfile(f"/lib/modules/{r}/modules.dep")]
    if not found:
        raise Missing("no cloud kernel in /boot: apt-get install linux-image-cloud-amd64")
    return max(found, key=lambda r: [int(n) for n in re.findall(r"\d+", r)])


def module_files(release, names):
    """The files of these modules and of all they need, in loading order."""
    base = f"/lib/modules/{release}"
    needs, path_of = {}, {}
    with open(f"{base}/modules.dep", encoding="ascii") as dep:
        for line in dep:
            path, _, rest = line.partition(":")
            needs[path] = rest.split()
            path_of[os.path.basename(path).split(".ko")[0].replace("-", "_")] = path
    order = []

    def add(path):
        # modules.dep lists what comes first last.
        for need in reversed(needs[path]):
            add(need)
        if path not in order:
            order.append(path)

    for name in names:
        path = path_of.get(name.replace("-", "_"))
        if path:  # else it is built in
            add(path)
    return [f"{base}/{path}" for path in order]


def shared_libraries(binary):
    """Every file that ldd names for this program, the loader among them."""
    out = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    lost = re.findall(r"(\S+) => not found", out)
    if lost:
        raise Missing(f"{binary} needs {', '.join(lost)}, which is not installed")
    return re.findall(r"(?:=> |^\s)(/\S+)", out, re.M)


class Tree:
    """The content of one archive: path -> (mode, bytes or a source file)."""

    def __init__(self):
        self.entries = {}

    def _parents(self, path):
        parent = os.path.dirname(path)
        if parent not in ("", "/") and parent not in self.entries:
            self._parents(parent)
            self.entries[parent] = (stat.S_IFDIR | 0o755, b"")

    def data(self, path, content, mode=0o644):
        self._parents(path)
        self.entries[path] = (stat.S_IFREG | mode, content)

    def directory(self, path):
        self._parents(path + "/x")

    def symlink(self, path, target):
        self._parents(path)
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode())

    def console(self):
        """The kernel opens /dev/console before anything can mount /dev."""
        self._parents("/dev/console")
        self.entries["/dev/console"] = (stat.S_IFCHR | 0o600, b"")

    def file(self, source, path=None):
        try:
            with open(source, "rb") as f:
                self.data(path or source, f.read(), 0o755 if os.access(source, os.X_OK) else 0o644)
        except FileNotFoundError:
            raise Missing(f"{source} is not there: install the package that has it") from None

    def program(self, source, path=None):
        self.file(source, path)
        for library in shared_libraries(source):
            if library not in self.entries:
                self.file(library)

    def busybox(self):
        self.file("/bin/busybox")
        names = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout
        for name in set(names.split()) - {"busybox"}:
            self.symlink(f"/bin/{name}", "busybox")

    def modules(self, release, names):
        files = module_files(release, names)
        for path in files:
            self.file(path, "/lib/modules/" + os.path.basename(path))
        self.data("/lib/modules/order", "\n".join(map(os.path.basename, files)).encode() + b"\n")

    def digest(self):
        h = hashlib.sha256()
        for path, (mode, content) in sorted(self.entries.items()):
            h.update(f"{path}\0{mode}\0{len(content)}\0".encode())
            h.update(content)
        return h.hexdigest()

    def write(self, target):
        """As a "newc" cpio archive, unless it is there already with the same content."""
        stamp = target + ".sha256"
        digest = self.digest()
        if os.path.exists(target) and os.path.exists(stamp):
            with open(stamp, encoding="ascii") as f:
                if f.read() == digest:
                    return target
        out = io.BytesIO()
        for ino, (path, (mode, content)) in enumerate(sorted(self.entries.items()), 1):
            write_cpio_entry(out, ino, path.lstrip("/"), mode, content)
        write_cpio_entry(out, 0, "TRAILER!!!", 0, b"")
        replace_file(target, out.getvalue())
        replace_file(stamp, digest.encode())
        return target


def write_cpio_entry(out, ino, name, mode, content):
    device = (5, 1) if stat.S_ISCHR(mode) else (0, 0)
    fields = (ino, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    out.write(b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0")
    out.write(b"\0" * (-out.tell() % 4))
    out.write(content)
    out.write(b"\0" * (-out.tell() % 4))


def replace_file(path, content):
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as f:
        f.write(content)
    os.replace(temporary, path)


def compile_static(out, name):
    """agent.c, guestd.c and tsckhz.c; the first two run where no library of ours is; the compiler runs only when the source is newer."""
    source, target = f"{HERE}/{name}.c", f"{out}/{name}"
    if not os.path.exists(target) or os.path.getmtime(target) < os.path.getmtime(source):
        subprocess.run(["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Werror",
                        "-static", "-o", f"{target}.{os.getpid()}", source], check=True)
        os.replace(f"{target}.{os.getpid()}", target)
    return target


def tsc_khz(out):
    """What every test host is told of its TSC: two that measured it would differ by more than KVM can make good."""
    return int(subprocess.run([compile_static(out, "tsckhz")], capture_output=True, text=True, check=True).stdout)


def guest_tree(out, release):
    tree = Tree()
    tree.busybox()
    tree.console()
    for directory in ("/proc", "/sys", "/dev", "/tmp"):
        tree.directory(directory)
    tree.modules(release, VIRTIO_MODULES)
    for name in ("redis-server", "redis-cli"):
        tree.program(f"/usr/bin/{name}")
    tree.file(compile_static(out, "guestd"), "/bin/guestd")
    tree.data("/init", GUEST_INIT.encode(), 0o755)
    return tree


def host_tree(out, release, guest, perdure, extra_programs, extra_files):
    tree = Tree()
    tree.busybox()
    tree.console()
    for directory in ("/proc", "/sys", "/dev", "/tmp", "/run", "/root"):
        tree.directory(directory)
    tree.modules(release, HOST_MODULES)
    tree.file(compile_static(out, "agent"), "/bin/agent")
    tree.program("/usr/bin/etcdctl")
    tree.file(f"{TOP}/contrib/arbiter-etcd", "/usr/lib/perdure/arbiter-etcd")
    if perdure:
        tree.program(perdure, "/usr/bin/perdure")
    for program in extra_programs:
        tree.program(program)
    for source, path in extra_files:
        tree.file(source, path)
    tree.file(f"/boot/vmlinuz-{release}", "/guest/vmlinuz")
    tree.file(guest, "/guest/initrd")
    tree.data("/init", HOST_INIT.encode(), 0o755)
    return tree


def build(out=f"{TOP}/build/host", perdure=None, extra_programs=(), extra_files=()):
    """Builds what changed and returns the paths.

    perdure         path of the program to put at /usr/bin/perdure with its libraries, or None
    extra_programs  more programs, each at its own path, with their libraries
    extra_files     pairs (source, path in the host)
    """
    os.makedirs(out, exist_ok=True)
    release = kernel_release()
    guest = guest_tree(out, release).write(f"{out}/guest.cpio")
    host = host_tree(out, release, guest, perdure, extra_programs, extra_files).write(f"{out}/host.cpio")
    return Images(f"/boot/vmlinuz-{release}", host, guest, tsc_khz(out))


def main():
    parser = argparse.ArgumentParser(description="build the images of the test hosts")
    parser.add_argument("--out", default=f"{TOP}/build/host")
    parser.add_argument("--perdure")
    args = parser.parse_args()
    try:
        images = build(args.out, args.perdure)
    except Missing as missing:
        sys.exit(f"images: {missing}")
    print(f"kernel {images.kernel}\nhost   {images.host}\nguest  {images.guest}")


if __name__ == "__main__":
    main()
