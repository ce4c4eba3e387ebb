# SPDX-License-Identifier: GPL-2.0
"""Labels for the rows of tests/bench, for scripts/bench-report and scripts/bench-plots."""

import re

OPS = {"rr": "4k random read", "rw": "4k random write", "sr": "64k read", "sw": "64k write",
       "mix": "4k, 70 % reads", "fsync": "4k write + fsync", "trim": "4k discard",
       "rrb": "4k random read, 16 per submit", "rwb": "4k random write, 16 per submit",
       "smix": "4k sequential, half writes", "rru": "4k random read, io_uring",
       "rwu": "4k random write, io_uring"}
MODES = {"buf": "buffered, cached", "cold": "buffered, not cached", "dio": "direct",
         "punch": "buffered"}
STORES = {"brd": "RAM disk (brd)", "null0": "null_blk, no delay", "null2ms": "null_blk, 2 ms",
          "ssd": "ext4 on null_blk, 80 µs",
          **{fs: f"{fs} on null_blk, 20 µs" for fs in ("ext4", "xfs", "btrfs")},
          **{f"{fs}-{kind}": f"{fs} on null_blk, 50 µs, {kind} file"
             for fs in ("ext4", "xfs", "btrfs") for kind in ("sparse", "full")}}
# Pattern of the name, group, label.
OTHERS = [
    (r"cg(\d+)-t(\d+)-buf", "cgroups", "{1} tasks in {0} cgroups, cached read"),
    (r"cg(\d+)-t(\d+)-dio", "cgroups", "{1} tasks in {0} cgroups, direct read"),
    (r"attach", "devices", "attach + detach, ioctls"),
    (r"losetup", "devices", "attach + detach, losetup"),
    (r"find-(\d+)", "devices", "losetup -f, {0} devices attached"),
    (r"squashfs", "devices", "squashfs: mount, ls -R, read all"),
    (r"stack-(\S+)-buf", "on top of a loop device, buffered", "read {0}, not cached"),
    (r"stack-(\S+)-dio", "on top of a loop device, direct", "read {0}, not cached"),
    (r"memory-device", "memory", "memory of a device"),
    (r"memory-cgroup", "memory", "memory of an idle cgroup")]
IO_ROW = re.compile(r"(?P<op>[a-z]+)-qd(?P<qd>\d+)(-j(?P<jobs>\d+))?-(?P<mode>[a-z]+)(-(?P<store>[\w-]+))?$")


def parse(name):
    """Splits the name of a row of plain I/O; None for other rows."""
    found = IO_ROW.match(name)
    if not found:
        return None
    row = found.groupdict()
    row["qd"], row["jobs"] = int(row["qd"]), int(row["jobs"] or 1)
    row["store"] = row["store"] or "brd"
    return row


def describe(name):
    """Group and label of a row."""
    row = parse(name)
    if row:
        jobs = f" × {row['jobs']} tasks" if row["jobs"] > 1 else ""
        return (f"{STORES.get(row['store'], row['store'])}, {MODES.get(row['mode'], row['mode'])}",
                f"{OPS.get(row['op'], row['op'])}, QD {row['qd']}{jobs}")
    for pattern, group, text in OTHERS:
        found = re.match(pattern + "$", name)
        if found:
            return group, text.format(*found.groups())
    return "other", name
