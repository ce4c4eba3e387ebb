# SPDX-License-Identifier: GPL-2.0
"""Rows of plain I/O, named OP-qdN[-jM]-MODE[-STORE]; the store is brd if the name has none."""

import os

from benchmark.meter import profile_number
from benchmark.stores import make_full, make_sparse
from benchmark.system import drop_caches, run

OPS = {
    # Name: options of bench_io.
    "rr": [],
    "rw": ["-w", "100"],
    "sr": ["-s", "-b", "65536"],
    "sw": ["-s", "-b", "65536", "-w", "100"],
    "mix": ["-w", "30"],
    "fsync": ["-w", "100", "-F"],
    "trim": ["-T"],
    # 16 I/Os in a submission, as by readahead, file systems and users of io_uring.
    "rrb": ["-B", "16"],
    "rwb": ["-w", "100", "-B", "16"],
    # Sequential, every other I/O is a write.
    "smix": ["-s", "-w", "50"],
    # By io_uring, which submits with RWF_NOWAIT first.
    "rru": ["-u"],
    "rwu": ["-u", "-w", "100"],
}

# STORE, MODE, rows of it (OP-qdN[-jM]); the most important scenarios come first.
# MODE: buf: buffered, with the file in the page cache; cold: buffered, not in the page
# cache; dio: direct; punch: like buf, with the file filled again before each turn.
FULL = [
    ("brd", "buf", "rr-qd1 rw-qd1 sr-qd1 sw-qd1 rr-qd4 rr-qd32 rw-qd32 rrb-qd32 sr-qd32 sw-qd32"
     " rr-qd128 rw-qd128 rr-qd1-j4 rw-qd1-j4 rr-qd32-j4 rw-qd32-j4 rr-qd128-j4 mix-qd32"
     " fsync-qd1"),
    ("brd", "dio", "rr-qd1 rw-qd1 sr-qd1 sw-qd1 rr-qd4 rw-qd4 rr-qd32 rw-qd32 rrb-qd32 rwb-qd32"
     " sr-qd32 sw-qd32 rr-qd128 rw-qd128 rr-qd1-j4 rw-qd1-j4 rr-qd32-j4 rw-qd32-j4 rr-qd128-j4"
     " rw-qd128-j4 mix-qd32 fsync-qd1"),
    ("null0", "dio", "rr-qd1 rw-qd1 rr-qd4 rr-qd32 rw-qd32 rr-qd128 rr-qd32-j4 sr-qd32"),
    ("null2ms", "dio", "rr-qd1 rr-qd4 rr-qd32 rw-qd32 rr-qd128 rr-qd32-j4 mix-qd32"),
    ("null2ms", "cold", "rr-qd1 rr-qd4 rr-qd32 rr-qd128 rr-qd32-j4 sr-qd1 sr-qd32"),
    ("ext4", "buf", "rr-qd1 rw-qd1 sr-qd1 sw-qd1 rr-qd32 rw-qd32 fsync-qd1 mix-qd32"),
    ("ext4", "cold", "rr-qd32 sr-qd1"),
    ("ext4", "dio", "rr-qd1 rw-qd1 rr-qd32 rw-qd32 sr-qd32 sw-qd32 fsync-qd1 mix-qd32"),
    ("ext4", "punch", "trim-qd1 trim-qd1-j4"),
    ("xfs", "buf", "rr-qd1 rw-qd1 rr-qd32 rw-qd32 fsync-qd1"),
    ("xfs", "dio", "rr-qd1 rw-qd1 rr-qd32 rw-qd32 sr-qd32 fsync-qd1"),
    ("btrfs", "buf", "rr-qd1 rw-qd1 rr-qd32 rw-qd32 fsync-qd1"),
    ("btrfs", "dio", "rr-qd1 rw-qd1 rr-qd32 rw-qd32 sr-qd32 fsync-qd1"),
    ("ssd", "dio", "rr-qd1 rw-qd1 rr-qd4 rw-qd4 rr-qd32 rw-qd32 rr-qd128 rw-qd128"
     " rru-qd1 rwu-qd1 rru-qd4 rwu-qd4 rru-qd32 rwu-qd32 rru-qd128 rwu-qd128"),
    *((f"{fs}-{kind}", "dio", "rw-qd32 smix-qd16-j12 rw-qd16-j12")
      for fs in ("ext4", "xfs", "btrfs") for kind in ("sparse", "full")),
]
# With --icount the clock does not run while all tasks wait for a disk: only these stores give
# meaningful counts.
ICOUNT_STORES = ("brd", "null0")


class IoRow:
    def __init__(self, store, mode, spec):
        words = spec.split("-")
        self.op, self.store, self.mode = words[0], store, mode
        self.qd = int(words[1][2:])
        self.jobs = int(words[2][1:]) if len(words) > 2 else 1
        self.name = f"{spec}-{mode}" + ("" if store == "brd" else f"-{store}")
        self.scenario = (store, mode)
        self.icount = store in ICOUNT_STORES or self.name == "fsync-qd1-buf-ext4"
        self.unit, self.better = "IOPS", "higher"

    def has(self, target):
        # BLKDISCARD is an ioctl of block devices.
        return target != "file" or self.op != "trim"


def io_rows():
    return [IoRow(store, mode, spec) for store, mode, specs in FULL for spec in specs.split()]


def bench_io(ctx, path, options, cgroups=()):
    """One run of bench_io; returns its figures by name."""
    limit = [] if "-n" in options else ["-t", str(ctx.runtime)]
    out = run(ctx.tool, *options, *limit, path, *cgroups)
    return {k: float(v) for k, v in map(str.split, out.splitlines())}


def is_direct(row, target):
    # Always on a loop device: I/O in its page cache does not reach the driver. In mode cold also
    # on the file, which shows the limit of the disk.
    return target.driver is not None or row.mode in ("dio", "cold")


def io_once(row, target, path, backing, ctx):
    options = [*OPS[row.op], "-q", str(row.qd), "-j", str(row.jobs)]
    if is_direct(row, target):
        options.append("-d")
    if row.mode == "cold":
        drop_caches()
    if row.store.endswith("-sparse"):
        make_sparse(backing)
    if row.store.endswith("-full"):
        make_full(backing)
    if ctx.icount or ctx.profile:
        # Writeback of earlier rows must not count for this row.
        os.sync()
        options += ["-n", str(max(200, ctx.ios // (4 if row.op[0] == "s" else 1)) // row.jobs)]
    number = profile_number(ctx, target)
    if number is not None:
        options += ["-m", str(number)]
    got = bench_io(ctx, path, options)
    if ctx.icount:
        return {"value": got["busy"], "ctxt": got["switches"], "ios": got["ios"]}
    return {"value": got["ios"] * 1e9 / got["ns"], "ios": got["ios"], "p50": got["p50"],
            "p99": got["p99"], "p99.9": got["p99.9"], "cpu": got["busy"], "ctxt": got["switches"]}
