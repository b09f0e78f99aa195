# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk of a test host: ext4, on /data there, and still there after a power cut. On it lies the image of a guest's disk.

A power cut takes with it what the host had in its memory and had not flushed; what its disk was given stays.
"""
import os
import subprocess
import tempfile

HOST_DISK_BYTES, GUEST_DISK_BYTES = 1 << 30, 64 << 20
GUEST_DISK = "web.img"
AOF = "appendonlydir/appendonly.aof.manifest"


class Damaged(Exception):
    """A file system or a file of redis's is not whole."""


def tool(*command, allowed=(0,)):
    """Runs one of e2fsprogs or redis-check-aof here."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode not in allowed:
        raise Damaged(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def make_ext4(path, size, content=None):
    """A sparse file with an ext4 with a journal; @content: a directory whose files are to be in it."""
    with open(path, "wb") as f:
        f.truncate(size)
    # Nothing is left for the kernel to initialise later: the disk is as quiet as its guest.
    tool("mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", *(["-d", content] if content else []), path)


class DataDisk:
    """Made anew at @path. Unless @formatted, the guest's disk on it holds zeroes: what a standby begins with."""

    def __init__(self, path, formatted):
        self.path = path
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as content:
            image = f"{content}/{GUEST_DISK}"
            if formatted:
                make_ext4(image, GUEST_DISK_BYTES)
            else:
                with open(image, "wb") as f:
                    f.truncate(GUEST_DISK_BYTES)
            make_ext4(path, HOST_DISK_BYTES, content)

    def fetch(self, target):
        """Copies the guest's disk out of it. The host is off; if it lost power, its file system is recovered first."""
        tool("e2fsck", "-fp", self.path, allowed=(0, 1))
        tool("debugfs", "-R", f"dump /{GUEST_DISK} {target}", self.path)
        assert os.path.getsize(target) >= GUEST_DISK_BYTES, "the host's disk has no image of the guest's"
        return target


def check_guest_disk(image, crashed=False):
    """Raises Damaged unless ext4 and redis's file on a guest's disk are whole. @crashed: ext4's journal may have to be replayed."""
    if crashed:
        tool("e2fsck", "-fp", image, allowed=(0, 1))
    tool("e2fsck", "-fn", image)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(image)) as files:
        tool("debugfs", "-R", f"rdump /appendonlydir {files}", image)
        tool("redis-check-aof", f"{files}/{AOF}")
