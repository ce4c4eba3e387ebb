# SPDX-License-Identifier: GPL-2.0
"""Measures a scenario on both drivers, in rounds."""

import contextlib
import pathlib

from tenants.cgroups import CGROOT, PARENT, cg_create, cg_remove
from tenants.disk import VICTIM_SIZE, Loop, fill
from tenants.neighbours import Neighbours
from tenants.scenarios import IOPS
from tenants.system import MIB, retry, run, say, write
from tenants.victim import victim

# Writing one of them resets the other.
DIRTY_RATIO = pathlib.Path("/proc/sys/vm/dirty_ratio")
DIRTY_BYTES = pathlib.Path("/proc/sys/vm/dirty_bytes")

PARTS = ("alone", "control", "shared")


class Bench:
    def __init__(self, args, tmp, disk):
        self.seconds, self.tmp, self.disk, self.io = args.seconds, tmp, disk, args.io
        self.module = args.module
        self.cgroups = []

    def part(self, scenario, which, devices):
        own = devices["neighbour"], devices["victim"]
        neighbours = None
        try:
            if which != "alone":
                neighbours = Neighbours(self, scenario, own[which == "shared"])
                neighbours.start()
                neighbours.wait_until_held()
            return victim(self, scenario, devices["victim"].dev, neighbours, self.seconds)
        finally:
            if neighbours:
                neighbours.stop()

    def driver(self, scenario, driver, number):
        """All parts on one driver, freshly loaded."""
        with contextlib.ExitStack() as stack:
            if driver == "loop":
                run("modprobe", "loop", "max_loop=2")
            else:
                run("insmod", self.module, "max_loop=2")
            stack.callback(retry, run, "rmmod", driver)
            devices = {}
            for name in ("victim", "neighbour"):
                file = self.disk.directory(scenario) / name
                devices[name] = Loop(file, scenario.backing == "direct")
                stack.callback(devices[name].detach)
                if scenario.backing != "direct":
                    # Reads are served from the page cache.
                    run("dd", f"if={file}", "of=/dev/null", "bs=1M", f"count={VICTIM_SIZE // MIB}")
            # Warm up all caches, also those of the emulator.
            victim(self, scenario, devices["victim"].dev, None, 0.5)
            # In alternating order, since the machine changes with time.
            parts = PARTS[::-1] if number % 2 else PARTS
            done = {which: self.part(scenario, which, devices) for which in parts}
            return {which: done[which] for which in PARTS}

    def iocost(self, on):
        """With this cost model the disk has time for IOPS writes per second of each neighbour."""
        if on:
            write(CGROOT / "io.cost.model",
                  f"{self.disk.number} ctrl=user model=linear rbps={1 << 40} rseqiops=100000"
                  f" rrandiops=100000 wbps={1 << 40} wseqiops={IOPS * 4} wrandiops={IOPS * 4}")
            write(CGROOT / "io.cost.qos",
                  f"{self.disk.number} enable=1 ctrl=user min=100.00 max=100.00")
            write(PARENT / "victim/io.weight", "default 10000")
        else:
            write(CGROOT / "io.cost.qos", f"{self.disk.number} enable=0")

    def scenario(self, scenario, rounds):
        with contextlib.ExitStack() as stack:
            stack.callback(cg_remove, PARENT)
            controllers = "+memory +io"
            cg_create(PARENT, controllers)
            cg_create(PARENT / "victim")
            cg_create(PARENT / "victims", controllers)
            cg_create(PARENT / "victims/a", controllers)
            cg_create(PARENT / "victims/a/b")
            self.cgroups = [CGROOT]
            if not scenario.root:
                self.cgroups = [cg_create(PARENT / f"n{i}") for i in range(scenario.neighbours)]
            if scenario.dirty_limit:
                stack.callback(write, DIRTY_RATIO, DIRTY_RATIO.read_text().strip())
                write(DIRTY_BYTES, scenario.dirty_limit)
            if scenario.iocost:
                stack.callback(self.iocost, False)
                self.iocost(True)
            # The writeback of a file belongs to the cgroup that has dirtied most of it for some
            # time: for buffered I/O, to a neighbour from the start.
            for name in ("victim", "neighbour"):
                fill(self.disk.directory(scenario) / name,
                     self.cgroups[0] if scenario.backing == "buffered" else CGROOT)
            result = {driver: {part: {} for part in PARTS} for driver in ("loop", "loop_rs")}
            for number in range(rounds):
                drivers = ["loop", "loop_rs"]
                if number % 2:
                    drivers.reverse()
                for driver in drivers:
                    parts = self.driver(scenario, driver, number)
                    for part, figures in parts.items():
                        for name, value in figures.items():
                            result[driver][part].setdefault(name, []).append(value)
                    say(f"  round {number + 1}, {driver + ':':8} " + results_line(parts))
            return result


def results_line(parts):
    """A line with the results."""
    p99 = ["never" if p["p99_ms"] is None else f"{p['p99_ms']:.2f}" for p in parts.values()]
    return (", ".join(f"{name} {p['iops']:.0f}" for name, p in parts.items()) + " IOPS, p99 " +
            ", ".join(p99) + " ms, neighbours " +
            ", ".join(f"{p['theirs']:.0f}" for p in parts.values()) + " IOPS" +
            (", released" if parts["shared"]["stuck"] else ""))
