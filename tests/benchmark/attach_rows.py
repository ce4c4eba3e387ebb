# SPDX-License-Identifier: GPL-2.0
"""Rows about attaching: by ioctl, by losetup, with many devices, and of a squashfs image."""

import contextlib
import fcntl
import os
import struct
import tempfile
import time

from benchmark.meter import Meter, marked, profile_number
from benchmark.system import BenchError, drop_caches, read_file, run, write_file
from benchmark.target import CTL_ADD, CTL_GET_FREE, ctl

LOOP_CLR_FD, LOOP_CONFIGURE = 0x4C01, 0x4C0A


def configure(dev, file):
    # struct loop_config: file, block size, struct loop_info64, reserved words.
    fcntl.ioctl(dev, LOOP_CONFIGURE, struct.pack("=II", file, 0) + bytes(232 + 64))


def attach_detach(path, times, check=False):
    """Attaches and detaches by ioctl; returns the nanoseconds of one attach and detach."""
    file = os.open(path, os.O_RDWR)
    start = time.monotonic_ns()
    for _ in range(times):
        number = ctl(CTL_GET_FREE)
        dev = os.open(f"/dev/loop{number}", os.O_RDWR)
        configure(dev, file)
        if check and not os.path.exists(f"/sys/block/loop{number}/loop"):
            raise BenchError(f"loop{number} is not attached after LOOP_CONFIGURE")
        fcntl.ioctl(dev, LOOP_CLR_FD, 0)
        os.close(dev)
        if check and os.path.exists(f"/sys/block/loop{number}/loop"):
            raise BenchError(f"loop{number} is still attached after LOOP_CLR_FD and close")
    ns = (time.monotonic_ns() - start) / times
    os.close(file)
    return ns


@contextlib.contextmanager
def quiet_console():
    """Suppresses console messages, as the boot option "quiet" does: a line on a serial port takes
    longer than an attach."""
    before = read_file("/proc/sys/kernel/printk").split()[0]
    write_file("/proc/sys/kernel/printk", "4")
    try:
        yield
    finally:
        write_file("/proc/sys/kernel/printk", before)


class AttachRow:
    name, unit, better = "attach", "ms", "lower"
    scenario = ("brd", "attach")
    icount = True

    @staticmethod
    def has(target):
        return target != "file"

    @staticmethod
    def measure(target, path, ctx):
        with target.loaded():
            # The kernel logs at most ten capacity changes in 5 s: wait, so that each driver has the
            # same budget.
            time.sleep(5.5)
            attach_detach(path, 1, check=True)
            number = profile_number(ctx, target)
            meter = Meter()
            with quiet_console(), marked(ctx, number):
                ns = attach_detach(path, ctx.attaches)
            used = meter.stop(ctx.attaches)
        if ctx.icount:
            return {"value": used["cpu"], "ctxt": used["ctxt"], "ios": ctx.attaches}
        return {"value": ns / 1e6, **used}


class LosetupRow(AttachRow):
    """Attach and detach with losetup."""
    name = "losetup"
    icount = False

    @staticmethod
    def measure(target, path, ctx):
        with target.loaded():
            times = 5
            start = time.monotonic_ns()
            for _ in range(times):
                dev = run("losetup", "--find", "--show", path).strip()
                run("losetup", "--detach", dev)
            return {"value": (time.monotonic_ns() - start) / times / 1e6}


class FindRow:
    """losetup -f while a number of devices are attached."""
    unit, better, icount = "ms", "lower", False
    scenario = ("brd", "find")
    times = 10

    def __init__(self, devices):
        self.devices, self.name = devices, f"find-{devices}"

    @staticmethod
    def has(target):
        return target != "file"

    def measure(self, target, path, ctx):
        with target.loaded():
            file = os.open(path, os.O_RDONLY)
            held = []
            for i in range(self.devices):
                if not os.path.exists(f"/sys/block/loop{i}"):
                    ctl(CTL_ADD, i)
                dev = os.open(f"/dev/loop{i}", os.O_RDONLY)
                configure(dev, file)
                held.append(dev)
            os.close(file)
            try:
                # The first call creates the device.
                free = run("losetup", "--find").strip()
                if free != f"/dev/loop{self.devices}":
                    raise BenchError(f"losetup --find with {self.devices} devices attached says {free}")
                start = time.monotonic_ns()
                for _ in range(self.times):
                    run("losetup", "--find")
                ns = (time.monotonic_ns() - start) / self.times
                start = time.monotonic_ns()
                for _ in range(self.times):
                    ctl(CTL_GET_FREE)
                ioctl = (time.monotonic_ns() - start) / self.times
            finally:
                for dev in held:
                    fcntl.ioctl(dev, LOOP_CLR_FD, 0)
                    os.close(dev)
        return {"value": ns / 1e6, "ioctl_us": ioctl / 1e3}


class SquashfsRow:
    """The use of a squashfs image: attach, mount, ls -R, read all files, unmount, detach."""
    name, unit, better, icount = "squashfs", "ms", "lower", False
    scenario = ("ext4", "squashfs")

    @staticmethod
    def has(target):
        return target != "file"

    @staticmethod
    def measure(target, path, ctx):
        image = f"{os.path.dirname(path)}/squashfs"
        if not os.path.exists(image):
            run("mksquashfs", os.path.dirname(os.__file__), image, "-comp", "lz4", "-no-progress", "-quiet")
        where = tempfile.mkdtemp(prefix="bench.")
        with target.loaded():
            drop_caches()
            start = time.monotonic_ns()
            dev = run("losetup", "--find", "--show", "--read-only", image).strip()
            run("mount", "-t", "squashfs", "-o", "ro", dev, where)
            run("ls", "-R", where)
            run("sh", "-c", f"find {where} -type f -print0 | xargs -0 cat >/dev/null")
            run("umount", where)
            run("losetup", "--detach", dev)
            ns = time.monotonic_ns() - start
        os.rmdir(where)
        return {"value": ns / 1e6}
