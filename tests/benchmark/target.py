# SPDX-License-Identifier: GPL-2.0
"""The loop drivers and the backing file, which are measured."""

import contextlib
import time

from benchmark.system import BenchError, modprobe, read_file, run

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
        if not self.driver:
            return
        # The last reference to the module can be dropped after the close of a device has returned.
        for i in range(200):
            try:
                run("rmmod", self.driver)
                return
            except BenchError:
                if i == 199:
                    raise
                time.sleep(0.05)

    @contextlib.contextmanager
    def loaded(self, **params):
        self.load(**(params or {"max_loop": 1}))
        try:
            yield
        finally:
            self.unload()

    @contextlib.contextmanager
    def device(self, path, mode):
        """Attaches a device to the file; yields the path of the device, or of the file itself."""
        if not self.driver:
            yield path
            return
        with self.loaded():
            options = ["--direct-io=on"] if mode == "dio" else []
            dev = run("losetup", "--find", "--show", *options, path).strip()
            dio = read_file(f"/sys/block/{dev[5:]}/loop/dio").strip()
            if dio != ("1" if mode == "dio" else "0"):
                raise BenchError(f"{self.name} refuses direct I/O on {path}")
            try:
                yield dev
            finally:
                run("losetup", "--detach", dev)
