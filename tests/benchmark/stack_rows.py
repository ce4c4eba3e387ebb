# SPDX-License-Identifier: GPL-2.0
"""Rows of file systems, dm-verity and dm-crypt on a loop device."""

import contextlib
import glob
import os
import shutil
import subprocess
import time

from benchmark.meter import Meter
from benchmark.stores import mounted
from benchmark.system import MIB, BenchError, drop_caches, modprobe, read_file, run, write_file

STACK_FILES = 16
KEY = "bench"


def stack_data():
    """Creates files of 1 MiB from the libraries of the machine; returns their directory."""
    where = "/run/loop_rs-bench-data"
    if not os.path.isdir(where):
        os.mkdir(where)
        libraries = iter(sorted(p for p in glob.glob("/usr/lib/*-linux-gnu/*.so*") if not os.path.islink(p)))
        left = b""
        for i in range(STACK_FILES):
            while len(left) < MIB:
                path = next(libraries, None)
                if path is None:
                    raise BenchError("/usr/lib has too few libraries to make files of")
                with open(path, "rb") as f:
                    left += f.read()
            with open(f"{where}/f{i}", "wb") as f:
                f.write(left[:MIB])
            left = left[MIB:]
    return where


@contextlib.contextmanager
def image_disk(image, size):
    """A RAM disk on which an image is built; copies it to the image at the end."""
    modprobe("brd", "rd_nr=1", f"rd_size={size // 1024}")
    try:
        yield "/dev/ram0"
        run("cp", "--sparse=always", "/dev/ram0", image)
    finally:
        run("rmmod", "brd")


def copy_data(dev, kind, *options):
    with mounted(dev, kind, *options) as where:
        run("cp", "-r", f"{stack_data()}/.", where)


class StackRow:
    """The time that two tasks take to read the files of a file system on a loop device, with cold
    caches.

    A subclass has build(image), which is called once for an image, and opened(dev, image), a
    context in which it is mounted."""
    # With --icount only if --rows names the row: building the images takes minutes.
    unit, better, icount = "ms", "lower", "named"
    files = STACK_FILES

    def __init__(self, what, mode, *options):
        self.what, self.mode, self.options = what, mode, options
        self.name = f"stack-{what}-{mode}"
        self.scenario = ("stack", self.image())

    @staticmethod
    def has(target):
        return target != "file"

    def measure(self, target, path, ctx):
        image = f"{path}/{self.image()}"
        if not os.path.exists(image):
            self.build(image)
        with target.loaded(), target.device(image, self.mode) as dev, \
                self.opened(dev, image) as where:
            files = [f"{where}/f{i}" for i in range(self.files)]
            half = self.files // 2
            drop_caches("3")
            # Load the program into the page cache.
            run("cat", "/dev/null")
            meter = Meter()
            start = time.monotonic_ns()
            tasks = [subprocess.Popen(["cat", *part], stdout=subprocess.DEVNULL)
                     for part in (files[:half], files[half:])]
            if any([task.wait() != 0 for task in tasks]):
                raise BenchError(f"{self.name}: reading failed")
            ns = time.monotonic_ns() - start
            used = meter.stop(1)
        if ctx.icount:
            return {"value": used["cpu"], "ctxt": used["ctxt"]}
        return {"value": ns / 1e6, **used}

    def image(self):
        return self.what


class ErofsRow(StackRow):
    def build(self, image):
        where = stack_data()
        if "lzma" in self.what:
            where += "-few"
            if not os.path.isdir(where):
                os.mkdir(where)
                for i in range(self.files):
                    shutil.copy(f"{stack_data()}/f{i}", where)
        run("mkfs.erofs", *self.options, image, where)

    @property
    def files(self):
        # Under emulation LZMA takes a minute for 16 MiB.
        return STACK_FILES // 4 if "lzma" in self.what else STACK_FILES

    def opened(self, dev, image):
        return mounted(dev, "erofs", "ro")


class SquashfsStackRow(StackRow):
    def build(self, image):
        run("mksquashfs", stack_data(), image, "-no-progress", "-quiet", *self.options)

    def opened(self, dev, image):
        return mounted(dev, "squashfs", "ro")


class FsRow(StackRow):
    """A writable file system with options for mkfs and mount."""

    def __init__(self, what, mode, mkfs, mount=()):
        super().__init__(what, mode)
        self.mkfs, self.mount = mkfs, mount

    def build(self, image):
        with image_disk(image, 128 * MIB) as dev:
            run(f"mkfs.{self.what}", *self.mkfs, dev)
            copy_data(dev, self.what, *self.mount)

    def opened(self, dev, image):
        return mounted(dev, self.what, "ro", *self.mount)


class VerityRow(StackRow):
    """ext4 and its hash tree in one image."""
    size = 32 * MIB

    def build(self, image):
        # The block size of dm-verity.
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-d", stack_data(), image, f"{self.size // MIB}M")
        out = run("veritysetup", "format", f"--hash-offset={self.size}",
                  f"--data-blocks={self.size // 4096}", image, image)
        write_file(f"{image}.root", next(line.split()[-1] for line in out.splitlines()
                                         if line.startswith("Root hash")))

    @contextlib.contextmanager
    def opened(self, dev, image):
        run("veritysetup", "open", f"--hash-offset={self.size}", dev, "bench", dev,
            read_file(f"{image}.root"))
        try:
            with mounted("/dev/mapper/bench", "ext4", "ro") as where:
                yield where
        finally:
            run("veritysetup", "close", "bench")


class LuksRow(StackRow):
    """ext4 on dm-crypt; options are those of cryptsetup open."""
    key = "/run/loop_rs-bench-key"

    def image(self):
        return "luks"

    def build(self, image):
        write_file(self.key, KEY)
        with image_disk(image, 64 * MIB) as dev:
            run("cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
                dev, self.key)
            with self.crypt(dev):
                run("mkfs.ext4", "-q", "-F", "/dev/mapper/bench")
                copy_data("/dev/mapper/bench", "ext4")

    @contextlib.contextmanager
    def crypt(self, dev, *options):
        run("cryptsetup", "open", "--key-file", self.key, *options, dev, "bench")
        try:
            yield
        finally:
            run("cryptsetup", "close", "bench")

    @contextlib.contextmanager
    def opened(self, dev, image):
        with self.crypt(dev, *self.options), mounted("/dev/mapper/bench", "ext4", "ro") as where:
            yield where


def stack_rows():
    for mode in ("buf", "dio"):
        yield ErofsRow("erofs-lz4", mode, "-zlz4")
        yield ErofsRow("erofs-zstd", mode, "-zzstd,level=1")
        yield ErofsRow("erofs-lzma", mode, "-zlzma,level=0")
        yield SquashfsStackRow("squashfs-gzip", mode, "-comp", "gzip", "-Xcompression-level", "1")
        yield SquashfsStackRow("squashfs-zstd", mode, "-comp", "zstd", "-Xcompression-level", "1")
        yield VerityRow("verity", mode)
        yield LuksRow("luks", mode)
        yield LuksRow("luks-noworkqueue", mode, "--perf-no_read_workqueue")
        yield FsRow("btrfs", mode, ["-qf", "-m", "single"])
        yield FsRow("f2fs", mode, ["-qf", "-O", "extra_attr,compression"],
                    ["compress_algorithm=lz4", "compress_extension=*"])
