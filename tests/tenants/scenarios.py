# SPDX-License-Identifier: GPL-2.0
"""The scenarios: what blocks the neighbours, and what the victim does."""

import dataclasses

from tenants.system import KIB, MIB

# The size of each I/O.
BLOCK = 4 * KIB

# The limit of each neighbour: a small part of the I/O that it submits.
IOPS = 64
WBPS = IOPS * BLOCK


@dataclasses.dataclass
class Scenario:
    """The neighbours are in cgroups below PARENT, or in the root cgroup if root is set."""

    name: str
    what: str
    depth: int = 256
    neighbours: int = 1
    # The neighbours' I/O: write, read, write through the page cache of the device ("paged"), or
    # write and fsync, in as many tasks as the depth ("fsync").
    op: str = "write"
    # The backing file: direct or buffered on the file system of the disk, or on tmpfs.
    backing: str = "direct"
    # Their limits: values of io.max and other files of their cgroups.
    limits: dict = dataclasses.field(default_factory=dict)
    # The limit of dirty memory of the whole machine, in bytes.
    dirty_limit: int = 0
    frozen: bool = False
    iocost: bool = False
    root: bool = False
    # read, write, or fsync; in a cgroup below PARENT, in the root, or deeper.
    victim: str = "read"
    where: str = "child"
    quick: bool = False


def scenarios():
    wbps = {"io.max": f"wbps={WBPS}"}
    riops = {"io.max": f"riops={IOPS}"}
    high = wbps | {"memory.high": 4 * MIB}
    for n in (1, 4, 16):
        for depth in (64, 256, 1024):
            yield Scenario(f"wbps-{n}x{depth}", f"io.max wbps: {n} x QD {depth}", depth, n,
                           limits=wbps, quick=(n, depth) == (1, 256))
    # Nearly the maximum depth of a task (aio-max-nr).
    for depth in (16384, 65000):
        yield Scenario(f"wbps-1x{depth}", f"io.max wbps: 1 x QD {depth}", depth, limits=wbps)
    yield Scenario("riops-1x256", "io.max riops: 1 x QD 256, reads", op="read", limits=riops)
    yield Scenario("riops-16x64", "io.max riops: 16 x QD 64, reads", 64, 16, op="read",
                   limits=riops)
    yield Scenario("paged", "io.max wbps: 1 that writes through the page cache", op="paged",
                   limits=wbps, dirty_limit=8 * MIB)
    for n in (1, 4):
        yield Scenario(f"memory.high-{n}x256", f"memory.high and io.max, buffered: {n} x QD 256",
                       256, n, backing="buffered", limits=high, quick=n == 1)
    yield Scenario("memory.max-1x256", "memory.max and io.max, buffered: 1 x QD 256",
                   backing="buffered", limits=wbps | {"memory.max": 32 * MIB})
    yield Scenario("tmpfs-1x256", "memory.high, backing file on tmpfs: 1 x QD 256",
                   backing="tmpfs", limits={"memory.high": 1 * MIB}, quick=True)
    yield Scenario("tmpfs-16x64", "memory.high, backing file on tmpfs: 16 x QD 64", 64, 16,
                   backing="tmpfs", limits={"memory.high": 1 * MIB})
    # The victim of the control is on the frozen file system, too: reads continue there.
    yield Scenario("frozen-1x256", "frozen file system: 1 x QD 256", frozen=True)
    yield Scenario("frozen-4x1024", "frozen file system: 4 x QD 1024", 1024, 4, frozen=True)
    yield Scenario("frozen-root", "frozen file system: root, QD 256", frozen=True, root=True,
                   quick=True)
    yield Scenario("io.cost", "io.cost, io.weight 1 beside 10000: 4 x QD 256", 256, 4,
                   limits={"io.weight": 1}, iocost=True)
    yield Scenario("io.cost-16x64", "io.cost, io.weight 1 beside 10000: 16 x QD 64", 64, 16,
                   limits={"io.weight": 1}, iocost=True)
    # More than the default max_active of a workqueue (WQ_DFL_ACTIVE).
    yield Scenario("stuck-1100", "frozen file system: 1100 x QD 1", 1, 1100, frozen=True)
    # The block layer issues one flush at a time, and requests that wait for one keep their tags.
    yield Scenario("fsync-200", "io.max wbps, buffered: 200 tasks that write and fsync", 200,
                   op="fsync", backing="buffered", limits=wbps)
    yield Scenario("victim-writes", "io.max wbps: 1 x QD 256; the victim writes", limits=wbps,
                   victim="write")
    yield Scenario("victim-fsyncs", "io.max wbps: 1 x QD 256; the victim fdatasyncs", limits=wbps,
                   victim="fsync", quick=True)
    yield Scenario("victim-root", "io.max wbps: 1 x QD 256; the victim is root", limits=wbps,
                   where="root")
    yield Scenario("victim-nested", "io.max wbps: 1 x QD 256; the victim is 4 cgroups deep",
                   limits=wbps, where="nested")
    # Victim and neighbour share the file, its lock and its dirty pages.
    yield Scenario("buffered-writes", "memory.high, io.max, buffered; the victim writes",
                   backing="buffered", limits=high, victim="write")
    yield Scenario("buffered-writes-max", "memory.max, io.max, buffered; the victim writes",
                   backing="buffered", limits=wbps | {"memory.max": 32 * MIB}, victim="write")
    yield Scenario("buffered-fsyncs", "memory.high, io.max, buffered; the victim fdatasyncs",
                   backing="buffered", limits=high, victim="fsync")


SCENARIOS = {s.name: s for s in scenarios()}
