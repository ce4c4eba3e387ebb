# SPDX-License-Identifier: GPL-2.0
"""The cgroups of the neighbours and of the victim."""

import contextlib
import pathlib

from tenants.system import wait_for, write

CGROOT = pathlib.Path("/sys/fs/cgroup")
PARENT = CGROOT / "loop_rs-isolation"


def cg_create(path, controllers=""):
    path.mkdir()
    if controllers:
        write(path / "cgroup.subtree_control", controllers)
    return path


def cg_remove(path):
    """Kills the processes in it, and removes it with its children."""
    if not path.exists():
        return
    write(path / "cgroup.kill", 1)

    def gone():
        for child in sorted(path.glob("**/"), key=lambda p: -len(p.parts)):
            with contextlib.suppress(OSError):
                child.rmdir()
        return not path.exists()
    wait_for(20, f"removing {path}", gone)


def cg_io(cgroup, disk, key):
    """A value of io.stat, 0 if the disk is not in it."""
    for line in (cgroup / "io.stat").read_text(encoding="ascii").splitlines():
        name, *pairs = line.split()
        if name == disk:
            return int(dict(pair.split("=") for pair in pairs).get(key, 0))
    return 0


def in_cgroup(cgroup):
    """A preexec_fn that moves the child to the cgroup."""
    def enter():
        (cgroup / "cgroup.procs").write_text("0\n", encoding="ascii")
    return enter
