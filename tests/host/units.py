# SPDX-License-Identifier: GPL-2.0-or-later
"""Test hosts in which systemd is process 1 and has perdure's units (contrib/systemd), as `make install PREFIX=/usr` would leave them.

The host's setup (images.py) comes first and then is systemd, which has the control agent as one of its units. Of Debian's units a host has what a
service needs that logs and waits for the network. What an administrator configures lies on the host's disk: /etc/systemd and
/etc/perdure are there again after a power cut.
"""
import glob
import os

from images import HOST_SETUP, TOP

PROGRAMS = ["/lib/systemd/systemd", "/lib/systemd/systemd-journald", "/bin/systemctl", "/bin/journalctl"]
DEBIAN_UNITS = ["basic.target", "sysinit.target", "sockets.target", "multi-user.target", "network.target", "network-online.target",
                "paths.target", "slices.target", "timers.target", "local-fs.target", "shutdown.target", "umount.target", "final.target",
                "systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"]
WANTED = {"sysinit.target": ["systemd-journald.service"], "sockets.target": ["systemd-journald.socket", "systemd-journald-dev-log.socket"],
          "multi-user.target": ["agent.service"]}
UNITS = "/lib/systemd/system"

INIT = f"""{HOST_SETUP}
for d in systemd perdure; do mkdir -p /data/etc/$d /etc/$d && mount --bind /data/etc/$d /etc/$d; done
echo "PORT=$port" >/run/agent
exec /lib/systemd/systemd --log-target=console --log-level=notice --show-status=no
"""

AGENT = """[Unit]
Description=The harness's way into this host
[Service]
Environment=PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/
EnvironmentFile=/run/agent
ExecStart=/bin/agent $PORT
Restart=always
"""


def add_systemd(tree):
    for program in PROGRAMS:
        tree.program(program)
    for unit in DEBIAN_UNITS:
        tree.file(f"{UNITS}/{unit}")
    for target, units in WANTED.items():
        for unit in units:
            tree.symlink(f"{UNITS}/{target}.wants/{unit}", f"../{unit}")
    tree.symlink(f"{UNITS}/default.target", "multi-user.target")
    tree.data(f"{UNITS}/agent.service", AGENT.encode())
    # Without an id of its own systemd takes this for the host's first boot and enables what it likes.
    tree.data("/etc/machine-id", b"0123456789abcdef0123456789abcdef\n")
    tree.data("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    tree.data("/etc/group", b"root:x:0:\n")
    tree.symlink("/var/run", "/run")


def add_units(tree):
    """Perdure's."""
    for source in glob.glob(f"{TOP}/contrib/systemd/*"):
        with open(source, encoding="utf-8") as f:
            text = f.read().replace("@PREFIX@", "/usr")
        tree.data(f"{UNITS}/{os.path.basename(source).removesuffix('.in')}", text.encode())


def more(tree, _release):
    """For images.build()."""
    add_systemd(tree)
    add_units(tree)
    tree.data("/init", INIT.encode(), 0o755)
