# SPDX-License-Identifier: GPL-2.0
"""The disk, the backing files on it, and loop devices over these files."""

import os
import pathlib

from tenants.cgroups import in_cgroup
from tenants.system import MIB, Failed, retry, run, wait_for

# The victim has the first part of each file, each neighbour a part after it.
VICTIM_SIZE = 16 * MIB
MOST_NEIGHBOURS = 16
NEIGHBOUR_SIZE = 4 * MIB
FILE_SIZE = VICTIM_SIZE + MOST_NEIGHBOURS * NEIGHBOUR_SIZE


class Disk:
    """A block device with a file system on it, and a tmpfs."""

    # Only the neighbours and the victim may write, hence no lazy initialization.
    MKFS = {
        "ext4": ["mkfs.ext4", "-qF", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
                 "-N", "1024", "-J", "size=8"],
        "xfs": ["mkfs.xfs", "-qfK"],
        "btrfs": ["mkfs.btrfs", "-qfK"],
    }

    def __init__(self, kind, fs, latency, tmp, stack):
        self.what = "a scratch disk of the virtual machine"
        self.dev = os.environ.get("SCRATCH_DEV", "")
        if kind == "null":
            run("modprobe", "null_blk", "nr_devices=1", "gb=1", "memory_backed=1", "irqmode=2",
                f"completion_nsec={latency * 1000}", "hw_queue_depth=1024", "cache_size=64",
                "no_sched=1", "submit_queues=1")
            stack.callback(retry, run, "modprobe", "-r", "null_blk")
            self.what = f"null_blk in memory, each request taking {latency} us"
            self.dev = "/dev/nullb0"
            wait_for(10, self.dev, lambda: os.path.exists(self.dev))
        elif not os.path.exists(self.dev):
            raise Failed("SCRATCH_DEV is not a block device")
        name = os.path.basename(self.dev)
        self.number = pathlib.Path(f"/sys/class/block/{name}/dev").read_text().strip()
        self.fs = tmp / fs
        self.tmpfs = tmp / "tmpfs"
        for where, command in (
                (self.fs, ["mount", "-o", "noatime", self.dev]),
                (self.tmpfs, ["mount", "-t", "tmpfs", "-o", f"size={3 * FILE_SIZE}", "none"])):
            where.mkdir()
            if where == self.fs:
                run(*self.MKFS[fs], self.dev, *(["512M"] if fs == "ext4" else []))
            run(*command, where)
            stack.callback(retry, run, "umount", where)

    def directory(self, scenario):
        return self.tmpfs if scenario.backing == "tmpfs" else self.fs


def fill(path, cgroup):
    """Creates a file, written in a cgroup; all blocks, so that none are allocated during the
    measurement. Drops its pages."""
    path.unlink(missing_ok=True)
    run("dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={FILE_SIZE // MIB}", "conv=fsync",
        preexec_fn=in_cgroup(cgroup))
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


class Loop:
    """A loop device over a file."""

    def __init__(self, file, direct):
        self.file = file
        self.dev = run("losetup", "--find", "--show", f"--direct-io={'on' if direct else 'off'}",
                       file)
        self.sys = pathlib.Path("/sys/block") / os.path.basename(self.dev)
        if (self.sys / "loop/dio").read_text().strip() != str(int(direct)):
            raise Failed(f"{self.dev} has not the direct I/O that was asked for")

    def detach(self):
        run("losetup", "--detach", self.dev)
        wait_for(20, f"detaching {self.dev}", lambda: not (self.sys / "loop").exists())

    def in_flight(self):
        """From "stat", which includes I/O without a tag."""
        return int((self.sys / "stat").read_text(encoding="ascii").split()[8])
