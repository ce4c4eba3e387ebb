# SPDX-License-Identifier: GPL-2.0
"""The work of all CPUs, and marks for scripts/plugins/profile.c."""

import contextlib
import ctypes
import mmap
import os
import shutil
import time

from benchmark.system import BenchError, read_file

class Meter:
    """Measures the work of all CPUs: nanoseconds that they ran tasks other than the idle tasks,
    and context switches. read() sleeps first: the time of a task is counted when it leaves
    the CPU."""

    def __init__(self):
        # The cost of read() itself, without that of its first call.
        self.read()
        self.empty = [b - a for a, b in zip(self.read(), self.read())]
        self.start = self.read()

    @staticmethod
    def read():
        time.sleep(0.001)
        busy = sum(int(line.split()[7]) for line in read_file("/proc/schedstat").splitlines()
                   if line.startswith("cpu"))
        switches = next(int(line.split()[1]) for line in read_file("/proc/stat").splitlines()
                        if line.startswith("ctxt "))
        return busy, switches

    def stop(self, times):
        busy, switches = (b - a - e for a, b, e in zip(self.start, self.read(), self.empty))
        return {"cpu": busy / times, "ctxt": switches / times}


class Marks:
    """Tells scripts/plugins/profile.c which target is measured, like bench_io."""

    ADDRESS, SIZE = 0x10feed0000, 16

    def __init__(self):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
        at = libc.mmap(self.ADDRESS, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
                       mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        if at != self.ADDRESS:
            raise BenchError(f"mmap: {os.strerror(ctypes.get_errno())}")
        # ret
        ctypes.memset(at, 0xc3, mmap.PAGESIZE)

    def mark(self, number):
        ctypes.CFUNCTYPE(None)(self.ADDRESS + number * self.SIZE)()


@contextlib.contextmanager
def marked(ctx, number):
    """Marks a phase for the plugin: its work is counted for the target of this number."""
    if number is None:
        yield
        return
    ctx.marks = ctx.marks or Marks()
    ctx.marks.mark(number)
    try:
        yield
    finally:
        ctx.marks.mark(0)


def profile_number(ctx, target):
    """The number of the target for the plugin, or None without scripts/profile. Also saves the
    symbols of the kernel."""
    if not ctx.profile:
        return None
    # The address of the module can change from load to load.
    shutil.copy("/proc/kallsyms", f"{ctx.profile}-{target.name}.syms")
    return 1 + [t.name for t in ctx.targets].index(target.name)
