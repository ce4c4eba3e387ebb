# SPDX-License-Identifier: GPL-2.0
"""The neighbours: they keep I/O in flight, and are blocked by their limits."""

import signal
import struct
import subprocess
import time

from tenants.cgroups import cg_io, in_cgroup
from tenants.disk import MOST_NEIGHBOURS, NEIGHBOUR_SIZE, VICTIM_SIZE
from tenants.scenarios import BLOCK, IOPS, WBPS
from tenants.system import KIB, Failed, run, wait_for, write


class Neighbours:
    """The neighbours of a scenario, on one device."""

    def __init__(self, bench, scenario, loop):
        self.bench, self.scenario, self.loop = bench, scenario, loop
        self.cgroups = bench.cgroups
        self.counts = bench.tmp / "counts"
        self.process = None
        self.frozen = False
        self.samples = []

    # Half of their depth, or of the tags of a device.
    @property
    def least(self):
        s = self.scenario
        return min(s.neighbours * s.depth, 128) // 2 if s.op != "paged" else 32

    def start(self):
        s = self.scenario
        if s.backing == "tmpfs":
            # Memory is charged when it is allocated: free the blocks.
            run("fallocate", "--punch-hole", "--offset", VICTIM_SIZE, "--length",
                MOST_NEIGHBOURS * NEIGHBOUR_SIZE, self.loop.file)
        elif s.backing == "buffered":
            self.own_writeback()
        for name, value in s.limits.items():
            for cgroup in self.cgroups:
                self.limit(cgroup, name, value)
        if s.frozen:
            run("fsfreeze", "--freeze", self.bench.disk.fs)
            self.frozen = True
        size = MOST_NEIGHBOURS * NEIGHBOUR_SIZE // s.neighbours // BLOCK * BLOCK
        self.process = subprocess.Popen(
            [str(self.bench.io), self.counts, self.loop.dev, s.op, str(VICTIM_SIZE), str(size),
             str(s.depth), *map(str, self.cgroups)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def limit(self, cgroup, name, value):
        if name == "io.max":
            value = f"{self.bench.disk.number} {value}"
        write(cgroup / name, value)

    def own_writeback(self):
        """The writeback of the file may have been switched to the victim's cgroup: wait until it is
        the neighbour's again, since its limits apply only then."""
        cgroup, disk = self.cgroups[0], self.bench.disk.number
        for _ in range(40):
            before = cg_io(cgroup, disk, "wbytes")
            run("dd", "if=/dev/zero", f"of={self.loop.dev}", "bs=64k", "count=12",
                f"seek={VICTIM_SIZE // (64 * KIB)}", "conv=notrunc", "oflag=direct,dsync",
                preexec_fn=in_cgroup(cgroup))
            if cg_io(cgroup, disk, "wbytes") - before >= 12 * 64 * KIB:
                return
            time.sleep(0.1)
        raise Failed(f"the writeback of {self.loop.file} never became its neighbour's")

    def done(self):
        """Their completed I/Os by their own count, and bytes and operations on the disk."""
        disk = self.bench.disk.number
        try:
            data = self.counts.read_bytes()
        except OSError:
            data = b""
        ops = sum(struct.unpack(f"={len(data) // 8}Q", data))
        if self.scenario.root:
            return ops, 0, 0
        return (ops, sum(cg_io(c, disk, "wbytes") for c in self.cgroups),
                sum(cg_io(c, disk, "rios") for c in self.cgroups))

    def alive(self):
        if self.process.poll() is not None:
            raise Failed(f"a neighbour ended: {self.process.stderr.read().strip() or 'killed'}")

    def sample(self):
        self.alive()
        self.samples.append(self.loop.in_flight())

    def too_fast(self, before, seconds):
        """The reason why they are not blocked, given their counts some seconds ago; or None."""
        s = self.scenario
        ops, wbytes, rios = (a - b for a, b in zip(self.done(), before))
        if s.frozen:
            return f"they did {ops} I/Os on a frozen file system" if ops else None
        if s.iocost:
            most = IOPS * s.neighbours * seconds * 1.5 + s.neighbours
            return f"they did {ops} I/Os, more than {most:.0f}" if ops > most else None
        if s.backing == "tmpfs":
            # memory.high puts a task to sleep for up to 2 s after some pages; without a limit it
            # writes tens of thousands of pages.
            most = 4 * IOPS * s.neighbours * (seconds + 1)
            return f"they did {ops} I/Os, more than {most:.0f}" if ops > most else None
        # A second more: the throttler works in slices.
        if s.op == "read":
            most = IOPS * s.neighbours * (seconds * 1.2 + 1)
            return f"they did {rios} reads, more than {most:.0f}" if rios > most else None
        most = WBPS * s.neighbours * (seconds * 1.2 + 1)
        return f"they wrote {wbytes} bytes, more than {most:.0f}" if wbytes > most else None

    def wait_until_held(self):
        why = "no time"
        end = time.monotonic() + 30
        while time.monotonic() < end:
            before = self.done()
            start = time.monotonic()
            busy = 0
            for _ in range(10):
                time.sleep(0.1)
                self.alive()
                busy += self.loop.in_flight() >= self.least
            why = self.too_fast(before, time.monotonic() - start)
            if busy < 8:
                why = f"they keep less than {self.least} I/Os in flight"
            if not why:
                return
        raise Failed(f"the neighbours were not blocked within 30 s: {why}")

    def lift_limits(self):
        """Thaws the file system and resets the limits of the cgroups."""
        if self.frozen:
            self.frozen = False
            run("fsfreeze", "--unfreeze", self.bench.disk.fs)
        for name in self.scenario.limits:
            for cgroup in self.cgroups:
                if name == "io.weight":
                    self.limit(cgroup, name, "default 100")
                elif name == "io.max":
                    self.limit(cgroup, name, "wbps=max riops=max")
                else:
                    self.limit(cgroup, name, "max")

    def terminate(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """Lifts their limits, and waits for their end."""
        self.lift_limits()
        self.terminate()
        if self.process:
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired as e:
                raise Failed("the neighbours did not end within 60 s without limits") from e
            finally:
                self.process.stderr.close()
            self.process = None
        wait_for(30, f"the I/O of {self.loop.dev}", lambda: self.loop.in_flight() == 0)


def check_held(neighbours, before, seconds):
    """Checks that the neighbours were blocked all the time, and had many I/Os in flight most of the
    time: new I/Os come a moment after a batch was let through. Returns their IOPS."""
    why = neighbours.too_fast(before, seconds)
    samples = neighbours.samples
    idle = sum(n < neighbours.least for n in samples)
    if not why and idle * 5 > len(samples):
        why = f"they had less than {neighbours.least} I/Os in flight {idle} of {len(samples)} times"
    if why:
        raise Failed(f"the neighbours were not blocked: {why}")
    return (neighbours.done()[0] - before[0]) / seconds
