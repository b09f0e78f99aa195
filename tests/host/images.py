#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds what a test host and the Linux guest in it boot from.

    images.py [--out build/host] [--perdure build/perdure]     builds everything, prints the paths

Two initramfs archives, each written only when something in it changed:

    host.cpio    busybox, ip, the modules for nested KVM and for the network, the control agent (agent.c), etcdctl, the
                 etcd arbiter script, perdure with its libraries, and for it to boot: /guest/vmlinuz, /guest/initrd
    guest.cpio   busybox, redis-server, the modules for virtio and the power button, and guestd (guestd.c). With guest.disk=/dev/vda
                 on its command line redis is on that disk, and answers when what it did is there

The kernel of both is Debian's cloud kernel as the package linux-image-cloud-amd64 installs it. The archives are not
compressed: under emulation a guest takes longer to unpack than to read.
"""
import argparse
import os
import subprocess
import sys
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, f"{TOP}/tests/lib")
from initramfs import Missing, Tree, installed_kernels, kernel_image, shared_libraries  # noqa: E402 pylint: disable=wrong-import-position

VIRTIO_MODULES = ["virtio_pci", "virtio_net"]
HOST_MODULES = VIRTIO_MODULES + ["virtio_blk", "virtio_console", "kvm-amd", "tun", "bridge"]
GUEST_MODULES = VIRTIO_MODULES + ["virtio_blk", "virtio_console", "virtio_rng", "evdev", "button"]

HOST_SETUP = """#!/bin/sh
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
if [ -b /dev/vda ]; then mkdir /data && mount -t ext4 /dev/vda /data || echo "host: no /data"; fi
for p in /sys/class/virtio-ports/*; do [ "$(cat $p/name)" = perdure.control ] && port=/dev/${p##*/}; done
echo "host: $host_name is up after $(cut -d' ' -f1 /proc/uptime) s, kvm: $(ls /dev/kvm)"
"""

HOST_INIT = f"""{HOST_SETUP}
while :; do /bin/agent "$port"; echo "host: the agent ended"; sleep 1; done
"""

GUEST_INIT = """#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for m in $(cat /lib/modules/order); do insmod /lib/modules/$m; done
for w in $(cat /proc/cmdline); do case $w in guest.ip=*) ip=${w#*=};; guest.disk=*) disk=${w#*=};; esac; done
ip link set lo up
ip addr add "$ip" broadcast + dev eth0
ip link set eth0 up
acpid -f -l /acpid.log &
store="--appendonly no"
if [ "$disk" ]; then
    mkdir /data && mount -t ext4 "$disk" /data || { echo "guest: cannot mount $disk"; poweroff -f; }
    store="--dir /data --appendonly yes --appendfsync always"
fi
redis-server --save "" $store --protected-mode no --bind 0.0.0.0 --maxmemory 32mb --logfile /redis.log &
until [ "$(redis-cli ping 2>/dev/null)" = PONG ]; do sleep 0.1; done
exec /bin/guestd "${ip%.*}.255" "GUEST-READY $ip $(nproc) cpus after $(cut -d' ' -f1 /proc/uptime) s"
"""

# What the guest's acpid runs when the power button is pressed.
GUEST_POWER_BUTTON = """#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
redis-cli shutdown nosave
redis-cli ping >/dev/null 2>&1 || echo GUEST-SHUTDOWN redis has ended >/dev/console
sync
[ -d /data ] && { umount /data && echo GUEST-SHUTDOWN its disk is whole >/dev/console; }
poweroff -f
"""


@dataclass
class Images:
    kernel: str
    host: str
    guest: str
    tsc_khz: int


def kernel_release():
    """The newest cloud kernel that has both its image and its modules here."""
    for release in installed_kernels("*-cloud-amd64"):
        return release
    raise Missing("no cloud kernel in /boot: apt-get install linux-image-cloud-amd64")


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
    tree.modules(release, GUEST_MODULES)
    for name in ("redis-server", "redis-cli"):
        tree.program(f"/usr/bin/{name}")
    tree.file(compile_static(out, "guestd"), "/bin/guestd")
    tree.data("/etc/acpi/PWRF/00000080", GUEST_POWER_BUTTON.encode(), 0o755)
    tree.data("/init", GUEST_INIT.encode(), 0o755)
    return tree


def host_tree(out, release, guest, perdure, modules):
    tree = Tree()
    tree.busybox()
    tree.console()
    for directory in ("/proc", "/sys", "/dev", "/tmp", "/run", "/root"):
        tree.directory(directory)
    tree.modules(release, HOST_MODULES + modules)
    tree.file(compile_static(out, "agent"), "/bin/agent")
    tree.program("/usr/bin/etcdctl")
    tree.file(f"{TOP}/contrib/arbiter-etcd", "/usr/lib/perdure/arbiter-etcd")
    if perdure:
        tree.program(perdure, "/usr/bin/perdure")
    tree.file(kernel_image(release), "/guest/vmlinuz")
    tree.file(guest, "/guest/initrd")
    tree.data("/init", HOST_INIT.encode(), 0o755)
    return tree


def build(out=f"{TOP}/build/host", perdure=None, programs=(), modules=(), more=lambda tree, release: None):
    """Builds what changed and returns the paths.

    perdure   path of the program to put at /usr/bin/perdure with its libraries, or None
    programs  paths, from perdure's directory, of others that belong into /root
    modules   what the kernel of the hosts needs besides HOST_MODULES
    more      called with the Tree of the hosts and the kernel's release, to add to it
    """
    os.makedirs(out, exist_ok=True)
    release = kernel_release()
    guest = guest_tree(out, release).write(f"{out}/guest.cpio")
    tree = host_tree(out, release, guest, perdure, list(modules))
    for program in programs:
        tree.program(os.path.join(os.path.dirname(perdure), program), f"/root/{os.path.basename(program)}")
    more(tree, release)
    return Images(kernel_image(release), tree.write(f"{out}/host.cpio"), guest, tsc_khz(out))


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
