# SPDX-License-Identifier: GPL-2.0
"""Backing stores: disks, file systems and files."""

import contextlib
import os
import tempfile

from benchmark.system import MIB, modprobe, run

FILE_SIZE = 128 * MIB
SPARSE_SIZE = 512 * MIB


def fill(path, size):
    """Writes all blocks of a file, since I/O to holes costs less."""
    block = os.urandom(MIB)
    with open(path, "r+b" if os.path.exists(path) else "wb", buffering=0) as f:
        for _ in range(size // MIB):
            f.write(block)
        os.fsync(f.fileno())


@contextlib.contextmanager
def store_brd():
    modprobe("brd", "rd_nr=1", f"rd_size={FILE_SIZE // 1024}")
    try:
        fill("/dev/ram0", FILE_SIZE)
        yield "/dev/ram0"
    finally:
        run("rmmod", "brd")


@contextlib.contextmanager
def store_null(nsec):
    # Large, so that few blocks are used twice. null_blk takes no memory for it.
    params = ["gb=16", "nr_devices=1", "submit_queues=2", "irqmode=2" if nsec else "irqmode=0"]
    if nsec:
        params.append(f"completion_nsec={nsec}")
    modprobe("null_blk", *params)
    try:
        yield "/dev/nullb0"
    finally:
        run("rmmod", "null_blk")


@contextlib.contextmanager
def mounted(dev, kind, *options):
    where = tempfile.mkdtemp(prefix="bench.")
    try:
        run("mount", "-t", kind, "-o", ",".join(("noatime", *options)), dev, where)
        try:
            yield where
        finally:
            run("umount", where)
    finally:
        os.rmdir(where)


@contextlib.contextmanager
def new_fs(kind, dev):
    """A new file system; yields its mount point."""
    run("wipefs", "-qa", dev)
    options = {"ext4": ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-N", "4096"],
               "xfs": ["-qf"], "btrfs": ["-qf"]}[kind]
    size = ["1G"] if kind == "ext4" else []
    run(f"mkfs.{kind}", *options, dev, *size)
    with mounted(dev, kind) as where:
        yield where


@contextlib.contextmanager
def memory_disk(nsec):
    """A disk in memory with a latency of nsec nanoseconds."""
    modprobe("null_blk", "nr_devices=1", "gb=1", "memory_backed=1", "discard=1", "irqmode=2",
             f"completion_nsec={nsec}", "submit_queues=2", "hw_queue_depth=256", "no_sched=1")
    try:
        yield "/dev/nullb0"
    finally:
        run("rmmod", "null_blk")


@contextlib.contextmanager
def store_disk_fs(kind, nsec, sparse=False):
    with memory_disk(nsec) as dev, new_fs(kind, dev) as where:
        if sparse:
            with open(f"{where}/file", "wb") as f:
                f.truncate(SPARSE_SIZE)
        else:
            fill(f"{where}/file", FILE_SIZE)
        yield f"{where}/file"


def make_full(path):
    """Writes the whole file anew, since btrfs writes to other blocks each time. Drops its pages."""
    fill(path, FILE_SIZE)
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def make_sparse(path):
    """Makes the whole file a hole, as before the first write."""
    run("fallocate", "--punch-hole", "--offset", "0", "--length", str(SPARSE_SIZE), path)
    os.sync()
    # The disk frees the memory of freed blocks at a discard only.
    run("fstrim", os.path.dirname(path))


@contextlib.contextmanager
def store_stack():
    with memory_disk(200000) as dev, new_fs("ext4", dev) as where:
        yield where


STORES = {
    "brd": store_brd,
    "null0": lambda: store_null(0),
    "null2ms": lambda: store_null(2000000),
    "ext4": lambda: store_disk_fs("ext4", 20000),
    "xfs": lambda: store_disk_fs("xfs", 20000),
    "btrfs": lambda: store_disk_fs("btrfs", 20000),
    "ssd": lambda: store_disk_fs("ext4", 80000),
    "ext4-sparse": lambda: store_disk_fs("ext4", 50000, sparse=True),
    "ext4-full": lambda: store_disk_fs("ext4", 50000),
    "xfs-sparse": lambda: store_disk_fs("xfs", 50000, sparse=True),
    "xfs-full": lambda: store_disk_fs("xfs", 50000),
    "btrfs-sparse": lambda: store_disk_fs("btrfs", 50000, sparse=True),
    "btrfs-full": lambda: store_disk_fs("btrfs", 50000),
    "stack": store_stack,
}


def warm(ctx, path):
    """Reads the file into the page cache, with folios of the size that reads allocate. Also writes
    each block once: then the folios of a block device have buffers."""
    with open(path, "rb", buffering=0) as f:
        while f.read(MIB):
            pass
    run(ctx.tool, "-s", "-w", "100", "-n", str(FILE_SIZE // 4096), path)
    os.sync()
