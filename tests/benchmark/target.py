# SPDX-License-Identifier: GPL-2.0
"""The loop drivers and the backing file, which are measured."""

import contextlib
import fcntl
import time

from benchmark.system import BenchError, modprobe, read_file, run

CTL_ADD, CTL_REMOVE, CTL_GET_FREE = 0x4C80, 0x4C81, 0x4C82


def ctl(cmd, arg=0):
    """An ioctl of /dev/loop-control."""
    with open("/dev/loop-control", "rb") as control:
        return fcntl.ioctl(control, cmd, arg)


def retry(action):
    """Retries for up to ten seconds."""
    for left in range(200, -1, -1):
        try:
            return action()
        except (BenchError, OSError):
            if not left:
                raise
            time.sleep(0.05)


class Target:
    """A driver, or the backing file itself."""

    def __init__(self, name, module):
        self.name, self.module = name, module
        self.driver = {"": None, "loop": "loop"}.get(module, "loop_rs")

    def load(self, **params):
        if not self.driver:
            return
        words = [f"{k}={v}" for k, v in params.items()]
        if self.driver == "loop":
            modprobe("loop", *words)
        else:
            try:
                run("insmod", self.module, *words)
            except BenchError as e:
                raise BenchError(f"the module {self.module} can't be loaded ({e})") from None

    def unload(self):
        if self.driver:
            # The last reference to the module can be dropped after the close of a device has
            # returned.
            retry(lambda: run("rmmod", self.driver))

    @contextlib.contextmanager
    def loaded(self, **params):
        self.load(**(params or {"max_loop": 1}))
        try:
            yield
        finally:
            self.unload()

    @contextlib.contextmanager
    def device(self, path, mode):
        """Creates a device and attaches it to the file; yields the path of the device, or of the
        file itself. The driver is loaded."""
        if not self.driver:
            yield path
            return
        options = ["--direct-io=on"] if mode == "dio" else []
        dev = run("losetup", "--find", "--show", *options, path).strip()
        dio = read_file(f"/sys/block/{dev[5:]}/loop/dio").strip()
        if dio != ("1" if mode == "dio" else "0"):
            raise BenchError(f"{self.name} refuses direct I/O on {path}")
        try:
            yield dev
        finally:
            run("losetup", "--detach", dev)
            # Others may have it open for a moment.
            retry(lambda: ctl(CTL_REMOVE, int(dev[9:])))
