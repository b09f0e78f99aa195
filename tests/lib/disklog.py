# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks of the guest `log` (guests/log.c, struct guest_log_record in guests/guest_abi.h), read from outside.

    make_disk(path)                                  # what a new disk holds: noise, different each time
    extra, mapping = disk_options([path_a...]), disk_options([path_b...])
    judge([path_b...], counter)                      # every record up to counter is there, whole, in order
"""
import array
import os
import random
import struct

from pair import Failure

RECORD = 512
MAGIC = 0x474F4C44455250
WORDS = RECORD // 8
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
DISK_BYTES = 8 << 20


def make_disk(path, size=DISK_BYTES, seed=None):
    numbers = random.Random(seed)
    with open(path, "wb") as f:
        for _ in range(size >> 20):
            f.write(numbers.randbytes(1 << 20))
    return path


def write_pattern(path, size=4 << 20):
    """64-bit numbers, counted from the beginning: what guests/irq.c expects to read."""
    with open(path, "wb") as f:
        f.write(array.array("Q", range(size // 8)).tobytes())


def disk_options(paths):
    options = []
    for i, path in enumerate(paths):
        options += ["--disk", "path=%s,id=disk%d" % (path, i)]
    return options


def check_of(words):
    check = 0
    for i, word in enumerate(words):
        if i != 7:
            check = (((check << 5 | check >> 59) & MASK) ^ word) * GOLDEN & MASK
    return check


def read_records(path):
    """number -> sector, of every whole record."""
    found = {}
    with open(path, "rb") as f:
        data = f.read()
    for sector in range(len(data) // RECORD):
        words = struct.unpack_from("<%dQ" % WORDS, data, sector * RECORD)
        if words[0] == MAGIC and words[7] == check_of(words):
            found[words[1]] = sector
    return found


def judge(paths, counter):
    """Every record that was acknowledged, up to the request number counter, is on every disk, whole and where it belongs; and at most one beyond what
    the guest had finished."""
    for path in paths:
        capacity = os.path.getsize(path) // RECORD
        records = read_records(path)
        newest = max(records, default=0)
        if newest < counter:
            raise Failure("%s: the newest record is %d, but %d were acknowledged" % (path, newest, counter))
        for number in range(max(1, newest - capacity + 2), newest + 1):
            if records.get(number) != (number - 1) % capacity:
                raise Failure("%s: record %d of %d is not there, or not whole" % (path, number, newest))
    return newest
