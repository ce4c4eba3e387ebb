# SPDX-License-Identifier: GPL-2.0
"""Commands, files, modules and caches of the machine."""

import os
import subprocess

MIB = 1 << 20


class BenchError(Exception):
    """An error that is reported in one sentence, without a trace."""


def run(*args, **kwargs):
    """Runs a command that must succeed; returns its output."""
    try:
        done = subprocess.run(args, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **kwargs)
    except FileNotFoundError:
        raise BenchError(f"{args[0]} is not installed") from None
    if done.returncode != 0:
        why = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise BenchError(f"{' '.join(args)[:200]}: exit status {done.returncode}: {why[-1]}")
    return done.stdout


def read_file(path):
    with open(path, encoding="ascii", errors="replace") as f:
        return f.read()


def write_file(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


def modprobe(module, *params):
    """Loads a module of the installed kernel."""
    try:
        run("modprobe", module, *params)
    except BenchError as e:
        raise BenchError(f"the module {module} can't be loaded ({e})") from None


def drop_caches(what="1"):
    os.sync()
    write_file("/proc/sys/vm/drop_caches", what)
