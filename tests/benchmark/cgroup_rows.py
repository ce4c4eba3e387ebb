# SPDX-License-Identifier: GPL-2.0
"""Rows of tasks in many cgroups, and of the memory of devices and cgroups."""

import contextlib
import glob
import mmap
import os
import time

from benchmark.attach_rows import CTL_ADD, ctl
from benchmark.io_rows import bench_io
from benchmark.system import read_file, run, write_file

CGROOT = "/sys/fs/cgroup"


def cgroup_dirs(number):
    """The directories of a number of cgroups, which are created if they do not exist."""
    top = f"{CGROOT}/loop_rs-bench"
    if not os.path.isdir(top):
        os.mkdir(top)
        write_file(f"{top}/cgroup.subtree_control", "+io +memory")
    dirs = [f"{top}/{i}" for i in range(number)]
    for d in dirs:
        if not os.path.isdir(d):
            os.mkdir(d)
    return dirs


def cgroup_remove_all():
    top = f"{CGROOT}/loop_rs-bench"
    if os.path.isdir(top):
        for d in os.listdir(top):
            if os.path.isdir(f"{top}/{d}"):
                os.rmdir(f"{top}/{d}")
        os.rmdir(top)


class CgroupRow:
    """A fixed number of tasks in a varying number of cgroups."""
    unit, better, icount = "IOPS", "higher", True

    def __init__(self, groups, tasks, mode):
        self.groups, self.tasks = groups, tasks
        self.mode = mode
        self.scenario = ("brd", mode)
        self.name = f"cg{groups}-t{tasks}-{mode}"

    @staticmethod
    def has(target):
        return True

    def measure(self, target, path, ctx):
        options = ["-j", str(self.tasks)]
        if target.driver or self.mode == "dio":
            options.append("-d")
        if ctx.icount:
            options += ["-n", str(max(10, ctx.ios // self.tasks))]
        with target.loaded(), target.device(path, self.mode) as dev:
            got = bench_io(ctx, dev, options, cgroup_dirs(self.groups))
        if ctx.icount:
            return {"value": got["busy"], "ctxt": got["switches"]}
        return {"value": got["ios"] * 1e9 / got["ns"], "p50": got["p50"], "p99": got["p99"],
                "p99.9": got["p99.9"], "cpu": got["busy"], "ctxt": got["switches"],
                "least": got["least"], "most": got["most"]}


def meminfo(*names):
    """The sum of values of /proc/meminfo in KiB, after all caches were shrunk."""
    for _ in range(2):
        os.sync()
        write_file("/proc/sys/vm/drop_caches", "3")
        time.sleep(0.3)
    # Slabs keep freed objects for later allocations.
    for cache in glob.glob("/sys/kernel/slab/*/shrink"):
        with contextlib.suppress(OSError):
            write_file(cache, "1")
    info = {k: int(v.split()[0]) for k, v in
            (line.split(":") for line in read_file("/proc/meminfo").splitlines())}
    # MemFree does not include free pages on per-CPU lists.
    info["MemFree"] += sum(int(line.split()[1]) for line in read_file("/proc/zoneinfo").splitlines()
                           if line.split()[0] == "count:") * mmap.PAGESIZE // 1024
    return sum(info[name] for name in names)


class MemoryDeviceRow:
    """Memory of an unused device."""
    name, unit, better, icount = "memory-device", "KiB", "lower", False
    scenario = ("brd", "memory")
    number = 100

    @staticmethod
    def has(target):
        return target != "file"

    def measure(self, target, path, ctx):
        with target.loaded():
            ctl(CTL_ADD, 999)
            before = meminfo("MemFree")
            for i in range(self.number):
                ctl(CTL_ADD, 1000 + i)
            return {"value": (before - meminfo("MemFree")) / self.number}


class MemoryCgroupRow:
    """Memory of a cgroup that is idle after one I/O on a device."""
    name, unit, better, icount = "memory-cgroup", "KiB", "lower", False
    scenario = ("brd", "memory")
    number = 1000

    @staticmethod
    def has(target):
        return target != "file"

    def measure(self, target, path, ctx):
        dirs = cgroup_dirs(self.number)
        with target.loaded():
            dev = run("losetup", "--find", "--show", path).strip()
            # First I/O on the backing device, for allocations that any I/O makes. MemFree would show
            # the memory of hundreds of tasks that were created and have ended.
            options = ["-d", "-j", str(self.number), "-n", "1"]
            bench_io(ctx, path, options, dirs)
            before = meminfo("Slab", "Percpu")
            bench_io(ctx, dev, options, dirs)
            value = (meminfo("Slab", "Percpu") - before) / self.number
            run("losetup", "--detach", dev)
        return {"value": value}
